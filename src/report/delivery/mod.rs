//! From a finished report to every sink: queues, retries, a spool, and a count of all that becomes of it.
//!
//! A report that goes out is accepted by the [`Dispatch`], written to the [spool](Spool) if there is one, and put into
//! the queue of each sink. A queue is driven on the reporter's thread: for what blocks, between two messages; for what is
//! reached over a network, as a task of the reporter's runtime. A sink that fails is tried again with growing pauses, and
//! disturbs no other. A report's [`Receipt`] knows who has it; when the last one has, or has given up, the report is
//! counted, and its file removed.

mod backoff;
mod dispatch;
mod guard;
mod kept;
mod left_behind;
mod outbox;
mod outcome;
mod pending;
mod queue;
mod receipt;
mod slot;
mod spool;

pub(super) use dispatch::{Dispatch, Limits};
pub(super) use slot::AnySink;
#[cfg(test)]
pub(super) use slot::LOG_FAILURES_EVERY;
pub(super) use spool::{Inherited, Spool};
