//! A report as a flamegraph: one picture of where the time of one piece of work went.
//!
//! - `tree`: the timeline and its stacks as a tree of boxes.
//! - `label`: what is written on a box.
//! - `state`: what the work did meanwhile, in words and colours.
//! - `draw`: the tree as a picture.
//! - `picture`: boxes as SVG, also for profiles.
//!
//! [Flame graphs](https://www.brendangregg.com/flamegraphs.html) are Brendan Gregg's;
//! [inferno](https://crates.io/crates/inferno) draws them.

mod draw;
pub(crate) mod label;
pub(crate) mod picture;
mod state;
mod tree;

pub(crate) use state::State;
