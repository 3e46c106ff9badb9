//! Profiles on other machines: requests go to workers through a queue, and profiles come back through a store.
//!
//! A profile disturbs the process that it runs in, and production traffic disturbs the profile. With the feature
//! `apalis-redis` or `apalis-postgres`, workers make profiles elsewhere: processes that run the same service and have no
//! clients. Those who ask do not notice. The page shows how far the request is, any front end has the result, and a client
//! that waits gets it in its form. With the header, the answer is `202 Accepted` and says where the profile will be. The
//! response is in the profile.
//!
#![cfg_attr(feature = "apalis-redis", doc = "```no_run")]
#![cfg_attr(not(feature = "apalis-redis"), doc = "```ignore")]
//! use std::sync::Arc;
//! use axum::Router;
//! use heeler::{ProfileLayer, authorize};
//! use heeler::profile::ProfileStore;
//! use heeler::profile::remote::{JobQueue, Remote, Secret, Worker};
//! use object_store::ObjectStore;
//!
//! # fn routes() -> Router { Router::new() }
//! # async fn run(bucket: Arc<dyn ObjectStore>, redis: &str, key: &str, token: String, is_worker: bool)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! // The same on all instances.
//! let store = ProfileStore::object_store(bucket, "profiles");
//! let remote = Remote::new(JobQueue::redis(redis)?, store, Secret::from_base64(key)?)?;
//! let service: Router = routes().layer(ProfileLayer::new(authorize::bearer(token)?).remote(remote.clone()));
//!
//! if is_worker {
//!     Worker::new(remote).serve(service).await?;
//! } else {
//!     axum::serve(tokio::net::TcpListener::bind("0.0.0.0:8080").await?, service).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The queue carries an id and nothing else. [apalis](https://docs.rs/apalis) keeps it, in Redis or Postgres. Requests,
//! profiles and progress are kept in the store, sealed with XChaCha20-Poly1305 under the [`Secret`]: a request has
//! its sender's credentials in it. A sealed request belongs to one id. A worker refuses it if it was altered, if it is older
//! than [`max_wait`](Remote::max_wait) (and five minutes, by which the clocks of machines may differ), or if it has run or
//! ended before, also when somebody puts a copy back. Somebody who can also *delete* objects, the claims among them, can
//! have a request run again within that time. The authorizer is asked on the front end, by the worker's own service, and
//! whenever somebody looks. What is not sealed: the wish to cancel, which is an empty object, and claims, which have the names of
//! hosts.
//!
//! The worker's service runs as a whole: layers around the profiler see the request, too. It has the headers and the URI that
//! the front end's profiler saw (behind nested routers of axum, the original URI). Extensions that a server adds, such as the
//! client's address, are missing. The body arrives in one piece, as a `Full<Bytes>`, without trailers. An axum `Router` takes
//! that as it is. A service for another type of body needs a `map_request`.
//!
//! Workers decide by their own clocks how long another one has been silent. Pages do not: on a front end whose clock is ahead
//! by more than [`lost_after`](Remote::lost_after), they say too early that a worker is gone. Such a
//! front end also ends requests that wait for a worker as much too early: what it says of them is made true. In Redis, apalis writes heartbeats by
//! the clocks of the workers: if these differ by about as much, workers lose the queue again and again. Nothing runs twice then,
//! and the log says whose clock is wrong. Postgres has a clock of its own.
//!
//! In a directory, claims leave empty folders behind, unless the `LocalFileSystem` is made `with_automatic_cleanup(true)`.
//!
//! | what happens | what the asker sees | test |
//! |---|---|---|
//! | the queue or the store is down, slow or full when a profile is asked for | the status 503 within half a minute, a sentence, and `Retry-After`. Nothing runs | `traps::what_fails_is_said_soon` |
//! | the store hangs when somebody looks how far it is | 503 and `Retry-After` after ten seconds | `traps::a_store_that_hangs_keeps_nobody_waiting` |
//! | too many requests wait ([`max_queued`](Remote::max_queued)); the body is too long ([`max_request_bytes`](Remote::max_request_bytes)) | 429; 413 | `traps::bounds_are_kept` |
//! | there is no worker | "Waiting for a worker", and after `max_wait` why there is no profile. It does not run any more | `traps::what_nobody_has_taken_does_not_run_later` |
//! | somebody cancels while it waits | "Cancelled". Nothing runs | `traps::a_request_that_waits_can_be_cancelled` |
//! | a worker is killed | a GET or HEAD runs once more, on another one. Others may have changed something: the page says that the worker is gone | `killed::a_killed_party_leaves_a_result_or_a_reason` |
//! | the queue is killed | what is in it runs when it is back, if it keeps that on a disk (Redis: `appendonly yes`). What runs already goes on | the same |
//! | a front end is killed while it sends | the connection breaks. Nothing runs, unless the id was in the queue already | the same |
//! | the store fails when the request is over | the profile is kept for ten seconds, and the reason for as long as it takes. The request does not run again | `partition::what_has_run_does_not_run_again` |
//! | the queue's answer is lost | if no worker has the request, 503, and none will. Otherwise it goes on as ever | `partition::an_answer_of_the_queue_that_is_lost_decides_nothing` |
//! | a worker has another secret | it logs that, and leaves the request to others | `traps::a_worker_with_another_secret_leaves_jobs_to_others` |
//! | the worker's service refuses the sender, or answers before the request comes to the profiler | that | `traps::the_workers_service_decides_for_itself` |
//! | the queue hands out an id twice | nothing: it runs once | `traps::an_id_that_comes_twice_runs_once` |
//! | the store does not support conditional writes (`If-None-Match`) | 503, an error in the log at the start, and [`Worker::serve`] fails | `traps::a_store_without_conditions_is_refused` |
//!
//! The tests are in `tests/remote`. `cargo test --all-features --test remote -- --ignored` kills each party at each of its
//! steps: 46 cases.

mod consume;
mod delivery;
#[cfg(feature = "apalis-postgres")]
mod postgres;
mod queue;
mod receive;
#[cfg(feature = "apalis-redis")]
mod redis;
mod request;
mod send;
mod settings;
mod take;
mod wait;
mod worker;

pub use super::seal::Secret;
pub(super) use delivery::Delivery;
pub use queue::JobQueue;
pub(super) use receive::receive;
pub(super) use send::send;
pub use settings::Remote;
pub use worker::Worker;
