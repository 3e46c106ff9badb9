//! Gives every call to another service a limit, and tells the peer how much time is left.
//!
//! If a service has two seconds for a request and calls another one, it has less than two seconds for that call, and
//! the other service has still less for a third. A [`DeadlineLayer`] around a client enforces this. Each call may take
//! its default, or what is left of the [timebox](mod@crate::timebox) around if that is less, and a header of the
//! request says so. A service with a [`TimeboxLayer`](crate::TimeboxLayer) that reads the header stops in time by
//! itself, so that it does not work for a caller that has gone.
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
//! Use it around every client that a request may wait for. `tower::timeout` and a client's own timeout know nothing of
//! the request that waits, and the peer knows nothing of them. They can stay, because the shortest limit counts. Put
//! this layer outermost, where the request's own task calls it. Behind a `tower::buffer`, it would run in a task that
//! has no box around.
//!
//! # What happens when
//!
//! | | |
//! |---|---|
//! | the call's limit passes | the call is dropped; the error holds [`Interrupted`](crate::Interrupted), labelled `call to` and the host |
//! | the box around expires | it interrupts all of its work, including the call: the caller never sees an error of the call |
//! | no time is left at the start | no call is made; otherwise the same. In a header of milliseconds, less than one counts as nothing |
//! | the client gives up by itself in the last 2 ms | the same: time was up |
//! | the peer answers in time that its time was up | the caller gets that answer |
//! | the caller has set the header, or a `reqwest` timeout, to less | it is kept, and limits the call, too |
//! | … to more, or to garbage, or twice | it is replaced |
//! | boxes are [switched off](crate::timebox::set_enabled) | calls have no limit, and tell the peer none |
//! | the box around has a grace | a running call may go on during the grace; new ones are refused |
//!
//! No call asks for a profile: `__geordi__` in its query and the header `x-geordi` are removed, whatever was passed to
//! the client. [Why](crate::authorize#gateways).
//!
//! [`Interrupted::find`](crate::Interrupted::find) finds the interruption in the error, also in the `tonic::Status`
//! that a generated client turns it into.
//!
//! A call begins when the service is called (waiting until it is ready is not part of it) and ends with the head of the
//! response. Only the box around limits the response's body. If there may be none, put a `timebox` around the code that
//! reads the body.

mod future;
mod layer;
mod request;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::DeadlineLayer;
pub use self::request::Outbound;
pub use self::service::DeadlineService;
