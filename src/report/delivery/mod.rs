//! From a finished report to every sink: queues, retries, a spool, and a count of every outcome.
//!
//! A report that is sent is accepted by the [`Dispatch`], written to the [spool](Spool) if there is one, and put into
//! the queue of each sink. The queues of blocking sinks are driven on the reporter's thread, between two messages. The
//! queues of async sinks are driven by tasks of the reporter's runtime. A sink that fails is tried again with growing
//! pauses, and doesn't affect the others. A report's [`Receipt`] knows which sinks have it. When the last one has it or
//! has given it up, the report is counted, and its file removed.

mod backoff;
mod dispatch;
#[cfg_attr(not(feature = "fleet"), allow(dead_code, reason = "only a fleet is asked"))]
mod gate;
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

#[cfg(feature = "pyroscope")]
pub(super) use backoff::pause;
#[cfg(all(feature = "fleet", any(test, feature = "test-util")))]
pub(super) use dispatch::clock;
pub(super) use dispatch::{Dispatch, Limits};
pub(super) use gate::Gate;
#[cfg(feature = "fleet")]
pub(super) use gate::{Decision, Question};
#[cfg(feature = "pyroscope")]
pub(super) use receipt::Outcome;
pub(super) use slot::AnySink;
#[cfg(test)]
pub(super) use slot::LOG_FAILURES_EVERY;
#[cfg(feature = "pyroscope")]
pub(super) use slot::Slot;
pub(super) use spool::{Inherited, Spool};
