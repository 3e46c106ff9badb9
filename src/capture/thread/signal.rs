//! The signal and its handler.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::MAX_COPY;
use crate::capture::SPANS;
use crate::capture::ThreadSlot;
use crate::capture::fork::PerProcess;
use crate::capture::handover::{Answer, Handover};
use crate::capture::memory::{LEAST, Memory, THREAD_APART, extent, reaches};
use crate::capture::snapshot::Registers;
use crate::capture::sys;

/// How many signals may be on their way at once, to threads that mask them or cannot be interrupted.
pub(super) const UNANSWERED: usize = 64;

/// The question and the room for its answer. The asker writes it while the hand-over is idle, the handler while it is
/// copying. Each process has its own, because threads that owe the parent an answer don't exist in the child.
pub(super) struct Desk {
    pub(super) handover: Handover,
    pub(super) process: AtomicI32,
    pub(super) slot: AtomicPtr<ThreadSlot>,
    pub(super) sequence: AtomicU64,
    pub(super) stack_start: AtomicUsize,
    pub(super) stack_end: AtomicUsize,
    pub(super) room: AtomicPtr<u64>,
    /// For stacks that aren't the thread's own: see [`Memory::to_bits`].
    pub(super) memory: AtomicI32,
    pub(super) registers: [AtomicU64; 4],
    pub(super) len: AtomicUsize,
    pub(super) truncated: AtomicBool,
    pub(super) foreign: AtomicBool,
    pub(super) spans: [AtomicU64; SPANS],
    /// [Cookies](cookie) of questions that were withdrawn before their signal arrived, or zero for a free place. The
    /// handler removes a cookie when its signal arrives after all.
    pub(super) unanswered: [AtomicU64; UNANSWERED],
}

/// Made by the first asker. The handler makes none, because it must not allocate.
pub(super) static DESK: PerProcess<Desk> = PerProcess::new(|| Desk {
    handover: Handover::new(),
    process: AtomicI32::new(0),
    slot: AtomicPtr::new(std::ptr::null_mut()),
    sequence: AtomicU64::new(0),
    stack_start: AtomicUsize::new(0),
    stack_end: AtomicUsize::new(0),
    room: AtomicPtr::new(std::ptr::null_mut()),
    memory: AtomicI32::new(-1),
    registers: [const { AtomicU64::new(0) }; 4],
    len: AtomicUsize::new(0),
    truncated: AtomicBool::new(false),
    foreign: AtomicBool::new(false),
    spans: [const { AtomicU64::new(0) }; SPANS],
    unanswered: [const { AtomicU64::new(0) }; UNANSWERED],
});

/// Thread ids have no more bits than this (`PID_MAX_LIMIT`).
const TID_BITS: u32 = 22;
/// The hand-over keeps a state next to it.
const COOKIE_BITS: u32 = 60;

/// Returns what distinguishes a question to that thread from others. A signal that could not carry it finds it by the
/// thread's id.
pub(super) fn cookie(number: u64, tid: i32) -> u64 {
    let tid = u64::from(tid as u32);
    (number << TID_BITS | tid & ((1 << TID_BITS) - 1)) & ((1 << COOKIE_BITS) - 1)
}

fn is_for(cookie: u64, tid: i32) -> bool {
    cookie != 0 && cookie == self::cookie(cookie >> TID_BITS, tid)
}

/// How a signal can be sent to one thread of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Queued, with a cookie.
    Queued,
    /// Sent without a cookie, because some sandboxes and emulators of Linux refuse queued signals.
    Directed,
}

/// Sends the signal to one thread of this process. Returns `None` if the system refuses it.
pub(super) fn send(tid: i32, signal: i32, cookie: u64) -> Option<Sending> {
    if queue(tid, signal, cookie) {
        return Some(Sending::Queued);
    }
    // If too many are queued, no other way can send one more.
    let refused = std::io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN);
    // SAFETY: sends a signal that has heeler's handler, to a thread of this process.
    let sent = refused && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) } == 0;
    sent.then_some(Sending::Directed)
}

/// Returns how signals can be sent here. Sends none, because the number 0 stands for a trial.
pub(crate) fn sending() -> Option<Sending> {
    send(sys::thread_id(), 0, 0)
}

/// Queues the signal for one thread of this process.
fn queue(tid: i32, signal: i32, cookie: u64) -> bool {
    // SAFETY: `siginfo_t` is plain data for which zeros are valid. The kernel's layout for a queued signal has the
    // value behind three `int`s and, for `SI_QUEUE`, sender and user.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = signal;
        info.si_code = libc::SI_QUEUE;
        let fields = (&raw mut info).cast::<QueuedInfo>();
        (*fields).pid = libc::getpid();
        (*fields).uid = libc::getuid();
        (*fields).value = cookie;
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), tid, signal, &raw const info) == 0
    }
}

/// `siginfo_t` of a queued signal, as the kernel lays it out on 64-bit platforms.
#[repr(C)]
struct QueuedInfo {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
}

const _: () = assert!(size_of::<QueuedInfo>() <= size_of::<libc::siginfo_t>());

/// Stands for the number of a poll in a question to a thread that is in none.
pub(super) const OUTSIDE: u64 = u64::MAX;

/// Returns whether the slot's thread is where it is asked: in that poll, or outside of any. Exact on the thread itself.
pub(super) fn is_there(slot: &ThreadSlot, sequence: u64) -> bool {
    if sequence == OUTSIDE { slot.is_outside() } else { slot.is_in(sequence) }
}

fn action(signal: i32) -> Option<libc::sigaction> {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: reads the disposition into `current`, or fails.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()) } == 0;
    // SAFETY: filled in by the call, which has succeeded.
    read.then(|| unsafe { current.assume_init() })
}

pub(super) fn is_ours(signal: i32) -> bool {
    action(signal).is_some_and(|action| action.sa_sigaction == handler as *const () as usize)
}

/// Installs the handler unless something else uses the signal. It is never removed, because a late signal would find
/// the default disposition, which ends the process.
pub(crate) fn install(signal: i32) -> Result<(), &'static str> {
    if !(libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal) {
        return Err("not a real-time signal");
    }
    let current = action(signal).ok_or("no such signal")?;
    if current.sa_sigaction == handler as *const () as usize {
        return Ok(());
    }
    if current.sa_sigaction != libc::SIG_DFL {
        return Err("the signal is in use");
    }
    // SAFETY: a zeroed `sigaction` is valid. The handler is async-signal-safe (see `handler`).
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        // On the alternate stack, because the interrupted one may be a coroutine's, or nearly full.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if installed == 0 { Ok(()) } else { Err("the system refuses it") }
}

/// Copies the interrupted thread's stack, if the open question is about it.
///
/// It is async-signal-safe. It uses atomics, one copy (in place, or by a system call without the C library), and the
/// thread's id. It doesn't touch `errno`. It runs on the thread's alternate stack, where `SignalStack` reserves 4 KiB
/// for it.
extern "C" fn handler(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a `siginfo_t`, whose layout is that of a queued signal if the code says so. In a signal
    // sent by `tgkill`, the fields up to the sender are the same.
    let info = unsafe { &*info.cast::<QueuedInfo>() };
    let Some(desk) = DESK.existing() else { return };
    if info.pid != desk.process.load(Ordering::Relaxed) {
        return;
    }
    let cookie = match info.code {
        libc::SI_QUEUE => Some(info.value),
        // The open question, if this thread is asked.
        libc::SI_TKILL => Some(desk.handover.cookie()).filter(|cookie| is_for(*cookie, sys::thread_id())),
        _ => return,
    };
    let Some(cookie) = cookie.filter(|cookie| desk.handover.take(*cookie)) else {
        // Too late, because the question was withdrawn. From now on the thread may be asked again.
        let tid = sys::thread_id();
        let is_answered = |place: &&AtomicU64| match (place.load(Ordering::Relaxed), info.code) {
            (noted, libc::SI_QUEUE) => noted == info.value && noted != 0,
            (noted, _) => is_for(noted, tid),
        };
        if let Some(place) = desk.unanswered.iter().find(is_answered) {
            place.store(0, Ordering::Release);
        }
        return;
    };
    // SAFETY: slots are never freed, and the asker stored this one before it asked.
    let slot = unsafe { &*desk.slot.load(Ordering::Relaxed) };
    // SAFETY: the kernel passes the interrupted context.
    let registers = unsafe { sys::interrupted(context) };
    let stack = desk.stack_start.load(Ordering::Relaxed)..desk.stack_end.load(Ordering::Relaxed);
    let sequence = desk.sequence.load(Ordering::Relaxed);
    if !is_there(slot, sequence) {
        desk.handover.answer(cookie, Answer::Missed);
        return;
    }
    let outside = sequence == OUTSIDE;
    let (sp, end) = (registers.sp as usize & !7, if outside { stack.end } else { slot.frame() });
    let room = desk.room.load(Ordering::Relaxed);
    let is_own = stack.contains(&sp) && (outside || stack.contains(&end)) && sp < end;
    if outside && !is_own {
        desk.handover.answer(cookie, Answer::Unreadable);
        return;
    }
    let (len, truncated, foreign) = if is_own {
        let wanted = (end - sp) / 8;
        let len = wanted.min(MAX_COPY / 8);
        // SAFETY: this thread is inside the poll whose frame `end` is in, on the same stack, or `end` is where its stack
        // ends. All of `[sp, end)` is mapped and stays mapped, because the thread is still here. The room has `MAX_COPY`
        // bytes and is the handler's until it answers. Not `memcpy`, because with lazy binding its first call would
        // enter the loader.
        unsafe { sys::copy_words(sp as *const u64, room, len) };
        // Outside of a poll, a stack ends where the thread began, as a fiber's does.
        (len, len < wanted, outside)
    } else {
        let wanted = extent(sp, end, THREAD_APART) / 8;
        // SAFETY: as for the room. What is read may be anything.
        let len = Memory::from_bits(desk.memory.load(Ordering::Relaxed))
            .map_or(0, |memory| unsafe { memory.read(sp, room, wanted) });
        if len < LEAST {
            desk.handover.answer(cookie, Answer::Unreadable);
            return;
        }
        let foreign = !reaches(sp, end, len * 8);
        (len, foreign && len == wanted, foreign)
    };
    let Registers { pc, fp, lr, .. } = registers;
    for (to, value) in desk.registers.iter().zip([pc, registers.sp, fp, lr]) {
        to.store(value, Ordering::Relaxed);
    }
    desk.len.store(len, Ordering::Relaxed);
    desk.truncated.store(truncated, Ordering::Relaxed);
    desk.foreign.store(foreign, Ordering::Relaxed);
    #[cfg(feature = "spans")]
    slot.spans.publish(&desk.spans);
    desk.handover.answer(cookie, Answer::Done);
}
