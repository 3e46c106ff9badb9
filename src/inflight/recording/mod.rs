//! What profiled work does, poll by poll and wait by wait: a task for the request itself, and one for each piece of work
//! that it hands on.
//!
//! Every poll is traced. Each waker that a branch keeps is one of its own, so that it is known which branch has ended a wait,
//! and which task was running when it did: what that one did meanwhile is what the wait was for.
//!
//! - `run`: polling a task.
//! - `wake`: the wakers of its branches.
//! - `log`: what is written down.
//! - `session`: the tasks of one recording, and what they share.

mod log;
mod run;
mod session;
mod wake;

pub(crate) use log::{Log, PollEntry, WaitEntry};
pub(crate) use run::{TaskRecorder, current_recorder};
pub(crate) use session::{Active, Place, Session};
