//! The stack of a thread that is inside a poll: signal it, and copy its stack in the handler.
//!
//! The handler copies registers and stack into memory that is ready, publishes with one atomic store and returns. It
//! takes no lock, allocates nothing, calls nothing that might. It answers one kind of signal only: queued by this process,
//! with the cookie of the question that stands.

mod outcome;
#[cfg(not(heeler_copies))]
mod portable;
#[cfg(heeler_copies)]
mod sampler;
#[cfg(heeler_copies)]
mod signal;

#[cfg(heeler_copies)]
pub(crate) use outcome::MAX_COPY;
pub(crate) use outcome::{Outcome, Sample};
#[cfg(not(heeler_copies))]
pub(crate) use portable::{Sampler, install};
#[cfg(heeler_copies)]
pub(crate) use sampler::Sampler;
#[cfg(heeler_copies)]
pub(crate) use signal::install;
