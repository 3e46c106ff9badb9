//! Gives a piece of work a limit. At the limit it stops cleanly, releases what it holds, and says where it was.
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
//! | many pieces of work that share a budget | [`Quota`] |
//! | a request | [`TimeboxLayer`] around a server's service |
//! | a call | [`DeadlineLayer`](crate::DeadlineLayer) around a client's service |
//! | a job that must not run twice at once | [`exclusive`], [`exclusive_blocking`] |
//!
//! A [`Limit`] can have a label, a second stage, and a hook:
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
//! A future that waits is woken, polled once more to see where it waits, and dropped. Its destructors release what it
//! holds, in their usual order. Nothing is detached, but tasks and closures that it has handed to other threads go on
//! as usual. Those started with [`spawn`](crate::spawn) and [`spawn_blocking`](crate::spawn_blocking) carry the box
//! along: [`checkpoint`], [`interrupted`] and [`remaining`] tell them about it.
//!
//! Nothing can stop a thread that is inside a poll or a closure. The monitor sets the flag that checkpoints look at. If
//! the thread reaches no checkpoint and the poll does not return within a quarter of the limit (at least 10 ms, at most
//! 250 ms), a report with the thread's stack says so, once. It goes where the reports of the request around go, or to
//! the log.
//!
//! # Boxes in boxes
//!
//! A box has no effect if its deadline is not before that of the box around it. The outer box then interrupts
//! everything, without running the inner one's `Err` arm. In async code the whole future is dropped. In plain code the
//! error says which box it is from ([`Interrupted::is_from`]). The outer box goes on when the inner one ends.
//!
//! # Differences from `tokio::time::timeout`
//!
//! The error says where the work was. The limit also holds for synchronous stretches (checkpoints) and for spawned
//! work. It needs no timer and no runtime. A future that uses up tokio's budget cannot outlive it. The code inside
//! knows about it. Use `timeout` with tokio's paused clock, because boxes follow the real one.
//!
//! # How it works
//!
//! A box is a row in heeler's table, with its limit in a field. The monitor's thread sees that the limit has passed,
//! sets a flag, and wakes the task. The resolution is a millisecond. A box that is opened beside more than four million
//! others gets no row and has no effect. The log says so.
//!
//! `HEELER_DISABLE_TIMEBOXES=1` and [`set_enabled`] switch new boxes off, for use with a debugger.
//!
//! # Where the ideas come from
//!
//! Boxes, their nesting and quotas are modelled on Python's
//! [interruptingcow](https://pypi.org/project/interruptingcow/), whose name says what a box does.

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
