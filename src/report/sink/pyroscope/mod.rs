//! Profiles in Pyroscope: those that somebody asked for, and the timelines of reports.

mod labels;
mod pushes;
mod settings;
mod slow;
mod target;

pub(crate) use pushes::Pushes;
pub use settings::Pyroscope;
pub(crate) use target::{Push, Source, Target};
