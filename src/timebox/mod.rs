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
//! | what | how |
//! |---|---|
//! | a future | [`timebox(limit, future)`](timebox()), [`future.timebox(limit)`](TimeboxExt::timebox) |
//! | plain code | [`blocking`] around it, [`checkpoint`] in it; [`TimeboxedIterator`] and [`Io`] have the checkpoints built in |
//! | a function | [`function`] |
//! | many pieces that share a budget | [`Quota`] |
//! | a request | [`TimeboxLayer`] around a server's service |
//! | a call | [`DeadlineLayer`](crate::DeadlineLayer) around a client's service |
//! | a job that must not run twice at once | [`exclusive`], [`exclusive_blocking`] |
//!
//! Customised, a [`Limit`] has a label, a second stage, and somebody to tell:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), heeler::Interrupted> {
//! use std::time::Duration;
//! use heeler::{TimeboxExt, timebox};
//!
//! async fn index() -> u32 {
//!     let mut pages = 0;
//!     loop {
//!         tokio::select! {
//!             _ = timebox::interrupted() => return pages, // its time is up: it ends by itself
//!             _ = tokio::time::sleep(Duration::from_millis(1)) => pages += 1,
//!         }
//!     }
//! }
//!
//! let pages = index()
//!     .timebox(Duration::from_millis(20))
//!     .label("index")
//!     .grace(Duration::from_secs(5))
//!     .on_interrupt(|interrupted| eprintln!("{interrupted}"))
//!     .await?;
//! # assert!(pages > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens at the limit
//!
//! A future that waits is woken, polled once more to see where it waits, and dropped: what it holds is released by its
//! destructors, in their order. Nothing is detached; but tasks and closures that it has handed to other threads go on, as
//! ever. Those that went by [`spawn`](crate::spawn) and [`spawn_blocking`](crate::spawn_blocking) carry the box along:
//! [`checkpoint`], [`interrupted`] and [`remaining`] tell them.
//!
//! Nothing can stop a thread that is inside a poll or a closure. The monitor sets the flag that checkpoints look at; if
//! none is reached and the poll does not return, within a quarter of the limit (at least 10 ms, at most 250 ms), a report
//! with the thread's stack says so, once, where the reports of the request around go, or to the log.
//!
//! # Boxes in boxes
//!
//! A box whose deadline is not before that of the box around it has no effect: the one around interrupts all of it, past
//! the inner one's `Err` arm. In async code the whole is dropped; in plain code the error says which box it is from
//! ([`Interrupted::is_from`]). A box around goes on when the inner one ends.
//!
//! # Differences from `tokio::time::timeout`
//!
//! The error says where the work was. The limit holds for synchronous stretches (checkpoints) and for what is spawned. It
//! needs no timer and no runtime, cannot be outlived by a future that uses up tokio's budget, and is known to the code
//! inside. Use `timeout` with tokio's paused clock: boxes follow the real one.
//!
//! # How it works
//!
//! A box is a row in heeler's table, with its limit in a field. The monitor's thread sees that it has passed, sets a flag,
//! and wakes the task. Resolution: a millisecond. A box that is opened in more than four million others has no row, and so
//! no effect, which the log says.
//!
//! `HEELER_DISABLE_TIMEBOXES=1` and [`set_enabled`] switch new boxes off, for debuggers.
//!
//! # Where the ideas come from
//!
//! Boxes, their nesting and quotas are after Python's [interruptingcow](https://pypi.org/project/interruptingcow/), whose
//! name says what a box does.

mod blocking;
mod context;
mod core;
pub mod deadline;
mod deadline_header;
mod enabled;
mod exclusive;
mod function;
mod future;
mod interrupted;
mod io;
mod iter;
pub mod layer;
mod limit;
#[cfg(test)]
mod nesting_model;
mod open;
mod process;
mod quota;
#[cfg(test)]
mod quota_model;

pub use self::blocking::blocking;
pub use self::context::{Interruption, checkpoint, deadline, interrupted, remaining};
pub use self::enabled::{is_enabled, set_enabled};
pub use self::exclusive::{Exclusive, ExclusiveError, Holder, exclusive, exclusive_blocking};
pub use self::function::function;
pub use self::future::{MapErr, OrErr, Timebox, TimeboxExt, timebox};
pub use self::interrupted::Interrupted;
pub use self::io::{Io, Socket};
pub use self::iter::{Timeboxed, TimeboxedIterator};
pub use self::layer::TimeboxLayer;
pub use self::limit::Limit;
pub use self::process::{Child, Process};
pub use self::quota::Quota;
