//! The timebox: a piece of work gets a limit, stops in a controlled manner, releases what it holds, and says where it was.
//!
//! ```
//! # async fn resize() -> u32 { 7 }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::time::Duration;
//! use heeler::TimeboxExt;
//!
//! match resize().timebox(Duration::from_secs(2)).label("thumbnails").await {
//!     Ok(photo) => println!("{photo}"),
//!     // the timebox "thumbnails" of 2s was up after 2.001s, in app::resize at src/photos.rs:41
//!     Err(interrupted) => eprintln!("{interrupted}"),
//! }
//! # }
//! ```
//!
//! # How it works
//!
//! A box is a row in heeler's table, with its limit in a field. The monitor's thread sees that it has passed, sets a flag,
//! and wakes the task. No timer is registered, no runtime is needed, and a future that uses up tokio's budget without a
//! pause does not outlive its box. Resolution: a millisecond.
//!
//! # Where the ideas come from
//!
//! Boxes, their nesting and quotas are after Python's [interruptingcow](https://pypi.org/project/interruptingcow/), whose
//! name says what a box does.

mod blocking;
pub mod client;
mod core;
mod exclusive;
mod function;
mod future;
mod here;
mod interrupted;
mod io;
mod iter;
mod limit;
#[cfg(test)]
mod nesting_model;
mod process;
mod quota;
#[cfg(test)]
mod quota_model;
mod switch;
mod wire;

pub use self::blocking::blocking;
pub use self::exclusive::{Exclusive, ExclusiveError, Holder, exclusive, exclusive_blocking};
pub use self::function::function;
pub use self::future::{Map, Or, Timebox, TimeboxExt, timebox};
pub use self::here::{Interruption, checkpoint, deadline, interrupted, remaining};
pub use self::interrupted::Interrupted;
pub use self::io::{Io, Socket};
pub use self::iter::{Timeboxed, TimeboxedIterator};
pub use self::limit::Limit;
pub use self::process::{Child, Process};
pub use self::quota::Quota;
pub use self::switch::{is_enabled, set_enabled};
