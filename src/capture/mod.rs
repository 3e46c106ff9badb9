//! Where is it? Copied stacks of suspended tasks and of threads, which are unwound and symbolized elsewhere.
//!
//! This is the only folder with unsafe code. The signal handler copies, publishes and returns. The waker's clone copies
//! and returns. `memory.rs` decides which memory is read in place, and which with reads that fail instead of faulting.

#![allow(unsafe_code, reason = "reads stacks; each block names the invariant it stands on")]
#![cfg_attr(not(heeler_copies), allow(dead_code, reason = "what only copied stacks need stays in place"))]

mod abilities;
mod arena;
mod crates;
mod dead_frames;
#[cfg(target_os = "linux")]
mod dump_signal;
mod fork;
mod frame;
#[cfg(heeler_copies)]
mod function_table;
#[cfg(any(heeler_copies, all(test, heeler_loom)))]
mod handover;
mod instrumented;
#[cfg(heeler_copies)]
mod memory;
mod modules;
mod names;
mod offer;
mod own_frames;
#[cfg(heeler_copies)]
mod places;
mod procfs;
mod row_waker;
#[cfg(all(heeler_copies, any(target_arch = "aarch64", test)))]
mod signed;
mod snapshot;
mod symbols;
pub(crate) mod sys;
mod task;
mod thread;
#[cfg(all(test, heeler_copies, not(heeler_loom)))]
mod thread_stress;
mod unforked;
mod unwind;

pub use frame::Frame;

pub(crate) use abilities::abilities;
pub(crate) use arena::{Arena, SPANS};
pub(crate) use crates::{dependency_module, is_of, is_own_elsewhere, is_std, origin};
pub(crate) use dead_frames::{forget as forget_dead_frames, poll as poll_within};
#[cfg(target_os = "linux")]
pub(crate) use dump_signal::DumpSignal;
pub(crate) use fork::{KEEP_ALIVE, MAX_PROCESSES, PerProcess, notice_forks, process_number};
pub(crate) use instrumented::disown_wrappers;
pub(crate) use modules::code_range;
pub(crate) use names::{front, readable};
pub(crate) use offer::{has_kept, is_asked_around, tell_around};
pub(crate) use own_frames::{drop_copying, drop_own, drop_polling};
#[cfg(heeler_copies)]
pub(crate) use places::refresh_places;
pub(crate) use procfs::{Activity, RunDelays, is_runnable, look, thread_ids};
pub(crate) use row_waker::{LENDS, Lent, RowWaker, Rows, hold, name_of, named};
pub(crate) use snapshot::{Origin, Snapshot};
pub(crate) use symbols::{Address, DebugInformation, Symbols, survey};
pub(crate) use task::{Branches, is_traced, is_tracing, original, row_of, trace, trace_branches, warm_up};
pub(crate) use thread::{
    Outcome, Poller, RowId, RuntimeId, Sample, Sampler, ThreadSlot, install as install_handler, slots,
};
pub(crate) use unforked::unforked;
pub(crate) use unwind::Unwinder;

/// Returns an address in the frame of the function that uses it. The stack below belongs to what that function calls.
macro_rules! frame_address {
    () => {{
        let here = 0_u8;
        $crate::capture::sys::frame_address(&here)
    }};
}
pub(crate) use frame_address;

/// Returns the bounds of this thread's stack, which are empty if it polls no watched work. Takes no lock.
fn threads_stack() -> std::ops::Range<usize> {
    ThreadSlot::existing().map_or(0..0, |slot| slot.stack())
}

/// Copies the ids of the spans that this thread has entered, outermost first. Takes no lock and allocates nothing.
fn copy_spans(spans: &mut [u64; SPANS]) {
    #[cfg(feature = "spans")]
    if let Some(slot) = ThreadSlot::existing() {
        slot.spans.copy(spans);
    }
    #[cfg(not(feature = "spans"))]
    let _ = spans;
}
