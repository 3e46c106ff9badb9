//! Asking threads for their stacks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::signal::{DESK, Desk, OUTSIDE, cookie, install, is_ours, is_there, send};
use super::sleeping::SleepingStacks;
use super::{MAX_COPY, Outcome, Sample};
use crate::capture::ThreadSlot;
use crate::capture::fork::PerProcess;
use crate::capture::handover::Answer;
use crate::capture::memory::Memory;
use crate::capture::procfs::{Activity, look};
use crate::capture::snapshot::{Data, Origin, Registers, Snapshot};
use crate::capture::sys;
use crate::sync::lock_std;

/// How long to wait for a thread's answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// Held while one question is on the desk, which has room for no more. It has the signal that the first asker chose.
static ASKING: PerProcess<Mutex<Option<i32>>> = PerProcess::new(Mutex::default);

/// Asks threads for their stacks, one at a time. The monitor has one of these, and so has the profiler.
pub(crate) struct Sampler {
    signal: Result<i32, &'static str>,
    room: Box<[u64]>,
    /// The number of the last question.
    number: u64,
    /// The last answer of each slot, so that a thread that is still in the same system call is left alone.
    last: HashMap<usize, Last>,
    /// The last poll of each slot that was signalled on a stack that isn't the thread's own.
    foreign: HashMap<usize, Foreign>,
    /// Threads with a pending signal that they have not handled.
    silent: Vec<Silent>,
    sleeping: SleepingStacks,
}

/// A thread that owes an answer to a question, and where that is noted on the desk.
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

/// A poll that was signalled on a stack that isn't the thread's own, and when.
#[derive(Debug)]
struct Foreign {
    sequence: u64,
    is_readable: bool,
    at: Instant,
    cpu: Option<u64>,
}

impl Foreign {
    /// Returns whether the thread has computed for most of the time since. Then it is unlikely that a system call
    /// notices a signal.
    fn computes(&self, activity: &Activity, cpu: Option<u64>) -> bool {
        let used = cpu.zip(self.cpu).map_or(0, |(now, then)| now.saturating_sub(then));
        activity.on_cpu() == Some(true) && u128::from(used) * 4 >= self.at.elapsed().as_nanos() * 3
    }
}

const UNREADABLE: &str = "its poll runs on a stack of its own (a fiber's), which could not be read";
const ASKED_ONCE: &str =
    "its poll runs on a stack of its own (a fiber's), and such a thread is signalled only once per poll";
const NO_SIGNAL_STACK: &str = "the thread has no alternate stack that is large enough for a signal handler";

impl Sampler {
    /// Installs the handler on `signal`, or on the first unused real-time signal.
    pub(crate) fn new(signal: Option<i32>) -> Self {
        let mut chosen = lock_std(ASKING.get());
        let signal = match signal.or(*chosen) {
            Some(signal) => install(signal).map(|()| signal),
            // From the top, because glibc and most programs that want one count from the bottom.
            None => (libc::SIGRTMIN() + 1..libc::SIGRTMAX())
                .rev()
                .find(|signal| install(*signal).is_ok())
                .ok_or("every real-time signal is taken"),
        };
        *chosen = signal.ok().or(*chosen);
        drop(chosen);
        // For traced polls on other stacks, which do not open it.
        let _ = Memory::prepare();
        // Not zeros, because those would be pages that are only mapped at the first touch, in the handler.
        let room = vec![1; MAX_COPY / 8].into();
        // A cookie that another program cannot guess, so that only our own signals are answered.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        Self {
            signal,
            room,
            number: seed,
            last: HashMap::new(),
            foreign: HashMap::new(),
            silent: Vec::new(),
            sleeping: SleepingStacks::new(),
        }
    }

    /// Returns the signal in use, or why there is none.
    pub(crate) fn signal(&self) -> Result<i32, &'static str> {
        self.signal
    }

    /// Captures the stack of the slot's thread, if it is still in its poll number `sequence`.
    pub(crate) fn capture(&mut self, slot: &'static ThreadSlot, sequence: u64) -> Outcome {
        let key = std::ptr::from_ref(slot).addr();
        let known = slot.with_life(|life| (life.tid, life.stack.clone(), life.may_be_signalled));
        let Some((tid, bounds, may_be_signalled)) = known else { return Outcome::Missed };
        let (activity, cpu) = (look(tid), sys::cpu_time(tid));
        if let Some(last) = self.last.get(&key) {
            let unmoved = last.sequence == sequence && last.cpu == cpu && last.activity.same_call(&activity);
            if unmoved && slot.is_in(sequence) {
                return Outcome::Captured(last.snapshot.clone(), activity);
            }
        }
        if let Some(snapshot) = self.sleeping.copy(slot, sequence, &activity, cpu, &mut self.room) {
            return Outcome::Captured(snapshot, activity);
        }
        let signal = match self.signal {
            Ok(signal) => signal,
            Err(why) => return Outcome::Unavailable(why),
        };
        if !is_ours(signal) {
            return Outcome::Unavailable("another handler has replaced heeler's");
        }
        if !may_be_signalled {
            return Outcome::Unavailable(NO_SIGNAL_STACK);
        }
        if self.is_silent(slot) {
            return Outcome::NoAnswer(activity);
        }
        if slot.is_foreign(sequence) {
            let asked = self.foreign.get(&key).filter(|foreign| foreign.sequence == sequence);
            if !asked.is_some_and(|foreign| foreign.is_readable && foreign.computes(&activity, cpu)) {
                let is_readable = asked.is_none_or(|foreign| foreign.is_readable);
                return Outcome::Foreign(activity, if is_readable { ASKED_ONCE } else { UNREADABLE });
            }
        }
        match self.ask(signal, slot, sequence, tid, bounds) {
            Reply::Done(snapshot) => {
                let last = Last { sequence, activity: activity.clone(), cpu: None, snapshot: snapshot.clone() };
                // A thread that goes back to the call it was in has spent some CPU time on the handler.
                self.last.insert(key, Last { cpu: sys::cpu_time(tid), ..last });
                Outcome::Captured(snapshot, activity)
            }
            Reply::Missed => Outcome::Missed,
            Reply::Unreadable => Outcome::Foreign(activity, UNREADABLE),
            Reply::Refused => Outcome::Unavailable("the system refuses to send the signal"),
            Reply::None if slot.is_in(sequence) => Outcome::NoAnswer(look(tid)),
            Reply::None => Outcome::Missed,
        }
    }

    /// Captures the stack of a thread with a slot that is in no watched poll, and what it does. A thread that sleeps is
    /// left alone. One that runs, and has used CPU time since the last look, is signalled once.
    pub(crate) fn capture_outside(&mut self, slot: &'static ThreadSlot) -> Option<(Activity, Option<Snapshot>)> {
        let (tid, bounds, may_be_signalled) =
            slot.with_life(|life| (life.tid, life.stack.clone(), life.may_be_signalled))?;
        let before = sys::cpu_time(tid);
        let activity = look(tid);
        if activity.on_cpu() != Some(true) {
            let snapshot = self.look_at(&activity).map(|(snapshot, _)| snapshot);
            return Some((activity, snapshot));
        }
        let signal = self.signal.ok().filter(|signal| is_ours(*signal) && may_be_signalled && !self.is_silent(slot));
        // It may wait for a CPU, and would then answer from wherever it goes on.
        let computes = || {
            std::thread::sleep(Duration::from_micros(200));
            before.is_some() && sys::cpu_time(tid) > before && slot.is_outside()
        };
        let reply = match signal.filter(|_| computes()) {
            Some(signal) => self.put(signal, slot, OUTSIDE, tid, bounds),
            None => Reply::None,
        };
        let snapshot = if let Reply::Done(snapshot) = reply { Some(snapshot) } else { None };
        slot.is_outside().then_some((activity, snapshot))
    }

    /// Captures the stack of any thread of this process while it sleeps. It is neither woken nor signalled. Also returns
    /// whether the stack is certain.
    pub(crate) fn look_at(&mut self, activity: &Activity) -> Option<(Snapshot, bool)> {
        self.sleeping.copy_of_any(activity, &mut self.room)
    }

    /// Does the same for callers that ask often. `cpu` is the thread's CPU time. `runs` says that it has been running
    /// since it was last asked, so that it need not be looked at first.
    pub(crate) fn sample(&mut self, slot: &'static ThreadSlot, sequence: u64, cpu: u64, runs: bool) -> Sample {
        let key = std::ptr::from_ref(slot).addr();
        let last = self.last.get(&key).filter(|last| last.sequence == sequence);
        if last.is_some_and(|last| last.cpu == Some(cpu)) && slot.is_in(sequence) {
            return Sample::Unmoved;
        }
        if !runs {
            return match self.capture(slot, sequence) {
                Outcome::Captured(snapshot, activity) => {
                    // It has slept all the time, or it has answered and used some time for that.
                    let cpu = sys::cpu_time(activity.tid);
                    // Or it has moved on since, and sleeps elsewhere. Then this is not where it is.
                    let cpu = cpu.filter(|_| activity.same_call(&look(activity.tid)));
                    self.last.insert(key, Last { sequence, activity, cpu, snapshot: snapshot.clone() });
                    Sample::Stack(snapshot)
                }
                Outcome::Missed => Sample::Missed,
                Outcome::NoAnswer(_) | Outcome::Foreign(..) | Outcome::Unavailable(_) => Sample::Lost,
            };
        }
        let known = slot.with_life(|life| (life.tid, life.stack.clone(), life.may_be_signalled));
        let Some((tid, bounds, may_be_signalled)) = known else { return Sample::Missed };
        let Some(signal) = self.signal.ok().filter(|signal| is_ours(*signal)) else { return Sample::Lost };
        let foreign = self.foreign.get(&key).filter(|foreign| foreign.sequence == sequence);
        let is_unreadable = foreign.is_some_and(|foreign| !foreign.is_readable);
        if !may_be_signalled || is_unreadable || self.is_silent(slot) {
            return Sample::Lost;
        }
        match self.ask(signal, slot, sequence, tid, bounds) {
            Reply::Done(snapshot) => Sample::Stack(snapshot),
            Reply::Missed => Sample::Missed,
            Reply::None if !slot.is_in(sequence) => Sample::Missed,
            Reply::Unreadable | Reply::Refused | Reply::None => Sample::Lost,
        }
    }

    /// Returns whether the thread still owes an answer. Then it is not asked again, or signals would pile up.
    fn is_silent(&mut self, slot: &'static ThreadSlot) -> bool {
        let desk = DESK.get();
        self.silent.retain(|silent| {
            let place = &desk.unanswered[silent.place];
            if place.load(Ordering::Acquire) != silent.cookie {
                return false;
            }
            // A thread's signals end with it, and its slot goes to the next thread.
            let lives = silent.slot.with_life(|life| life.tid) == Some(silent.tid);
            if !lives {
                let _ = place.compare_exchange(silent.cookie, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            lives
        });
        self.silent.iter().any(|silent| std::ptr::eq(silent.slot, slot))
    }

    fn ask(&mut self, signal: i32, slot: &'static ThreadSlot, sequence: u64, tid: i32, bounds: Range<usize>) -> Reply {
        let reply = self.put(signal, slot, sequence, tid, bounds);
        let is_readable = match &reply {
            Reply::Done(snapshot) if snapshot.foreign => true,
            Reply::Unreadable => false,
            _ => return reply,
        };
        slot.note_foreign(sequence);
        let cpu = slot.with_life(|life| sys::cpu_time(life.tid)).flatten();
        let foreign = Foreign { sequence, is_readable, at: Instant::now(), cpu };
        self.foreign.insert(std::ptr::from_ref(slot).addr(), foreign);
        reply
    }

    /// Asks one question, and waits for the answer.
    fn put(&mut self, signal: i32, slot: &'static ThreadSlot, sequence: u64, tid: i32, bounds: Range<usize>) -> Reply {
        self.number = self.number.wrapping_add(1);
        let cookie = cookie(self.number, tid);
        let _asking = lock_std(ASKING.get());
        let desk = DESK.get();
        // If there is no place to note another thread that does not answer, nothing is asked, no matter which sampler
        // took the places.
        let free = desk.unanswered.iter().position(|place| place.load(Ordering::Relaxed) == 0);
        let Some(place) = free else { return Reply::None };
        // SAFETY: no arguments, cannot fail.
        desk.process.store(unsafe { libc::getpid() }, Ordering::Relaxed);
        desk.memory.store(Memory::to_bits(Memory::prepare()), Ordering::Relaxed);
        desk.slot.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
        desk.sequence.store(sequence, Ordering::Relaxed);
        desk.stack_start.store(bounds.start, Ordering::Relaxed);
        desk.stack_end.store(bounds.end, Ordering::Relaxed);
        desk.room.store(self.room.as_mut_ptr(), Ordering::Relaxed);
        desk.handover.ask(cookie);
        // The thread cannot end, nor its id be given to another, while its life is held.
        let sent = slot.with_life(|life| {
            let is_asked = life.tid == tid && is_there(slot, sequence);
            is_asked.then(|| send(tid, signal, cookie).is_some())
        });
        let sent = sent.flatten();
        if sent != Some(true) {
            desk.handover.withdraw(cookie);
            return if sent.is_some() { Reply::Refused } else { Reply::Missed };
        }
        let asked = Instant::now();
        loop {
            match desk.handover.poll() {
                Answer::Pending => {}
                Answer::Done => return Reply::Done(self.collect(desk)),
                Answer::Missed => return Reply::Missed,
                Answer::Unreadable => return Reply::Unreadable,
            }
            let waited = asked.elapsed();
            if waited > PATIENCE {
                // Noted before it is withdrawn, because the handler may run at any moment.
                desk.unanswered[place].store(cookie, Ordering::Release);
                if desk.handover.withdraw(cookie) {
                    self.silent.push(Silent { slot, tid, cookie, place });
                    return Reply::None;
                }
                desk.unanswered[place].store(0, Ordering::Relaxed);
            }
            if waited < Duration::from_micros(30) {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn collect(&self, desk: &Desk) -> Snapshot {
        let [pc, sp, fp, lr] = [0, 1, 2, 3].map(|index| desk.registers[index].load(Ordering::Relaxed));
        let words: Arc<[u64]> = self.room[..desk.len.load(Ordering::Relaxed)].into();
        Snapshot {
            origin: Origin::Signal,
            data: Data::Copied { registers: Registers { pc, sp, fp, lr }, words },
            truncated: desk.truncated.load(Ordering::Relaxed),
            foreign: desk.foreign.load(Ordering::Relaxed),
            spans: desk.spans.iter().map(|id| id.load(Ordering::Relaxed)).take_while(|id| *id != 0).collect(),
        }
    }
}

/// The outcome of a question.
enum Reply {
    Done(Snapshot),
    /// It isn't in that poll any more.
    Missed,
    /// It is on a stack that could not be read.
    Unreadable,
    /// The signal could not be sent: too many are queued, or a sandbox forbids it.
    Refused,
    /// There was no answer in time.
    None,
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::capture::fork::{in_child, in_own_process};
    use crate::capture::frame_address;
    use crate::capture::notice_forks;
    use crate::capture::slots;
    use crate::inflight::{PolicyId, Registered, Watched};

    /// Returns whether a thread that computes is captured within so many tries.
    fn captures(tries: usize) -> bool {
        let (mut sampler, stop) = (Sampler::new(None), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let watched = Watched::new(Registered::new(PolicyId::NONE, u64::MAX, 0, |_| {}));
                let _inside = watched.enter(frame_address!());
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let captured = (0..tries).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                let polled = slots().into_iter().find_map(|slot| Some((slot, slot.polling()?.1)));
                polled.is_some_and(|(slot, poll)| matches!(sampler.capture(slot, poll), Outcome::Captured(..)))
            });
            stop.store(true, Ordering::Relaxed);
            captured
        })
    }

    /// Guards: answers that the parent's threads still owe at a fork, and the open question, take no place in the
    /// child, which has none of those threads.
    #[test]
    fn a_forked_child_owes_no_answers() {
        in_own_process(module_path!(), "a_forked_child_owes_no_answers", owes_no_answers);
    }

    fn owes_no_answers() {
        notice_forks();
        assert!(captures(2_000));
        DESK.get().handover.ask(7);
        DESK.get().unanswered.iter().for_each(|place| place.store(7, Ordering::Relaxed));
        in_child(|| captures(2_000));
        assert!(!captures(20), "in the parent, there is no place for another who owes an answer");
    }
}
