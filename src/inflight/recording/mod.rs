//! What profiled work does, poll by poll and wait by wait. There is a task for the request itself, and one for each
//! piece of work that it hands on.
//!
//! Every poll is traced. Each waker that a branch keeps is unique, so that it is known which branch ended a wait, and
//! which task was running when it did. What that task did in the meantime is what the wait was for.
//!
//! - `run`: polling a task.
//! - `wake`: the wakers of its branches.
//! - `log`: what is recorded.
//! - `session`: the tasks of one recording, and what they share.

mod log;
mod run;
mod session;
mod wake;

pub(crate) use log::{Log, PollEntry, WaitEntry};
pub(crate) use run::{TaskRecorder, current_recorder};
pub(crate) use session::{Active, Place, Session};
