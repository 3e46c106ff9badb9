//! The forms in which a profile leaves: files for other programs. Also what all views of a profile count with: its
//! [stacks](stacks::stacks) and its [tally](tally()).

#[cfg(feature = "callgraph")]
mod dot;
mod error;
#[cfg(feature = "firefox")]
mod firefox;
mod folded;
#[cfg(feature = "callgraph")]
mod graph;
#[cfg(feature = "callgraph")]
mod layout;
mod names;
#[cfg(feature = "callgraph")]
mod pdf;
#[cfg(feature = "pprof")]
mod pprof;
mod render;
mod speedscope;
mod stacks;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;

pub(crate) use error::Error;
pub(crate) use names::{is_remark, state_name};
#[cfg(feature = "pyroscope")]
pub(crate) use pprof::bounded_pprof;
pub(crate) use render::{content_type, extension, is_available, render};
pub(crate) use stacks::Paths;
pub(crate) use tally::{Row, Times, tally};
