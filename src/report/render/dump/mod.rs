//! The forms of a dump: a sentence and text, JSON, a flamegraph.

mod flamegraph;
mod html;
mod json;
mod text;

pub(super) use html::message;
