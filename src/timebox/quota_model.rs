//! Checks the meter of a quota against the simplest model: the union of the intervals in which its boxes ran.

use proptest::prelude::*;

use super::quota::Meter;

/// What a task does next, `after` nanoseconds later.
#[derive(Debug, Clone)]
enum Step {
    /// Begins a box: a nested one, in a task that already runs one.
    Start {
        task: usize,
    },
    /// Ends the innermost box of the task.
    Stop {
        task: usize,
    },
    Look,
}

const TASKS: usize = 4;

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        3 => (0..TASKS).prop_map(|task| Step::Start { task }),
        3 => (0..TASKS).prop_map(|task| Step::Stop { task }),
        1 => Just(Step::Look),
    ];
    // Some at the same instant.
    let after = prop_oneof![1 => Just(0), 4 => 1..1_000_u64];
    prop::collection::vec((after, step), 0..60)
}

/// The length of the union of `intervals`.
fn union(mut intervals: Vec<(u64, u64)>) -> u64 {
    intervals.sort_unstable();
    let (mut total, mut end) = (0, 0);
    for (from, to) in intervals {
        total += to.max(end) - from.max(end);
        end = end.max(to);
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Guards: whatever the interleaving of timeboxes over tasks, the union of their times is spent, once, and what is left
    /// never falls below zero. Timeboxes that run at the same time have one deadline.
    #[test]
    fn spends_the_union_of_its_timeboxes(total in 1..20_000_u64, begin in 0..u64::MAX / 2, steps in steps()) {
        let mut meter = Meter::new(total);
        let mut now = begin;
        let mut open: Vec<Vec<u64>> = vec![Vec::new(); TASKS];
        let mut closed: Vec<(u64, u64)> = Vec::new();
        let mut deadline = None;
        for (after, step) in steps {
            now += after;
            let spent = || {
                let open = open.iter().flatten().map(|&from| (from, now));
                union(closed.iter().copied().chain(open).collect())
            };
            match step {
                Step::Start { task } => {
                    let left = total.saturating_sub(spent());
                    prop_assert_eq!(meter.start(now), left);
                    let expected = *deadline.get_or_insert(now + left);
                    prop_assert!(left == 0 || expected == now + left);
                    open[task].push(now);
                }
                Step::Stop { task } => {
                    if let Some(from) = open[task].pop() {
                        meter.stop(now);
                        closed.push((from, now));
                    }
                }
                Step::Look => prop_assert_eq!(meter.spent(now), spent()),
            }
            let runs = open.iter().any(|boxes| !boxes.is_empty());
            prop_assert_eq!(meter.is_running(), runs);
            if !runs {
                deadline = None;
            }
        }
        let open = open.iter().flatten().map(|&from| (from, now));
        prop_assert_eq!(meter.spent(now), union(closed.into_iter().chain(open).collect()));
    }

    /// Guards: a clock that is behind on another core neither returns time nor takes it twice.
    #[test]
    fn a_clock_that_steps_back_costs_nothing(times in prop::collection::vec(0..1_000_u64, 1..40)) {
        let mut meter = Meter::new(u64::MAX - 1);
        meter.start(0);
        let mut latest = 0;
        for now in times {
            latest = latest.max(now);
            prop_assert_eq!(meter.spent(now), latest);
        }
    }
}
