//! Where the time of the work went: its waits by place, its polls, and what was not observed.

use std::time::Duration;

use super::churn::{churn, repeats};
use super::location::{is_idle, own_frame};
use super::waits::Group;
use super::yielding::yields;
use super::{Assembler, rounded};
use crate::inflight::WaitKind;
use crate::monitor::{Evidence, Kind, Verdict};
use crate::report::model::words::{Activity, StackKind};
use crate::report::model::{Interval, Repeats, Report, Stack};

/// Divides a time into shares. No time is taken twice, and the rounded shares add up to the whole.
struct Shares {
    whole: u64,
    taken: u64,
}

impl Shares {
    /// Takes a share. Anything beyond the whole is left out.
    fn take(&mut self, nanos: u64) -> Duration {
        let before = rounded(self.taken);
        self.taken = self.taken.saturating_add(nanos).min(self.whole);
        rounded(self.taken) - before
    }

    fn rest(&mut self) -> Duration {
        self.take(u64::MAX)
    }
}

impl Assembler {
    /// Adds the await stacks, and where the time went.
    pub(super) fn waits(&mut self, evidence: &Evidence, report: &mut Report) {
        let running = report.stacks.iter().position(|stack| stack.kind == StackKind::Thread && stack.child.is_none());
        // Inside a poll, no await stack is current.
        let waiting = evidence.thread.is_none();
        let mut groups: Vec<Group> = Vec::new();
        for (index, wait) in evidence.waits.iter().enumerate() {
            let current = waiting && evidence.current == Some(index);
            if wait.nanos == 0 && !current {
                continue;
            }
            let branches = wait.stacks.list.iter().enumerate().map(|(branch, snapshot)| {
                let stack = self.stack(snapshot, StackKind::Await);
                Stack { current, branch: branch as u32, ..stack }
            });
            // The last comes first. Something left for it in the same poll, like a timer that has just run out, isn't a
            // branch.
            let mut stacks: Vec<Stack> = branches.rev().collect();
            if current && wait.lost > 0 {
                report.notes.push(match wait.lost {
                    1 => "1 more branch waits, whose stack could not be copied".to_owned(),
                    lost => format!("{lost} more branches wait, whose stacks could not be copied"),
                });
            }
            let activity = match wait.kind {
                WaitKind::Yielding => Activity::Yielding,
                WaitKind::Waiting if yields(&stacks, wait.gave_way) => Activity::Yielding,
                WaitKind::Waiting | WaitKind::NoWaker => Activity::Waiting,
            };
            // The branch that works, or gave way, says more than a timer beside it.
            stacks.sort_by_key(|stack| (is_idle(stack), own_frame(stack).is_none()));
            if current && activity == Activity::Yielding && report.verdict == Verdict::Waiting {
                report.verdict = Verdict::Yielding;
            }
            let times = (wait.waits, wait.nanos, wait.longest);
            let mut group = Group::new(activity, current, stacks, times);
            group.gave_way = wait.gave_way;
            group.join(&mut groups);
        }
        self.note_repeats(evidence, report, &mut groups);
        let mut shares = Shares { whole: evidence.elapsed, taken: 0 };
        for group in groups {
            let first = report.stacks.len();
            let stack = (!group.stacks.is_empty()).then_some(first);
            report.stacks.extend(group.stacks);
            let (activity, waits, time) = (group.activity, group.waits, shares.take(group.nanos));
            report.timeline.push(Interval { activity, stack, waits, time });
        }
        if evidence.runnable > 0 {
            let (stack, time) = (None, shares.take(evidence.runnable));
            report.timeline.push(Interval { activity: Activity::Runnable, stack, waits: 1, time });
        }
        // Includes time after the work was woken, so that the three shares sum to the whole.
        report.waiting = rounded(shares.taken);
        if evidence.busy > 0 {
            report.busy = shares.take(evidence.busy);
            let (waits, time) = (evidence.busy_polls, report.busy);
            report.timeline.push(Interval { activity: Activity::Running, stack: running, waits, time });
        }
        report.unobserved = shares.rest();
        if !report.unobserved.is_zero() {
            let (stack, time) = (None, report.unobserved);
            report.timeline.push(Interval { activity: Activity::Unobserved, stack, waits: 0, time });
        }
        for interval in &mut report.timeline {
            // A wait that only heeler's look found still counts as a wait.
            if matches!(interval.activity, Activity::Waiting | Activity::Yielding) {
                interval.waits = interval.waits.max(1);
            }
        }
        report.timeline.sort_by_key(|interval| std::cmp::Reverse(interval.time));
    }

    /// Notes how often the work has waited where it is, and whether that is all it does.
    fn note_repeats(&self, evidence: &Evidence, report: &mut Report, groups: &mut [Group]) {
        let observed = groups.iter().map(|group| group.nanos).sum::<u64>() + evidence.busy + evidence.runnable;
        if let Some(churn) = churn(groups, observed) {
            let repeats = Repeats { waits: churn.waits, time: rounded(churn.nanos) };
            match report.verdict {
                // A poll was going on, or it moved on before it was found.
                Verdict::Waiting | Verdict::Unknown | Verdict::Blocking
                    if evidence.kind != Kind::BlockingPoll && evidence.longest_poll <= observed / 8 =>
                {
                    // A branch that gives way again and again has the others polled with it.
                    let verdict = if churn.gave_way { Verdict::Yielding } else { Verdict::Churning };
                    (report.verdict, report.repeats) = (verdict, Some(repeats));
                    if churn.gave_way {
                        groups[churn.group].activity = Activity::Yielding;
                    }
                    // Where it is at this very moment is chance.
                    report.thread = None;
                    report
                        .stacks
                        .iter_mut()
                        .filter(|stack| stack.child.is_none())
                        .for_each(|stack| stack.current = false);
                    for (at, group) in groups.iter_mut().enumerate() {
                        group.set_current(at == churn.group);
                    }
                }
                Verdict::Abandoned | Verdict::Interrupted => report.repeats = Some(repeats),
                _ => {}
            }
        } else if let (Verdict::Waiting, Some(at)) = (report.verdict, groups.iter().position(|group| group.current)) {
            let (waits, nanos) = repeats(groups, &groups[at]);
            report.repeats = (waits > 1).then(|| Repeats { waits, time: rounded(nanos) });
        }
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::inflight::WaitRecord;
    use crate::report::Reports;
    use crate::report::testing::evidence;

    fn reports() -> Reports {
        Reports::builder().without_log().build().unwrap()
    }

    /// Guards: a note about one branch is singular.
    #[test]
    fn a_note_counts_the_lost_branches() {
        for (lost, expected) in [(1, "1 more branch waits, whose stack "), (2, "2 more branches wait, whose stacks ")] {
            let mut evidence = evidence(reports());
            let mut wait = WaitRecord::without_stacks(WaitKind::Waiting, 1, 5);
            wait.lost = lost;
            evidence.waits = vec![wait];
            (evidence.current, evidence.thread) = (Some(0), None);
            let report = Assembler::new().assemble(evidence);
            assert!(report.notes.iter().any(|note| note.starts_with(expected)), "{:?}", report.notes);
        }
    }

    /// Guards: the parts of a report sum to the whole, to the microsecond, whatever the evidence says.
    #[test]
    fn the_parts_sum_to_the_whole() {
        let (assembler, reports) = (RefCell::new(Assembler::new()), reports());
        let times = (0..10_000_000_u64, 0..10_000_000_u64, 0..3_000_000_u64);
        let waits = prop::collection::vec((0..3_usize, 0..4_000_000_u64), 0..6);
        proptest!(|((elapsed, busy, runnable) in times, waits in waits)| {
            let mut evidence = evidence(reports.clone());
            (evidence.elapsed, evidence.busy, evidence.runnable) = (elapsed, busy, runnable);
            let kinds = [WaitKind::Waiting, WaitKind::Yielding, WaitKind::NoWaker];
            let wait = |(kind, nanos): (usize, u64)| WaitRecord::without_stacks(kinds[kind], 1, nanos);
            evidence.waits = waits.into_iter().map(wait).collect();
            evidence.current = evidence.waits.len().checked_sub(1);
            let report = assembler.borrow_mut().assemble(evidence);
            prop_assert_eq!(report.busy + report.waiting + report.unobserved, report.elapsed);
            prop_assert_eq!(report.timeline.iter().map(|interval| interval.time).sum::<Duration>(), report.elapsed);
            prop_assert!(report.timeline.iter().all(|interval| interval.time <= report.elapsed));
        });
    }
}
