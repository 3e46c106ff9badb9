//! Everything that is in flight at one moment, and where each of it is: the evidence for a
//! [`Dump`](crate::report::Dump). It is taken on the caller's thread, so it needs neither the application's runtimes nor
//! the monitor's threads.

mod resources;
mod rows;

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use super::Evidence;
use crate::capture::RowId;
use crate::inflight::resources::ReadUsage;
use crate::inflight::{How, ReportTarget, Request};

pub(crate) use rows::{DumpStacks, take};

/// How long a dump may ask and look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// For polls of work that isn't traced yet.
    pub(crate) polls: Duration,
    /// Younger work is not asked, and no more than `most`, the oldest.
    pub(crate) older_than: Duration,
    pub(crate) most: usize,
    /// For stacks of threads.
    pub(crate) threads: Duration,
}

/// Everything in flight.
pub(crate) struct DumpEvidence {
    pub(crate) taken: SystemTime,
    /// The oldest first.
    pub(crate) work: Vec<WorkEvidence>,
    /// Where they are: what is known of the first that was found there.
    pub(crate) places: Vec<Evidence>,
    pub(crate) resources: Vec<ResourceEvidence>,
    /// The work in each deadlock.
    pub(crate) deadlocks: Vec<Vec<RowId>>,
    /// What each piece of work holds and waits for, as indices into the resources.
    pub(crate) claims: HashMap<RowId, [Vec<usize>; 2]>,
    /// How many more were in flight. They are not in `work`.
    pub(crate) omitted: u64,
    /// Of how many it is not known where they are: they were not asked, or have not answered.
    pub(crate) unobserved: u64,
}

/// One piece of work.
pub(crate) struct WorkEvidence {
    pub(crate) id: RowId,
    pub(crate) what: What,
    /// The request or job that child work belongs to.
    pub(crate) parent: Option<RowId>,
    pub(crate) reports: ReportTarget,
    /// Clock ticks. `None` while its clock stands still.
    pub(crate) started: Option<u64>,
    /// Nanoseconds.
    pub(crate) elapsed: u64,
    pub(crate) threshold: u64,
    /// How long it may still run, if a limit is known.
    pub(crate) left: Option<u64>,
    pub(crate) polls: u32,
    pub(crate) is_body: bool,
    pub(crate) state: State,
    /// How long it has been there, in nanoseconds, if that was observed.
    pub(crate) there: Option<u64>,
    /// Index into the places.
    pub(crate) place: Option<usize>,
}

/// What a piece of work is.
pub(crate) enum What {
    Request(Request),
    Job(Cow<'static, str>),
    Child(How),
    Timebox(Option<Cow<'static, str>>),
}

/// What a piece of work is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Between two polls, until something wakes it.
    Waiting,
    /// It woke itself, and waits for its turn.
    Yielding,
    /// Nobody has its waker.
    NoWaker,
    /// In a poll, on a CPU.
    Running,
    /// In a poll, in a system call.
    Blocked,
    /// In a poll, and its thread could not be looked at.
    Polled,
    /// Woken by heeler, and not polled since.
    Woken,
    /// Never polled.
    New,
    /// Not known.
    Unknown,
}

/// A named thing that is held or waited for.
pub(crate) struct ResourceEvidence {
    pub(crate) name: Cow<'static, str>,
    /// Whether it is known which instance is meant.
    pub(crate) is_certain: bool,
    /// Whether some who hold it and some who wait for it are in a deadlock.
    pub(crate) in_deadlock: bool,
    pub(crate) usage: Option<ReadUsage>,
    pub(crate) holders: Vec<ClaimEvidence>,
    pub(crate) waiters: Vec<ClaimEvidence>,
    /// How many of each are not listed.
    pub(crate) more_holders: u64,
    pub(crate) more_waiters: u64,
}

/// One who holds it or waits for it.
pub(crate) struct ClaimEvidence {
    /// The work, or [`RowId::NONE`].
    pub(crate) work: RowId,
    /// The thread, if no work is known.
    pub(crate) thread: Option<i32>,
    pub(crate) at: &'static Location<'static>,
    /// Nanoseconds since then.
    pub(crate) time: u64,
}
