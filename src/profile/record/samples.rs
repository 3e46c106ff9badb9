//! What the sampler has seen.

use crate::profile::State;

/// A look at a thread that was inside a poll. Times are nanoseconds of [`now`](crate::clock::now).
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: u64,
    /// The task that was polled.
    pub(super) recorder: u32,
    /// A place in [`Stacks`](super::stacks::Stacks).
    pub(super) stack: u32,
    /// What the thread did since the last look, or since the poll began.
    pub(super) spent: Spent,
}

/// What a thread did in a stretch of time, in microseconds. An hour of them fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    cpu: u32,
    /// Ready to run, without a CPU.
    ready: u32,
    blocked: u32,
}

impl Spent {
    /// Divides `elapsed` nanoseconds. In them the thread used the CPU for `used`, and waits for a CPU of `delayed`
    /// ended. Those waits may have begun before. Also returns the part of them that does not fit.
    pub(super) fn new(elapsed: u64, used: u64, delayed: u64) -> (Self, u64) {
        let used = used.min(elapsed);
        let ready = delayed.min(elapsed - used);
        let micros = |nanos: u64| u32::try_from(nanos / 1_000).unwrap_or(u32::MAX);
        let spent = Self { cpu: micros(used), ready: micros(ready), blocked: micros(elapsed - used - ready) };
        (spent, delayed - ready)
    }

    /// Returns the sum.
    pub(super) fn micros(&self) -> u64 {
        u64::from(self.cpu) + u64::from(self.ready) + u64::from(self.blocked)
    }

    /// Returns the state that it mostly was, for a stretch no longer than the time between samples.
    pub(super) fn mostly(&self) -> State {
        match self {
            Self { cpu, ready, blocked } if u64::from(*cpu) >= u64::from(*ready) + u64::from(*blocked) => State::OnCpu,
            Self { ready, blocked, .. } if ready >= blocked => State::NoCpu,
            _ => State::Blocked,
        }
    }

    /// Divides `nanos` in the same proportions. The parts sum to it.
    pub(super) fn divide(&self, nanos: u64) -> [(State, u64); 3] {
        let whole = u128::from(self.micros().max(1));
        let part = |micros: u32| (u128::from(nanos) * u128::from(micros) / whole) as u64;
        let (cpu, ready) = (part(self.cpu), part(self.ready));
        [(State::OnCpu, cpu), (State::NoCpu, ready), (State::Blocked, nanos - cpu - ready)]
    }

    /// Turns up to `nanos` of blocked time into a wait for a CPU. Returns what is left of them.
    fn credit(&mut self, nanos: u64) -> u64 {
        let micros = u32::try_from(nanos / 1_000).unwrap_or(u32::MAX).min(self.blocked);
        self.blocked -= micros;
        self.ready = self.ready.saturating_add(micros);
        nanos - u64::from(micros) * 1_000
    }
}

/// All samples, in order, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) taken: Vec<Sample>,
    pub(super) lost: u64,
    pub(super) late: u64,
    /// CPU time that the sampler has used for this recording, in nanoseconds.
    pub(super) cpu: u64,
}

impl Samples {
    /// How far back a wait for a CPU is followed: a second of looks at one thread.
    const MAX_BACK: usize = 1_000;

    /// The system reports a wait for a CPU when it is over. This much of it was before the last look at the task, in
    /// its poll that began then.
    pub(super) fn credit(&mut self, recorder: u32, began: u64, mut nanos: u64) {
        for sample in self.taken.iter_mut().rev().take(Self::MAX_BACK).take_while(|sample| sample.at >= began) {
            if nanos < 1_000 {
                return;
            }
            if sample.recorder == recorder {
                nanos = sample.spent.credit(nanos);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    proptest! {
        /// Guards: the parts of a stretch sum to it, whatever the clocks say, and no wait for a CPU is lost.
        #[test]
        fn parts_sum_to_the_stretch(elapsed in 0..10_000 * MS, used: u64, delayed in 0..20_000 * MS, of: u64) {
            let (spent, surplus) = Spent::new(elapsed, used, delayed);
            let micros = elapsed / 1_000;
            prop_assert!((micros.saturating_sub(2)..=micros).contains(&spent.micros()), "{spent:?}");
            prop_assert!(surplus <= delayed && (surplus == 0 || spent.blocked == 0), "{spent:?} {surplus}");
            prop_assert_eq!(delayed - surplus, delayed.min(elapsed - used.min(elapsed)));
            let parts = spent.divide(of);
            prop_assert_eq!(parts.iter().map(|(_, nanos)| nanos).sum::<u64>(), of);
        }
    }

    /// Guards: which of the three states a short stretch has.
    #[test]
    fn a_short_stretch_has_its_main_state() {
        for (used, delayed, state) in [
            (10, 0, State::OnCpu),
            (5, 5, State::OnCpu),
            (4, 6, State::NoCpu),
            (4, 3, State::NoCpu),
            (4, 2, State::Blocked),
            (0, 0, State::Blocked),
            (0, 100, State::NoCpu),
        ] {
            assert_eq!(Spent::new(10 * MS, used * MS, delayed * MS).0.mostly(), state, "{used} {delayed}");
        }
    }

    /// Guards: a wait for a CPU that is learnt late is subtracted from what seemed blocked, the latest first, within the
    /// poll.
    #[test]
    fn a_late_run_delay_reduces_blocked_time() {
        let sample = |at, recorder, used| Sample { at, recorder, stack: 0, spent: Spent::new(MS, used, 0).0 };
        let mut samples = Samples {
            taken: vec![sample(1, 7, 0), sample(2, 7, MS / 4), sample(3, 9, 0), sample(4, 7, MS), sample(5, 7, MS / 2)],
            ..Samples::default()
        };
        let ready = |samples: &Samples| samples.taken.iter().map(|sample| sample.spent.ready).collect::<Vec<_>>();
        samples.credit(7, 2, MS);
        assert_eq!(ready(&samples), [0, 500, 0, 0, 500]);
        samples.credit(7, 2, 100 * MS);
        assert_eq!(ready(&samples), [0, 750, 0, 0, 500]);
        assert_eq!(samples.taken[1].spent, Spent { cpu: 250, ready: 750, blocked: 0 });
    }
}
