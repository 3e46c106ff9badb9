//! A report as a flamegraph: one picture of where the time of one piece of work went.
//!
//! - `tree`: the timeline and its stacks as a tree of boxes.
//! - `state`: what the work did meanwhile, in words and colours.
//! - `draw`: the tree as a [picture](crate::flamegraph).

mod draw;
mod state;
mod tree;

pub(crate) use state::State;
pub(super) use tree::boxes;
