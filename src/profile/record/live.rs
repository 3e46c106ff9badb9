//! A running recording, as the sampler knows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::samples::{Sample, Samples, Spent};
use super::stacks::Stacks;
use crate::capture::{self, RunDelays, Sampler, is_runnable, sys};
use crate::clock::now;
use crate::inflight::recording::{Active, Session};
use crate::sync::lock_std;

/// The most samples that a recording keeps. Further ones are lost. Some 32 bytes each: a thousand per second of one
/// thread for an hour.
const MAX_SAMPLES: usize = 4_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Arc<Session>,
    /// Nanoseconds between two samples.
    pub(super) period: u64,
    pub(super) data: Mutex<Data>,
}

/// What has been seen so far.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) stacks: Stacks,
    pub(super) samples: Samples,
    /// The last look at each thread.
    last: HashMap<usize, Last>,
    delays: RunDelays,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    began: u64,
    at: u64,
    cpu: u64,
    /// How long the thread has waited for a CPU in its life, if that is known.
    delay: Option<u64>,
    stack: u32,
}

impl Live {
    pub(super) fn new(session: Arc<Session>, period: u64) -> Self {
        let data = Data {
            stacks: Stacks::new(),
            samples: Samples::default(),
            last: HashMap::new(),
            delays: RunDelays::default(),
        };
        Self { session, period, data: Mutex::new(data) }
    }

    /// Looks at each thread that is inside one of the recording's polls. `late`: this look comes late.
    pub(super) fn look(&self, sampler: &mut Sampler, late: bool) {
        let before = sys::own_cpu_time();
        let active = self.session.active();
        let mut data = lock_std(&self.data);
        for (index, poll) in active.iter().enumerate() {
            // Of polls within polls, takes the innermost, which began last.
            let is_within = |other: &Active| std::ptr::eq(other.slot, poll.slot);
            if !active[index + 1..].iter().any(is_within) {
                data.look(poll, sampler, late);
            }
        }
        data.stacks.add_awaits(self.session.take_raw());
        data.samples.cpu += sys::own_cpu_time().saturating_sub(before);
    }
}

impl Data {
    fn look(&mut self, poll: &Active, sampler: &mut Sampler, late: bool) {
        if self.samples.taken.len() >= MAX_SAMPLES {
            self.samples.lost += 1;
            return;
        }
        let key = std::ptr::from_ref(poll.slot).addr();
        let at = now();
        let clock = poll.slot.with_life(|life| Some((life.tid, sys::cpu_time(life.tid)?))).flatten();
        let Some((tid, cpu)) = clock else {
            self.samples.lost += 1;
            return;
        };
        let delay = self.delays.of(tid);
        let last = self.last.get(&key).copied().filter(|last| last.began == poll.began);
        let (since, used) = last.map_or((poll.began, poll.cpu), |last| (last.at, last.cpu));
        let (elapsed, used) = (at.saturating_sub(since), cpu.saturating_sub(used));
        let runs = used >= elapsed / 4 * 3;
        let delayed = match (last.and_then(|last| last.delay), delay) {
            (Some(before), Some(delay)) => delay.saturating_sub(before),
            // Nobody knows this value at the beginning of the poll. But it is known whether the thread could run now.
            _ if used < elapsed / 2 && is_runnable(tid) => elapsed - used,
            _ => 0,
        };
        let (spent, surplus) = Spent::new(elapsed, used, delayed);
        let stack = match sampler.sample(poll.slot, poll.sequence, cpu, runs) {
            capture::Sample::Stack(snapshot) => self.stacks.add(&snapshot),
            // The thread has not run since it was last asked. This recording asked, because nobody else asks so often.
            capture::Sample::Unmoved => match last {
                Some(last) => last.stack,
                None => return,
            },
            capture::Sample::Missed => return,
            capture::Sample::Lost => {
                self.samples.lost += 1;
                return;
            }
        };
        self.last.insert(key, Last { began: poll.began, at, cpu, delay, stack });
        self.samples.credit(poll.recorder, poll.began, surplus);
        self.samples.late += u64::from(late);
        self.samples.taken.push(Sample { at, recorder: poll.recorder, stack, spent });
    }
}
