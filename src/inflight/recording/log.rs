//! What is written down of a task.

use crate::inflight::{How, WaitKind};

/// No stack, or no task.
pub(crate) const NONE: u32 = u32::MAX;

/// One poll, and what led to it. Times are nanoseconds of [`now`](crate::clock::now).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollEntry {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// CPU time that its thread used in it.
    pub(crate) cpu: u64,
    /// What ended the wait before it; `None` if nobody knows.
    pub(crate) wake: Option<WakeEntry>,
    /// The wait after it.
    pub(crate) wait: WaitEntry,
}

/// The first wake-up since a poll began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeEntry {
    pub(crate) at: u64,
    /// The stack of the branch that was woken: a number of the session's.
    pub(crate) stack: Option<u32>,
    /// The task that was running, or had just ended, where it was woken.
    pub(crate) by: Option<u32>,
}

/// What a pending poll left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitEntry {
    pub(crate) kind: WaitKind,
    /// The first of its branches' stacks in [`Log::stacks`], and how many there are.
    pub(crate) first: u32,
    pub(crate) branches: u16,
    /// Branches whose stack was not kept.
    pub(crate) lost: u16,
}

/// What one task did.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The task that has handed it on, and how; `None` for the request itself.
    pub(crate) parent: Option<(u32, How)>,
    pub(crate) created: u64,
    /// When it had an outcome or was dropped; `None` while it is polled again.
    pub(crate) ended: Option<u64>,
    pub(crate) polls: Vec<PollEntry>,
    /// The branches' stacks of all waits: numbers of the session's.
    pub(crate) stacks: Vec<u32>,
    /// Polls that were too many to be written down.
    pub(crate) unwritten: u64,
    /// The first of those began then.
    pub(crate) cut: Option<u64>,
    /// The poll that goes on now began then.
    pub(crate) polling: Option<u64>,
    /// Nanoseconds that writing this took, inside the polls.
    pub(crate) own: u64,
    /// Somebody has read it: nothing is written any more.
    pub(super) is_over: bool,
}

impl Log {
    pub(super) fn new(parent: Option<(u32, How)>, created: u64) -> Self {
        Self {
            parent,
            created,
            ended: None,
            polls: Vec::new(),
            stacks: Vec::new(),
            unwritten: 0,
            cut: None,
            polling: None,
            own: 0,
            is_over: false,
        }
    }

    /// What is written here, which is all that will be.
    pub(super) fn take(&mut self) -> Self {
        let mut taken = Self::new(self.parent, self.created);
        std::mem::swap(self, &mut taken);
        self.is_over = true;
        taken
    }

    /// The stacks of the branches of a wait.
    pub(crate) fn branches(&self, wait: &WaitEntry) -> &[u32] {
        let first = wait.first as usize;
        self.stacks.get(first..first + usize::from(wait.branches)).unwrap_or_default()
    }
}
