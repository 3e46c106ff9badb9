//! The stack of a thread that is inside a poll: signal it, and copy its stack in the handler.
//!
//! The handler copies registers and stack into memory that is ready, publishes with one atomic store and returns. It
//! takes no lock, allocates nothing, and calls nothing that might. It answers only two kinds of signals: those queued
//! by this process with the cookie of the open question, and, where the system refuses those, signals sent by this
//! process to the thread that is asked. Its id is in the question's cookie.
//!
//! The handler runs on the thread's alternate stack. A thread without one that is large enough is never signalled. A
//! thread that runs on a stack which is not its own (a fiber's) is copied with reads that fail instead of faulting, and
//! is signalled once per poll.

mod outcome;
#[cfg(not(heeler_copies))]
mod portable;
mod row_id;
mod runtime_id;
#[cfg(heeler_copies)]
mod sampler;
#[cfg(heeler_copies)]
mod signal;
#[cfg(heeler_copies)]
mod sleeping;
mod slots;
#[cfg(feature = "spans")]
mod span_stack;

#[cfg(heeler_copies)]
pub(crate) use outcome::MAX_COPY;
pub(crate) use outcome::{Outcome, Sample};
#[cfg(not(heeler_copies))]
pub(crate) use portable::{Sampler, install};
pub(crate) use row_id::RowId;
pub(crate) use runtime_id::RuntimeId;
#[cfg(heeler_copies)]
pub(crate) use sampler::Sampler;
#[cfg(heeler_copies)]
pub(crate) use signal::{install, sending};
pub(crate) use slots::{Poller, ThreadSlot, slots};
#[cfg(feature = "spans")]
use span_stack::SpanStack;
