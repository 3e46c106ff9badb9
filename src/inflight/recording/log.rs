//! The log of a task.

use crate::inflight::{How, WaitKind};

/// No stack, or no task.
pub(crate) const NONE: u32 = u32::MAX;

/// One poll, and what led to it. Times are nanoseconds of [`now`](crate::clock::now).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollEntry {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// CPU time that its thread used during the poll.
    pub(crate) cpu: u64,
    /// What ended the wait before it, or `None` if that is unknown.
    pub(crate) wake: Option<WakeEntry>,
    /// The wait after it.
    pub(crate) wait: WaitEntry,
}

/// The first wake-up since a poll began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeEntry {
    pub(crate) at: u64,
    /// The stack of the branch that was woken, as a number in the session.
    pub(crate) stack: Option<u32>,
    /// The task that was running, or had just ended, where the wake-up came from.
    pub(crate) by: Option<u32>,
}

/// What a pending poll left behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitEntry {
    pub(crate) kind: WaitKind,
    /// The index of the first of its branches' stacks in [`Log::stacks`], and how many there are.
    pub(crate) first: u32,
    pub(crate) branches: u16,
    /// Branches whose stack was not kept.
    pub(crate) lost: u16,
}

/// What one task did.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The task that handed it on, and how. `None` for the request itself.
    pub(crate) parent: Option<(u32, How)>,
    pub(crate) created: u64,
    /// When it had an outcome or was dropped. `None` while it is polled again.
    pub(crate) ended: Option<u64>,
    pub(crate) polls: Vec<PollEntry>,
    /// The branches' stacks of all waits, as numbers in the session.
    pub(crate) stacks: Vec<u32>,
    /// Polls that were not logged because there were too many.
    pub(crate) unwritten: u64,
    /// When the first of those began.
    pub(crate) cut: Option<u64>,
    /// When the current poll began.
    pub(crate) polling: Option<u64>,
    /// Nanoseconds that logging took, inside the polls.
    pub(crate) own: u64,
    /// Whether the log has been read. Nothing is added any more.
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

    /// Takes the log. Nothing is added later.
    pub(super) fn take(&mut self) -> Self {
        let mut taken = Self::new(self.parent, self.created);
        std::mem::swap(self, &mut taken);
        self.is_over = true;
        taken
    }

    /// Returns the stacks of the branches of a wait.
    pub(crate) fn branches(&self, wait: &WaitEntry) -> &[u32] {
        let first = wait.first as usize;
        self.stacks.get(first..first + usize::from(wait.branches)).unwrap_or_default()
    }
}
