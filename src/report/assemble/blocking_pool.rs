//! What the threads of tokio's blocking pool are busy with, when work waits for one of them: plain `spawn_blocking`,
//! `tokio::fs`, and looking up names.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Assembler;
use super::awaiting::awaited_by;
use super::cause::own_stacks;
use super::location::{leading, location_of};
use crate::capture::{Frame, Sampler};
use crate::monitor::Verdict;
use crate::report::model::others::{BlockingPool, BusyThreads};
use crate::report::model::words::StackKind;
use crate::report::model::{Report, Stack};
use crate::report::threads::{Seen, look_at_all};

/// How long one look is good for at most. Work that began later than twice as long ago needs another one.
const CURRENT: Duration = Duration::from_secs(2);
/// Looks take at most this part of the reporter's time.
const SHARE: u32 = 5;
/// tokio's own limit is 512 for each runtime.
const MAX_THREADS: usize = 1_024;
/// A thread takes about a tenth of a millisecond, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many places a report has.
const MAX_PLACES: usize = 8;

/// A [phrase](super::phrases) for what the blocking pool may have to do, and parts of functions that are on the stack of
/// the thread that does it.
const DONE_THERE: [(&str, &[&str]); 3] = [
    ("a file operation", &["tokio::fs::"]),
    ("a name to be resolved", &["to_socket_addrs", "getaddrinfo"]),
    ("another task", &[]),
];

/// What looks at the pools, and what it has seen last. Several reports share that.
pub(super) struct PoolLook {
    sampler: Sampler,
    at: Instant,
    took: Duration,
    pool: Pool,
}

/// What was seen of the blocking pools of the process.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Pool {
    idle: u32,
    /// Threads with the names of the others that sleep, and whose stack could not be read.
    unknown: u32,
    /// The stacks of those that have something to do, and how many threads have that stack.
    busy: Vec<(Stack, u32)>,
}

impl Pool {
    pub(super) fn stacks_mut(&mut self) -> impl Iterator<Item = &mut Stack> {
        self.busy.iter_mut().map(|(stack, _)| stack)
    }

    /// Describes it for a report, the place with the most threads first. `None` if there is no such thread.
    pub(super) fn describe(self) -> Option<BlockingPool> {
        let threads = self.idle + self.busy.iter().map(|(_, count)| count).sum::<u32>();
        let mut places: Vec<BusyThreads> = Vec::new();
        for (stack, count) in &self.busy {
            let (location, calls) = (location_of(stack), called_by_own(stack));
            match places.iter_mut().find(|place| place.location == location && place.calls == calls) {
                Some(place) => place.count += count,
                None => places.push(BusyThreads { count: *count, location, calls }),
            }
        }
        places.sort_by_key(|place| std::cmp::Reverse(place.count));
        places.truncate(MAX_PLACES);
        let Self { idle, unknown, .. } = self;
        (threads > 0).then_some(BlockingPool { threads, idle, unknown, busy: places, is_awaited: false })
    }

    /// Returns whether the report's work waits for a thread of the pool for certain: none is idle, and none does what it
    /// waits for.
    pub(super) fn is_awaited_by(&self, report: &Report) -> bool {
        let is_done =
            |parts: &[&str]| self.busy.iter().any(|(stack, _)| parts.iter().any(|part| has(&stack.frames, part)));
        let waits_for =
            |phrase: &str| own_stacks(report).filter_map(awaited_by).any(|awaited| awaited.phrase == phrase);
        let of_own = |(phrase, parts): (&str, &[&str])| !parts.is_empty() && waits_for(phrase) && !is_done(parts);
        self.idle == 0 && self.unknown == 0 && (report.child_needs_thread || DONE_THERE.into_iter().any(of_own))
    }
}

/// Returns the library function that the application's own code has called.
fn called_by_own(stack: &Stack) -> Option<String> {
    let within = leading(stack)?.checked_sub(1)?;
    stack.frames[within].function.clone()
}

/// Returns whether the report's work may wait for a thread of the pool.
fn may_wait_for_pool(report: &Report) -> bool {
    let is_done_there = |phrase: &str| DONE_THERE.iter().any(|(done, _)| *done == phrase);
    let waits = |stack: &Stack| awaited_by(stack).is_some_and(|awaited| is_done_there(awaited.phrase));
    report.verdict == Verdict::Waiting && own_stacks(report).any(waits)
}

impl Assembler {
    /// Looks at the blocking pool, if the report's work may wait for it.
    pub(super) fn blocking_pool(&mut self, report: &Report) -> Pool {
        if !may_wait_for_pool(report) {
            return Pool::default();
        }
        let now = Instant::now();
        let is_current = |last: &&PoolLook| {
            let good_for = CURRENT.min(report.elapsed / 2).max(last.took * SHARE);
            now.saturating_duration_since(last.at) < good_for
        };
        if let Some(last) = self.pool.as_ref().filter(is_current) {
            return last.pool.clone();
        }
        let mut sampler = self.pool.take().map_or_else(|| Sampler::new(None), |last| last.sampler);
        let (pool, learning) = self.look_at_pool(&mut sampler);
        // Names are learned once. The next look does not take so long.
        let took = now.elapsed().saturating_sub(learning);
        self.pool = Some(PoolLook { sampler, at: now, took, pool: pool.clone() });
        pool
    }

    /// Returns what is seen, and how long it took to learn the names for it.
    fn look_at_pool(&mut self, sampler: &mut Sampler) -> (Pool, Duration) {
        let (seen, _) = look_at_all(sampler, false, MAX_THREADS, PATIENCE);
        let snapshots = seen.iter().filter_map(|one| one.snapshot.as_ref());
        let addresses: Vec<_> =
            snapshots.flat_map(|snapshot| self.unwinder.unwind_with_tail_calls(snapshot).addresses).collect();
        let began = Instant::now();
        self.symbols.learn(&addresses);
        let learning = began.elapsed();
        let (mut pool, mut names) = (Pool::default(), HashSet::new());
        for one in &seen {
            let Some(snapshot) = &one.snapshot else { continue };
            let stack = self.stack(snapshot, StackKind::Thread);
            if !is_of_pool(&stack.frames) {
                continue;
            }
            names.insert(one.activity.name.as_str());
            if !is_busy(&stack.frames) {
                pool.idle += 1;
                continue;
            }
            match pool.busy.iter_mut().find(|(known, _)| known.frames == stack.frames) {
                Some((_, count)) => *count += 1,
                None => pool.busy.push((stack, 1)),
            }
        }
        // A thread that has polled watched work is a worker. One that runs is not idle, whatever it is.
        let may_be_idle = |one: &Seen| one.snapshot.is_none() && !one.is_known && one.activity.on_cpu() != Some(true);
        let unknown = seen.iter().filter(|one| may_be_idle(one) && names.contains(one.activity.name.as_str()));
        pool.unknown = unknown.count() as u32;
        (pool, learning)
    }
}

fn has(frames: &[Frame], part: &str) -> bool {
    frames.iter().filter_map(|frame| frame.function.as_deref()).any(|function| function.contains(part))
}

/// Returns whether a thread is of a blocking pool. A runtime's workers begin there, too.
fn is_of_pool(frames: &[Frame]) -> bool {
    has(frames, "tokio::runtime::blocking::pool") && !has(frames, "tokio::runtime::scheduler::")
}

fn is_busy(frames: &[Frame]) -> bool {
    has(frames, "tokio::runtime::task::") || has(frames, "tokio::runtime::blocking::task")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{library, own};

    fn thread(frames: &[Frame]) -> Stack {
        Stack { frames: frames.to_vec(), ..Stack::empty(StackKind::Thread) }
    }

    /// Guards: threads are told apart by what is on their stacks, for they all have one name.
    #[test]
    fn workers_and_idle_threads_are_not_busy() {
        let (pool, task) =
            (library("tokio::runtime::blocking::pool::Inner::run"), library("tokio::runtime::task::raw::poll"));
        let worker = [library("tokio::runtime::scheduler::multi_thread::worker::run"), pool.clone()];
        let idle = [library("std::sync::poison::condvar::Condvar::wait_timeout"), pool.clone()];
        let busy = [library("std::fs::File::sync_all"), own("app::flush", 7), task, pool];
        assert!(!is_of_pool(&worker) && is_of_pool(&idle) && is_of_pool(&busy));
        assert!(!is_busy(&idle) && is_busy(&busy));
        assert!(!is_of_pool(&[own("app::rayon", 1)]));
    }

    /// Guards: a phrase that the table no longer has would silently end the look at the pool.
    #[test]
    fn the_phrases_are_those_of_the_table() {
        let table = include_str!("phrases.txt");
        for (phrase, _) in DONE_THERE {
            assert!(table.lines().any(|line| line == phrase), "{phrase}");
        }
    }

    #[test]
    fn threads_are_grouped_by_place() {
        let flush = |leaf| thread(&[library(leaf), library("std::fs::File::sync_all"), own("app::flush", 7)]);
        let busy = vec![(thread(&[own("app::hash", 1)]), 1), (flush("fsync"), 1), (flush("write"), 1)];
        let pool = Pool { busy, ..Pool::default() };
        let described = pool.describe().unwrap();
        assert_eq!((described.threads, described.idle), (3, 0));
        let places: Vec<_> = described
            .busy
            .iter()
            .map(|place| (place.count, place.location.as_ref().unwrap().function.clone().unwrap(), place.calls.clone()))
            .collect();
        assert_eq!(
            places,
            [
                (2, "app::flush".to_owned(), Some("std::fs::File::sync_all".to_owned())),
                (1, "app::hash".to_owned(), None)
            ]
        );
        assert!(Pool::default().describe().is_none());
    }
}
