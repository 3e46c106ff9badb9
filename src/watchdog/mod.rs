//! Reports where a request is stuck while it is still running.
//!
//! [`WatchdogLayer`] goes around any `Service<http::Request<_>>`: axum, hyper, tonic. It never changes, delays or
//! reorders a response. A request that ends in time pays for a row in a table and a few plain stores per poll. A
//! request that runs longer is captured where it is, once at its threshold and again at two, four and eight times that,
//! and reported through [`Reports`](crate::Reports).
//!
//! ```
//! use std::time::Duration;
//! use heeler::WatchdogLayer;
//!
//! // 25 seconds, reports go to the log.
//! let layer = WatchdogLayer::default();
//!
//! // Customised.
//! let reports = heeler::Reports::builder().directory(std::env::temp_dir().join("slow")).build()?;
//! let layer = WatchdogLayer::new(Duration::from_secs(5))
//!     .reports(reports)
//!     .threshold_for(|parts| parts.uri.path().starts_with("/export").then_some(Duration::from_secs(60)))
//!     .ignore(|parts| parts.uri.path() == "/events")
//!     .blocking_after(Duration::from_millis(200))
//!     .watch_bodies();
//! # Ok::<(), heeler::Error>(())
//! ```
//!
//! Use [`watch`] for work that isn't a request, [`upgrade`] for the handler of a WebSocket, and an [`Actor`] for a task
//! that handles one message after another. Work that a request hands to other tasks and threads appears in its
//! report if it is started with [`spawn`], [`spawn_blocking`] or [`watch_child`].
//!
//! # When to use this, and when a timeout
//!
//! A timeout (of `tower` or `tower-http`) ends a request and says nothing about it. The watchdog says where it is and
//! lets it go on. Use both: put the watchdog outside and give it the shorter time.
//!
//! # What a request may notice
//!
//! A capture wakes the task that polls the request, so its future is polled once more than usual.
//!
//! A thread that is inside a long poll gets a signal if it is running. If it sleeps in a system call, it gets none: its
//! stack is copied while it sleeps. If that does not work (a stack that does not unwind from there; on aarch64, calls
//! by `syscall`, such as a `futex`), it gets the signal, too. System calls are then restarted (`SA_RESTART`), except
//! those that never are:
//!
//! | the poll sits in | after a signal |
//! |---|---|
//! | `read`, `write`, `recv`, `accept`, `futex`, `flock`, `waitpid` | restarted by the kernel, unnoticed |
//! | `nanosleep`, `clock_nanosleep` | ends with `EINTR` and the rest of the time; `std::thread::sleep` goes on with that |
//! | `poll`, `ppoll`, `select`, `epoll_wait` | ends with `EINTR` |
//! | `recv` or `send` on a socket with `SO_RCVTIMEO`/`SO_SNDTIMEO` | ends with `EINTR` |
//!
//! A thread is signalled only while it is inside a watched poll, and never again while it stays in the same call. If it
//! runs on a stack of its own there (a fiber's, a coroutine's), it is signalled at most once per poll, unless it
//! computes.
//!
//! The handler runs on the thread's alternate signal stack. A thread without one, or with one that is too small, gets
//! one when it first polls watched work, and keeps it until the thread ends. If that fails, the thread is never
//! signalled.

mod actor;
mod body;
mod future;
mod handle;
mod job;
mod layer;
mod service;
mod upgrade;

pub use actor::{Actor, HandleMessage};
pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use handle::WatchdogHandle;
pub use job::{Watch, watch};
pub use layer::WatchdogLayer;
pub use service::WatchdogService;
pub use upgrade::upgrade;

pub use crate::children::{WatchChild, spawn, spawn_blocking, watch_child};
