//! One run at a time: a lock of the operating system, held for as long as a job runs.

mod blocking;
mod error;
mod file;
mod future;
mod holder;
mod keep;
mod lock;
mod place;

pub use blocking::exclusive_blocking;
pub use error::ExclusiveError;
pub use future::{Exclusive, exclusive};
pub use holder::Holder;
