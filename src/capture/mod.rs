//! Where is it? Copied stacks of suspended tasks and of threads, to be unwound and named elsewhere.
//!
//! The only folder with unsafe code. The signal handler copies, publishes and returns; the waker's clone copies and returns.

#![allow(unsafe_code, reason = "reads stacks; each block names the invariant it stands on")]
#![cfg_attr(not(heeler_copies), allow(dead_code, reason = "what only copied stacks need stays in place"))]

mod arena;
mod crates;
mod frame;
#[cfg(any(heeler_copies, all(test, heeler_loom)))]
mod handover;
mod modules;
mod names;
#[cfg(all(heeler_copies, target_arch = "x86_64"))]
mod peek;
mod procfs;
mod residue;
mod snapshot;
mod symbols;
pub(crate) mod sys;
mod task;
mod thread;
#[cfg(all(test, heeler_copies, not(heeler_loom)))]
mod thread_stress;
mod unwind;

pub use frame::Frame;

pub(crate) use arena::{Arena, SPANS};
pub(crate) use crates::{is_of, is_std, origin};
pub(crate) use modules::code_range;
pub(crate) use names::front;
pub(crate) use procfs::{Activity, look};
pub(crate) use residue::{forget as forget_residue, poll as poll_within};
pub(crate) use snapshot::{Origin, Snapshot};
pub(crate) use symbols::{Address, Symbols};
pub(crate) use task::{Branches, is_tracing, original, trace, trace_branches, warm_up};
pub(crate) use thread::{Outcome, Sample, Sampler, install as install_handler};
pub(crate) use unwind::Unwinder;

/// The stack of this thread; empty if it polls no watched work. Takes no lock.
fn threads_stack() -> std::ops::Range<usize> {
    crate::inflight::ThreadSlot::existing().map_or(0..0, |slot| slot.stack())
}

/// The ids of the spans that this thread has entered, outermost first. Takes no lock and allocates nothing.
fn copy_spans(spans: &mut [u64; SPANS]) {
    #[cfg(feature = "spans")]
    if let Some(slot) = crate::inflight::ThreadSlot::existing() {
        slot.spans.copy(spans);
    }
    #[cfg(not(feature = "spans"))]
    let _ = spans;
}
