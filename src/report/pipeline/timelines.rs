//! Where the time of many reports' work went, by stack. Frames and stacks are kept once, so that thousands of reports take
//! little memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::capture::Frame;
use crate::report::model::words::Activity;
use crate::report::model::{Interval, ProcessInfo, Report};
use crate::text::traceparent::TraceIds;

/// How many different stacks are kept. The time of further ones is counted without a stack.
const MAX_STACKS: usize = 16_000;

/// How many frames of a stack are kept, the innermost ones. More than that is a recursion.
const MAX_FRAMES: usize = 512;

/// The timelines of reports: of each the last one, because an update has the time of the reports before it, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timelines {
    frames: HashMap<Frame, u32>,
    /// Indexes of their frames, outermost first.
    stacks: Vec<Vec<u32>>,
    stack_of: HashMap<Vec<u32>, u32>,
    works: Vec<Work>,
    work_of: HashMap<String, usize>,
    process: ProcessInfo,
}

/// The work of one report.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The report's.
    pub(crate) id: String,
    pub(crate) route: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) trace: Option<TraceIds>,
    pub(crate) shares: Vec<Share>,
    elapsed: Duration,
}

/// A part of the work's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) activity: Activity,
    /// Index of its stack, if one is known.
    pub(crate) stack: Option<u32>,
    /// Equal for the same activity in the same stack, in other timelines, too. Different for all shares of a work.
    pub(crate) key: u64,
    pub(crate) nanos: u64,
    /// How many waits or polls.
    pub(crate) count: u64,
}

impl Timelines {
    /// Adds a report. It takes the place of an earlier report of the same work.
    pub(crate) fn add(&mut self, report: &Report) {
        if report.timeline.is_empty() {
            return;
        }
        let known = self.work_of.get(&report.id).copied();
        // A report that was tried again comes after its updates.
        if known.is_some_and(|at| self.works[at].elapsed > report.elapsed) {
            return;
        }
        self.process.clone_from(&report.process);
        let shares = report.timeline.iter().map(|interval| self.share(report, interval));
        let shares = summed(shares.collect());
        let work = Work {
            id: report.id.clone(),
            route: report.request.as_ref().and_then(|request| request.route.clone()),
            job: report.job.clone(),
            trace: report.trace_ids(),
            shares,
            elapsed: report.elapsed,
        };
        match known {
            Some(at) => self.works[at] = work,
            None => {
                self.work_of.insert(report.id.clone(), self.works.len());
                self.works.push(work);
            }
        }
    }

    fn share(&mut self, report: &Report, interval: &Interval) -> Share {
        // Of several branches, the first says most.
        let stack = interval.stack.and_then(|at| report.stacks.get(at)).filter(|stack| !stack.frames.is_empty());
        let mut hasher = DefaultHasher::new();
        interval.activity.hash(&mut hasher);
        for frame in stack.iter().flat_map(|stack| &stack.frames) {
            (&frame.function, &frame.file, frame.line, &frame.address).hash(&mut hasher);
        }
        Share {
            activity: interval.activity,
            stack: stack.and_then(|stack| self.stack(&stack.frames)),
            key: hasher.finish(),
            nanos: u64::try_from(interval.time.as_nanos()).unwrap_or(u64::MAX),
            count: u64::from(interval.waits),
        }
    }

    /// Returns the index of a stack, unless there are too many.
    fn stack(&mut self, innermost_first: &[Frame]) -> Option<u32> {
        if self.stacks.len() >= MAX_STACKS {
            return None;
        }
        let kept = innermost_first.len().min(MAX_FRAMES);
        let frames = innermost_first[..kept].iter().rev().map(|frame| {
            let frame = Frame { source: None, ..frame.clone() };
            let next = self.frames.len() as u32;
            *self.frames.entry(frame).or_insert(next)
        });
        let frames: Vec<u32> = frames.collect();
        Some(*self.stack_of.entry(frames).or_insert_with_key(|frames| {
            self.stacks.push(frames.clone());
            self.stacks.len() as u32 - 1
        }))
    }

    /// Returns the work, in the order of its first reports.
    pub(crate) fn works(&self) -> &[Work] {
        &self.works
    }

    /// Returns the frames of a stack, outermost first: indexes into [`frames`](Self::frames).
    pub(crate) fn stack_frames(&self, stack: u32) -> &[u32] {
        self.stacks.get(stack as usize).map_or(&[], |frames| frames)
    }

    /// Returns all frames.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let mut frames: Vec<(&Frame, u32)> = self.frames.iter().map(|(frame, &at)| (frame, at)).collect();
        frames.sort_unstable_by_key(|(_, at)| *at);
        frames.into_iter().map(|(frame, _)| frame.clone()).collect()
    }

    /// Returns the process that made the last report.
    pub(crate) const fn process(&self) -> &ProcessInfo {
        &self.process
    }
}

/// Adds up the shares that have the same key, in the order of the first of each. Stacks may differ only in what the key is not about.
fn summed(shares: Vec<Share>) -> Vec<Share> {
    let mut known = HashMap::new();
    let mut all: Vec<Share> = Vec::with_capacity(shares.len());
    for share in shares {
        match known.entry(share.key) {
            Entry::Occupied(at) => {
                let same: &mut Share = &mut all[*at.get()];
                same.nanos = same.nanos.saturating_add(share.nanos);
                same.count = same.count.saturating_add(share.count);
            }
            Entry::Vacant(at) => {
                at.insert(all.len());
                all.push(share);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{own, report};

    fn nanos(timelines: &Timelines) -> u64 {
        timelines.works.iter().flat_map(|work| &work.shares).map(|share| share.nanos).sum()
    }

    /// Guards: a share for each interval, which sum to the work's time, with the whole stack, outermost frame first.
    #[test]
    fn a_timeline_has_all_the_time_of_its_report() {
        let mut timelines = Timelines::default();
        let report = report();
        timelines.add(&report);
        assert_eq!(u128::from(nanos(&timelines)), report.elapsed.as_nanos());
        let interval = report.timeline.iter().find(|interval| interval.stack.is_some()).unwrap();
        let stack = &report.stacks[interval.stack.unwrap()];
        let frames = timelines.frames();
        let named: Vec<&Frame> = timelines.stack_frames(0).iter().rev().map(|&at| &frames[at as usize]).collect();
        assert_eq!(named.len(), stack.frames.len());
        assert!(named.iter().zip(&stack.frames).all(|(one, other)| one.function == other.function));
    }

    /// Guards: an update replaces its report, whose time it has, too, in whichever order they come.
    #[test]
    fn an_update_replaces_its_report() {
        let first = report();
        let mut update = Report { update: 1, elapsed: 2 * first.elapsed, ..report() };
        update.timeline[0].time += first.elapsed;
        for order in [[&first, &update], [&update, &first]] {
            let mut timelines = Timelines::default();
            order.into_iter().for_each(|report| timelines.add(report));
            assert_eq!(u128::from(nanos(&timelines)), update.elapsed.as_nanos());
            assert_eq!(timelines.works().len(), 1);
        }
    }

    /// Guards: intervals with the same stack are one share, so that what is known of a share's time is all of it.
    #[test]
    fn equal_stacks_are_one_share() {
        let mut report = report();
        report.timeline.extend(report.timeline.clone());
        let mut timelines = Timelines::default();
        timelines.add(&report);
        let shares = &timelines.works[0].shares;
        assert_eq!(shares.len(), report.timeline.len() / 2);
        assert_eq!(u128::from(nanos(&timelines)), 2 * report.elapsed.as_nanos());
    }

    /// Guards: a recursion takes bounded memory, and keeps its innermost frames.
    #[test]
    fn deep_stacks_keep_their_inner_end() {
        let mut report = report();
        report.stacks[0].frames = (0..10_000).map(|line| own("app::descend", line)).collect();
        let mut timelines = Timelines::default();
        timelines.add(&report);
        let (frames, stack) = (timelines.frames(), timelines.stack_frames(0));
        assert_eq!((stack.len(), frames.len()), (MAX_FRAMES, MAX_FRAMES));
        assert_eq!(stack.last().map(|&at| frames[at as usize].line), Some(Some(0)));
    }

    /// Guards: reports with ever new stacks take bounded memory, and lose no time.
    #[test]
    fn too_many_stacks_keep_their_time() {
        let mut timelines = Timelines::default();
        let mut report = report();
        let at = report.timeline.iter().position(|interval| interval.stack.is_some()).unwrap();
        let stack = report.timeline[at].stack.unwrap();
        report.timeline.retain(|interval| interval.stack == Some(stack));
        report.stacks[stack].frames.truncate(1);
        for number in 0..MAX_STACKS as u32 + 10 {
            report.id = number.to_string();
            report.stacks[stack].frames[0].line = Some(number);
            timelines.add(&report);
        }
        assert_eq!(timelines.stacks.len(), MAX_STACKS);
        let without = timelines.works.iter().flat_map(|work| &work.shares).filter(|share| share.stack.is_none());
        assert_eq!(without.count(), 10);
        assert_eq!(u128::from(nanos(&timelines)), (MAX_STACKS as u128 + 10) * report.timeline[0].time.as_nanos());
    }
}
