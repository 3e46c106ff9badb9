//! The signal and its handler.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::MAX_COPY;
use crate::capture::SPANS;
use crate::capture::handover::Handover;
use crate::capture::snapshot::Registers;
use crate::capture::sys;
use crate::inflight::ThreadSlot;

/// Signals that may be on their way at once, to threads that mask them or cannot be interrupted.
pub(super) const UNANSWERED: usize = 64;

/// The question and the room for its answer. Written by the asker while the hand-over is idle, by the handler while
/// it is copying.
pub(super) struct Desk {
    pub(super) handover: Handover,
    pub(super) process: AtomicI32,
    pub(super) slot: AtomicPtr<ThreadSlot>,
    pub(super) sequence: AtomicU64,
    pub(super) stack_start: AtomicUsize,
    pub(super) stack_end: AtomicUsize,
    pub(super) room: AtomicPtr<u64>,
    pub(super) registers: [AtomicU64; 4],
    pub(super) len: AtomicUsize,
    pub(super) truncated: AtomicBool,
    pub(super) spans: [AtomicU64; SPANS],
    /// Cookies of questions that were withdrawn before their signal arrived; zero for a free place. The handler takes
    /// a cookie out when its signal arrives after all.
    pub(super) unanswered: [AtomicU64; UNANSWERED],
}

pub(super) static DESK: Desk = Desk {
    handover: Handover::new(),
    process: AtomicI32::new(0),
    slot: AtomicPtr::new(std::ptr::null_mut()),
    sequence: AtomicU64::new(0),
    stack_start: AtomicUsize::new(0),
    stack_end: AtomicUsize::new(0),
    room: AtomicPtr::new(std::ptr::null_mut()),
    registers: [const { AtomicU64::new(0) }; 4],
    len: AtomicUsize::new(0),
    truncated: AtomicBool::new(false),
    spans: [const { AtomicU64::new(0) }; SPANS],
    unanswered: [const { AtomicU64::new(0) }; UNANSWERED],
};

/// Queues the signal for one thread of this process.
pub(super) fn queue(tid: i32, signal: i32, cookie: u64) -> bool {
    // SAFETY: `siginfo_t` is plain data for which zeros are valid; the kernel's layout for a queued signal has the
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

/// Installs the handler unless somebody else uses the signal. It is never removed: a late signal would find the
/// default disposition, which ends the process.
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
    // SAFETY: a zeroed `sigaction` is valid; the handler is async-signal-safe (see `handler`).
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if installed == 0 { Ok(()) } else { Err("the system refuses it") }
}

/// Copies the interrupted thread's stack, if the question that stands is about it.
///
/// Async-signal-safe: atomics and one copy, without a call; `errno` is not touched.
extern "C" fn handler(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a `siginfo_t`; its layout is that of a queued signal if the code says so.
    let info = unsafe { &*info.cast::<QueuedInfo>() };
    if info.code != libc::SI_QUEUE || info.pid != DESK.process.load(Ordering::Relaxed) {
        return;
    }
    let cookie = info.value;
    if !DESK.handover.take(cookie) {
        // Late: the question was withdrawn. From now on the thread may be asked again.
        for place in &DESK.unanswered {
            if place.load(Ordering::Relaxed) == cookie {
                place.store(0, Ordering::Release);
            }
        }
        return;
    }
    // SAFETY: slots are never freed; the asker stored this one before it asked.
    let slot = unsafe { &*DESK.slot.load(Ordering::Relaxed) };
    // SAFETY: the kernel passes the interrupted context.
    let registers = unsafe { sys::interrupted(context) };
    let (sp, end) = (registers.sp as usize & !7, slot.frame());
    let stack = DESK.stack_start.load(Ordering::Relaxed)..DESK.stack_end.load(Ordering::Relaxed);
    // On another stack (a stackful coroutine) nothing says what may be read.
    let inside = slot.is_in(DESK.sequence.load(Ordering::Relaxed)) && stack.contains(&sp) && stack.contains(&end);
    if !inside || sp >= end {
        DESK.handover.answer(cookie, false);
        return;
    }
    let wanted = (end - sp) / 8;
    let len = wanted.min(MAX_COPY / 8);
    // SAFETY: this thread is inside the poll whose frame `end` lies in, on the same stack: all of `[sp, end)` is
    // mapped and stays, for the thread is here. The room has `MAX_COPY` bytes and is the handler's until it answers.
    // No `memcpy`: with lazy binding, its first call would enter the loader.
    unsafe { sys::copy_words(sp as *const u64, DESK.room.load(Ordering::Relaxed), len) };
    let Registers { pc, fp, lr, .. } = registers;
    for (to, value) in DESK.registers.iter().zip([pc, registers.sp, fp, lr]) {
        to.store(value, Ordering::Relaxed);
    }
    DESK.len.store(len, Ordering::Relaxed);
    DESK.truncated.store(len < wanted, Ordering::Relaxed);
    #[cfg(feature = "spans")]
    slot.spans.publish(&DESK.spans);
    DESK.handover.answer(cookie, true);
}
