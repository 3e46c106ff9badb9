//! The stack of a thread that is inside a poll: signal it, and copy its stack in the handler.
//!
//! The handler copies registers and stack into memory that is ready, publishes with one atomic store and returns. It
//! takes no lock, allocates nothing, calls nothing that might. It answers one kind of signal only: queued by this process,
//! with the cookie of the question that stands.

#[cfg(heeler_copies)]
pub(crate) use imp::{Sampler, install};
#[cfg(not(heeler_copies))]
pub(crate) use portable::{Sampler, install};

use super::procfs::Activity;
use super::snapshot::Snapshot;

/// The longest copy of a stack, in bytes. Async frames can be huge; more than this is cut and marked as cut.
pub(crate) const MAX_COPY: usize = 512 * 1024;

/// What came of asking a thread for its stack.
pub(crate) enum Outcome {
    /// The stack, and what the thread was doing just before.
    Captured(Snapshot, Activity),
    /// The poll had ended when the signal arrived.
    Missed,
    /// No answer within 50 ms: uninterruptible, or the signal is masked.
    NoAnswer(Activity),
    /// Thread stacks are not to be had, and why.
    Unavailable(&'static str),
}

impl Outcome {
    /// Whether the thread has not answered because it was not run: then it will.
    pub(crate) fn may_come_late(&self) -> bool {
        matches!(self, Self::NoAnswer(activity) if activity.on_cpu() == Some(true))
    }
}

#[cfg(heeler_copies)]
mod imp {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::super::handover::{Answer, Handover};
    use super::super::procfs::{Activity, look};
    use super::super::snapshot::{Data, Origin, Registers, Snapshot};
    use super::super::sys;
    use super::super::task::SPANS;
    use super::{MAX_COPY, Outcome};
    use crate::inflight::ThreadSlot;

    /// A thread that has not answered by then is not going to.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// Signals that may be on their way at once, to threads that mask them or cannot be interrupted.
    const UNANSWERED: usize = 64;

    /// The question and the room for its answer. Written by the asker while the hand-over is idle, by the handler while
    /// it is copying.
    struct Desk {
        handover: Handover,
        process: AtomicI32,
        slot: AtomicPtr<ThreadSlot>,
        sequence: AtomicU64,
        stack_start: AtomicUsize,
        stack_end: AtomicUsize,
        room: AtomicPtr<u64>,
        registers: [AtomicU64; 4],
        len: AtomicUsize,
        truncated: AtomicBool,
        spans: [AtomicU64; SPANS],
        /// Cookies of questions that were withdrawn before their signal arrived; zero for a free place. The handler takes
        /// a cookie out when its signal arrives after all.
        unanswered: [AtomicU64; UNANSWERED],
    }

    static DESK: Desk = Desk {
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

    /// Asks threads for their stacks, one at a time: there is one of these in the process.
    pub(crate) struct Sampler {
        signal: Result<i32, &'static str>,
        room: Box<[u64]>,
        cookie: u64,
        /// The last answer of each slot, to leave a thread alone that still sits in the same system call.
        last: HashMap<usize, Last>,
        /// Threads that have a signal coming which they have not taken.
        silent: Vec<Silent>,
        #[cfg(target_arch = "x86_64")]
        peeker: super::super::peek::Peeker,
    }

    /// A thread that owes an answer: to which question, and where on the desk that is noted.
    #[derive(Debug)]
    struct Silent {
        slot: &'static ThreadSlot,
        tid: i32,
        cookie: u64,
        place: usize,
    }

    struct Last {
        sequence: u64,
        activity: Activity,
        cpu: Option<u64>,
        snapshot: Snapshot,
    }

    impl Sampler {
        /// Installs the handler on `signal`, or on the first real-time signal that nobody uses.
        pub(crate) fn new(signal: Option<i32>) -> Self {
            let signal = match signal {
                Some(signal) => install(signal).map(|()| signal),
                // From the top: glibc and most programs that want one count from the bottom.
                None => (libc::SIGRTMIN() + 1..libc::SIGRTMAX())
                    .rev()
                    .find(|signal| install(*signal).is_ok())
                    .ok_or("every real-time signal is taken"),
            };
            // Not zeros: those would be pages that are only mapped at the first touch, in the handler.
            let room = vec![1; MAX_COPY / 8].into();
            // A cookie that another program cannot guess, so that no signal but ours is answered.
            let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
            Self {
                signal,
                room,
                cookie: seed >> 4,
                last: HashMap::new(),
                silent: Vec::new(),
                #[cfg(target_arch = "x86_64")]
                peeker: super::super::peek::Peeker::new(),
            }
        }

        /// The signal in use, or why there is none.
        pub(crate) fn signal(&self) -> Result<i32, &'static str> {
            self.signal
        }

        /// The stack of the slot's thread, if it is still in its poll number `sequence`.
        pub(crate) fn capture(&mut self, slot: &'static ThreadSlot, sequence: u64) -> Outcome {
            let key = std::ptr::from_ref(slot).addr();
            let Some((tid, bounds)) = slot.with_life(|life| (life.tid, life.stack.clone())) else {
                return Outcome::Missed;
            };
            let (activity, cpu) = (look(tid), sys::cpu_time(tid));
            if let Some(last) = self.last.get(&key) {
                let unmoved = last.sequence == sequence && last.cpu == cpu && last.activity.same_call(&activity);
                if unmoved && slot.is_in(sequence) {
                    return Outcome::Captured(last.snapshot.clone(), activity);
                }
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(snapshot) = self.peeker.peek(slot, sequence, &activity, cpu, &mut self.room) {
                return Outcome::Captured(snapshot, activity);
            }
            let signal = match self.signal {
                Ok(signal) => signal,
                Err(why) => return Outcome::Unavailable(why),
            };
            if !is_ours(signal) {
                return Outcome::Unavailable("another handler has replaced heeler's");
            }
            if self.is_silent(slot) {
                return Outcome::NoAnswer(activity);
            }
            match self.ask(signal, slot, sequence, bounds) {
                Reply::Answered(Answer::Done) => {
                    let snapshot = self.collect();
                    let last = Last { sequence, activity: activity.clone(), cpu: None, snapshot: snapshot.clone() };
                    // A thread that goes back to the call it was in has spent some CPU time on the handler.
                    self.last.insert(key, Last { cpu: sys::cpu_time(tid), ..last });
                    Outcome::Captured(snapshot, activity)
                }
                Reply::Answered(_) => Outcome::Missed,
                Reply::Refused => Outcome::Unavailable("the system refuses to send the signal"),
                Reply::None if slot.is_in(sequence) => Outcome::NoAnswer(look(tid)),
                Reply::None => Outcome::Missed,
            }
        }

        /// Whether the thread still owes an answer: then it is not asked again, or signals would pile up.
        fn is_silent(&mut self, slot: &'static ThreadSlot) -> bool {
            self.silent.retain(|silent| {
                let place = &DESK.unanswered[silent.place];
                if place.load(Ordering::Acquire) != silent.cookie {
                    return false;
                }
                // A thread's signals end with it, and its slot is the next one's.
                let lives = silent.slot.with_life(|life| life.tid) == Some(silent.tid);
                if !lives {
                    place.store(0, Ordering::Relaxed);
                }
                lives
            });
            // With no place to note another that does not answer, nobody is asked.
            self.silent.len() == UNANSWERED || self.silent.iter().any(|silent| std::ptr::eq(silent.slot, slot))
        }

        fn ask(
            &mut self,
            signal: i32,
            slot: &'static ThreadSlot,
            sequence: u64,
            bounds: std::ops::Range<usize>,
        ) -> Reply {
            self.cookie = self.cookie.wrapping_add(1) & (u64::MAX >> 4);
            let cookie = self.cookie;
            // SAFETY: no arguments, cannot fail.
            DESK.process.store(unsafe { libc::getpid() }, Ordering::Relaxed);
            DESK.slot.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
            DESK.sequence.store(sequence, Ordering::Relaxed);
            DESK.stack_start.store(bounds.start, Ordering::Relaxed);
            DESK.stack_end.store(bounds.end, Ordering::Relaxed);
            DESK.room.store(self.room.as_mut_ptr(), Ordering::Relaxed);
            DESK.handover.ask(cookie);
            // The thread cannot end, nor its id be given to another, while its life is held.
            let sent = slot.with_life(|life| slot.is_in(sequence).then(|| queue(life.tid, signal, cookie))).flatten();
            if sent != Some(true) {
                DESK.handover.withdraw(cookie);
                return if sent.is_some() { Reply::Refused } else { Reply::Answered(Answer::Missed) };
            }
            let asked = Instant::now();
            loop {
                match DESK.handover.poll() {
                    Answer::Pending => {}
                    answer => return Reply::Answered(answer),
                }
                let waited = asked.elapsed();
                if waited > PATIENCE {
                    // Noted before it is withdrawn: the handler may run at any moment.
                    let place =
                        DESK.unanswered.iter().position(|place| place.load(Ordering::Relaxed) == 0).unwrap_or(0);
                    DESK.unanswered[place].store(cookie, Ordering::Release);
                    if DESK.handover.withdraw(cookie) {
                        let tid = slot.with_life(|life| life.tid);
                        self.silent.extend(tid.map(|tid| Silent { slot, tid, cookie, place }));
                        return Reply::None;
                    }
                    DESK.unanswered[place].store(0, Ordering::Relaxed);
                }
                if waited < Duration::from_micros(30) {
                    std::hint::spin_loop();
                } else {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        }

        fn collect(&self) -> Snapshot {
            let [pc, sp, fp, lr] = [0, 1, 2, 3].map(|index| DESK.registers[index].load(Ordering::Relaxed));
            let words: Arc<[u64]> = self.room[..DESK.len.load(Ordering::Relaxed)].into();
            Snapshot {
                origin: Origin::Signal,
                data: Data::Copied { registers: Registers { pc, sp, fp, lr }, words },
                truncated: DESK.truncated.load(Ordering::Relaxed),
                spans: DESK.spans.iter().map(|id| id.load(Ordering::Relaxed)).take_while(|id| *id != 0).collect(),
            }
        }
    }

    /// What came of a question.
    enum Reply {
        Answered(Answer),
        /// The signal could not be sent: too many are queued, or a sandbox forbids it.
        Refused,
        /// Not in time.
        None,
    }

    /// Queues the signal for one thread of this process.
    fn queue(tid: i32, signal: i32, cookie: u64) -> bool {
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

    fn is_ours(signal: i32) -> bool {
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
}

#[cfg(not(heeler_copies))]
mod portable {
    use super::Outcome;
    use crate::inflight::ThreadSlot;

    const WHY: &str = "this platform or build has no thread stacks";

    pub(crate) fn install(_signal: i32) -> Result<(), &'static str> {
        Err(WHY)
    }

    /// Knows that it cannot.
    #[derive(Debug)]
    pub(crate) struct Sampler;

    impl Sampler {
        pub(crate) fn new(_signal: Option<i32>) -> Self {
            Self
        }

        pub(crate) fn signal(&self) -> Result<i32, &'static str> {
            Err(WHY)
        }

        pub(crate) fn capture(&mut self, _slot: &'static ThreadSlot, _sequence: u64) -> Outcome {
            Outcome::Unavailable(WHY)
        }
    }
}
