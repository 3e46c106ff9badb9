//! Asking threads for their stacks.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::signal::{DESK, install, is_ours, queue};
use super::{MAX_COPY, Outcome, Sample};
use crate::capture::handover::Answer;
use crate::capture::procfs::{Activity, look};
use crate::capture::snapshot::{Data, Origin, Registers, Snapshot};
use crate::capture::sys;
use crate::inflight::ThreadSlot;
use crate::sync::lock_std;

/// A thread that has not answered by then is not going to.
const PATIENCE: Duration = Duration::from_millis(50);

/// There is one desk, for one question at a time; and which signal the first of those who ask has chosen.
static ASKING: Mutex<Option<i32>> = Mutex::new(None);

/// Asks threads for their stacks, one at a time. The monitor has one of these, and so has the profiler.
pub(crate) struct Sampler {
    signal: Result<i32, &'static str>,
    room: Box<[u64]>,
    cookie: u64,
    /// The last answer of each slot, to leave a thread alone that still sits in the same system call.
    last: HashMap<usize, Last>,
    /// Threads that have a signal coming which they have not taken.
    silent: Vec<Silent>,
    #[cfg(target_arch = "x86_64")]
    peeker: crate::capture::peek::Peeker,
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
        let mut chosen = lock_std(&ASKING);
        let signal = match signal.or(*chosen) {
            Some(signal) => install(signal).map(|()| signal),
            // From the top: glibc and most programs that want one count from the bottom.
            None => (libc::SIGRTMIN() + 1..libc::SIGRTMAX())
                .rev()
                .find(|signal| install(*signal).is_ok())
                .ok_or("every real-time signal is taken"),
        };
        *chosen = signal.ok().or(*chosen);
        drop(chosen);
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
            peeker: crate::capture::peek::Peeker::new(),
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
            Reply::Done(snapshot) => {
                let last = Last { sequence, activity: activity.clone(), cpu: None, snapshot: snapshot.clone() };
                // A thread that goes back to the call it was in has spent some CPU time on the handler.
                self.last.insert(key, Last { cpu: sys::cpu_time(tid), ..last });
                Outcome::Captured(snapshot, activity)
            }
            Reply::Missed => Outcome::Missed,
            Reply::Refused => Outcome::Unavailable("the system refuses to send the signal"),
            Reply::None if slot.is_in(sequence) => Outcome::NoAnswer(look(tid)),
            Reply::None => Outcome::Missed,
        }
    }

    /// The same for somebody who asks often. `cpu` is the thread's CPU time; `runs` says that it has been running since it was
    /// asked last, so that it need not be looked at before it is asked.
    pub(crate) fn sample(&mut self, slot: &'static ThreadSlot, sequence: u64, cpu: u64, runs: bool) -> Sample {
        let key = std::ptr::from_ref(slot).addr();
        let last = self.last.get(&key).filter(|last| last.sequence == sequence);
        if last.is_some_and(|last| last.cpu == Some(cpu)) && slot.is_in(sequence) {
            return Sample::Unmoved;
        }
        if !runs {
            return match self.capture(slot, sequence) {
                Outcome::Captured(snapshot, activity) => {
                    // Asleep all the while, or it has answered: then it has used some time for that.
                    let cpu = sys::cpu_time(activity.tid);
                    // Or it has moved on since, and sleeps elsewhere: then this is not where it is.
                    let cpu = cpu.filter(|_| activity.same_call(&look(activity.tid)));
                    self.last.insert(key, Last { sequence, activity, cpu, snapshot: snapshot.clone() });
                    Sample::Stack(snapshot)
                }
                Outcome::Missed => Sample::Missed,
                Outcome::NoAnswer(_) | Outcome::Unavailable(_) => Sample::Lost,
            };
        }
        let Some(bounds) = slot.with_life(|life| life.stack.clone()) else { return Sample::Missed };
        let Some(signal) = self.signal.ok().filter(|signal| is_ours(*signal)) else { return Sample::Lost };
        if self.is_silent(slot) {
            return Sample::Lost;
        }
        match self.ask(signal, slot, sequence, bounds) {
            Reply::Done(snapshot) => Sample::Stack(snapshot),
            Reply::Missed => Sample::Missed,
            Reply::None if !slot.is_in(sequence) => Sample::Missed,
            Reply::Refused | Reply::None => Sample::Lost,
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
                let _ = place.compare_exchange(silent.cookie, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            lives
        });
        self.silent.iter().any(|silent| std::ptr::eq(silent.slot, slot))
    }

    fn ask(&mut self, signal: i32, slot: &'static ThreadSlot, sequence: u64, bounds: std::ops::Range<usize>) -> Reply {
        self.cookie = self.cookie.wrapping_add(1) & (u64::MAX >> 4);
        let cookie = self.cookie;
        let _desk = lock_std(&ASKING);
        // With no place to note another that does not answer, to whoever has asked, nobody is asked.
        let free = DESK.unanswered.iter().position(|place| place.load(Ordering::Relaxed) == 0);
        let Some(place) = free else { return Reply::None };
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
            return if sent.is_some() { Reply::Refused } else { Reply::Missed };
        }
        let asked = Instant::now();
        loop {
            match DESK.handover.poll() {
                Answer::Pending => {}
                Answer::Done => return Reply::Done(self.collect()),
                Answer::Missed => return Reply::Missed,
            }
            let waited = asked.elapsed();
            if waited > PATIENCE {
                // Noted before it is withdrawn: the handler may run at any moment.
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
    Done(Snapshot),
    /// Not in that poll any more.
    Missed,
    /// The signal could not be sent: too many are queued, or a sandbox forbids it.
    Refused,
    /// Not in time.
    None,
}
