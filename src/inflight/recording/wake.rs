//! The wakers of a task's branches. Each knows where it was cloned.

use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use super::log::{NONE, WakeEntry};
use super::run::{Inner, running};
use crate::capture;
use crate::clock::now;

/// The numbers of the stacks that a poll has left, once they are known.
pub(super) type Numbers = Arc<OnceLock<Box<[u32]>>>;

/// A wake-up as it is noted. Its stack may not have a number yet.
#[derive(Debug, Clone)]
pub(super) struct Woken {
    at: u64,
    branch: Option<(Numbers, usize)>,
    by: Option<u32>,
}

impl Woken {
    pub(super) fn entry(&self) -> WakeEntry {
        let number = |(numbers, index): &(Numbers, usize)| numbers.get()?.get(*index).copied();
        let stack = self.branch.as_ref().and_then(number).filter(|number| *number != NONE);
        WakeEntry { at: self.at, stack, by: self.by }
    }
}

/// What one branch keeps instead of the task's waker.
struct Branch {
    recorder: Arc<Inner>,
    numbers: Numbers,
    stack: Option<usize>,
    original: Waker,
}

impl Branch {
    fn note(&self) {
        // A branch may keep it for a long time.
        if self.recorder.is_over() {
            return;
        }
        let branch = self.stack.map(|stack| (Arc::clone(&self.numbers), stack));
        self.recorder.note_wake(|| Woken { at: now(), branch, by: running(&self.recorder) });
    }
}

impl Wake for Branch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, because its poll takes the note.
        self.note();
        self.original.wake_by_ref();
    }
}

/// Makes the branches of one poll.
pub(super) struct Tracing<'a> {
    pub(super) recorder: &'a Arc<Inner>,
    pub(super) numbers: Numbers,
}

impl capture::Branches for Tracing<'_> {
    // This allocates where the leaf may hold its own lock. Wakers that aren't plain reference counts do that, too.
    fn branch(&self, stack: Option<usize>, original: Waker) -> Waker {
        let (recorder, numbers) = (Arc::clone(self.recorder), Arc::clone(&self.numbers));
        Waker::from(Arc::new(Branch { recorder, numbers, stack, original }))
    }

    fn woken(&self) {
        self.recorder.note_wake(|| Woken { at: now(), branch: None, by: None });
    }
}
