//! Records what a profiled request does while it runs, and where its time goes.
//!
//! ```text
//! recording ─▶ tasks (inflight): polls, waits, who woke whom       ┐
//! sampler (one OS thread) ─▶ samples: stacks of threads in polls   ┴▶ timeline ─▶ tree: slices with named stacks
//! ```

mod live;
mod pieces;
mod recording;
mod sampler;
mod samples;
mod stacks;
#[cfg(all(test, not(heeler_loom)))]
mod tests;
mod timeline;
mod tree;

pub(crate) use recording::{InPlace, Progress, Record, Recording};
