//! A report for a reader: one sentence, a page of text, JSON.

mod json;
mod sentence;
mod stacks;
mod text;
mod units;

pub(super) use units::{duration, place};
