//! The forms of a report: one sentence, a page of text, a message in HTML, a flamegraph, JSON.

mod cause;
#[cfg(feature = "email")]
mod digest;
mod dump;
pub(crate) mod flamegraph;
pub(crate) mod fold;
mod html;
mod json;
mod layout;
mod markup;
mod page;
#[cfg(feature = "pprof")]
pub(crate) mod pprof;
mod sections;
mod sentence;
mod stacks;
mod subject;
mod text;
mod timeline;

pub(crate) use fold::significant;
pub(crate) use sentence::busy_with;
#[cfg(feature = "console")]
pub(crate) use stacks::{Line, lines};
pub(super) use text::stack_text;
#[cfg(feature = "sentry")]
pub(super) use timeline::timeline;
