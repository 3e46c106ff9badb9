//! Deadlines for calls to other services: no call without a limit, and the peer is told how much time is left.
//!
//! A service that has two seconds for a request, and calls another, has less than two seconds for that call, and the other
//! service still less for a third. A [`DeadlineLayer`] around a client sees to it: each call may take its default, or what
//! is left of the [timebox](mod@crate::timebox) around if that is less, and the request says so in a header. A service with
//! a [`TimeboxLayer`](crate::TimeboxLayer) that reads the header stops in time by itself, so that nobody works for a caller
//! that has gone.
//!
//! ```
//! use std::time::Duration;
//! use heeler::DeadlineLayer;
//! use http::HeaderName;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::Layer as _;
//!
//! // Gives up after 10 s, or when the box around is up; tells peers of gRPC.
//! let deadlines = DeadlineLayer::new(Duration::from_secs(10));
//!
//! // The same, and tells all others, as Envoy does.
//! let deadlines = deadlines.header(HeaderName::from_static("x-envoy-expected-rq-timeout-ms"));
//!
//! let client = Client::builder(TokioExecutor::new()).build_http::<String>();
//! let client = deadlines.layer(client); // a tower service: `client.ready().await?.call(request).await?`
//! # drop(client);
//! ```
//!
//! | client | how |
//! |---|---|
//! | tonic | `HealthClient::new(deadlines.layer(channel))`, with the generated client of your service |
//! | hyper-util | `deadlines.layer(hyper_util::client::legacy::Client::builder(executor).build_http())` |
//! | reqwest | `deadlines.layer(reqwest::Client::new())`, called with a `reqwest::Request`; needs heeler's feature `reqwest` |
//! | others | any tower service of `http::Request<B>`, whose error fits into a `Box<dyn Error + Send + Sync>` |
//!
//! # When to use this
//!
//! Around every client that a request may wait for. `tower::timeout` and a client's own timeout know nothing of the request
//! that waits, nor does the peer know of them. They can stay: the shortest limit counts. The layer belongs outermost, where
//! the request's own task calls it: behind a `tower::buffer`, it would run in a task that no box is around.
//!
//! # What happens when
//!
//! | | |
//! |---|---|
//! | the call's limit passes | the call is dropped; the error holds [`Interrupted`](crate::Interrupted), labelled `call to` and the host |
//! | the box around expires | it interrupts all of its work, the call with it: the caller never sees an error of the call |
//! | nothing is left already | no call is made; else the same. In a header of milliseconds, less than one is nothing |
//! | the client gives up by itself in the last 2 ms | the same: time was up |
//! | the peer answers in time that its time was up | that answer is the answer |
//! | the caller has set the header, or a `reqwest` timeout, to less | it is kept, and limits the call, too |
//! | … to more, or to garbage, or twice | it is replaced |
//! | boxes are [switched off](crate::timebox::set_enabled) | calls have no limit, and say none |
//! | the box around has a grace | a call that runs may go on during the grace; new ones are refused |
//!
//! No call asks for a profile: `__geordi__` in its query and the header `x-geordi` do not go out, whatever was passed on to
//! the client. [Why](crate::authorize#gateways).
//!
//! [`Interrupted::find`](crate::Interrupted::find) finds the interruption in the error, also in the `tonic::Status` that a
//! generated client makes of it.
//!
//! A call begins when the service is called (waiting until it is ready is not part of it) and ends with the head of the
//! response. Its body is limited by the box around alone: put a `timebox` around what reads it where there may be none.

mod future;
mod layer;
mod request;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::DeadlineLayer;
pub use self::request::Outbound;
pub use self::service::DeadlineService;
