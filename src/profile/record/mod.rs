//! What a profiled request does, as it does it.

mod recording;

pub(crate) use recording::{Progress, Record, Recorded, Recording};
