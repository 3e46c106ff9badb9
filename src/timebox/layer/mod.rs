//! Limits the time of each request of a service.
//!
//! [`TimeboxLayer`] goes around any `Service<http::Request<_>>`: axum, hyper, tonic. A request that has no answer when
//! its time is up is stopped: the service's future is dropped, which releases what it holds. The client is told, and a
//! report says where the request was.
//!
//! ```
//! use std::time::Duration;
//! use heeler::TimeboxLayer;
//!
//! // 30 seconds, then a 503; reports go to the log.
//! let layer = TimeboxLayer::new(Duration::from_secs(30));
//!
//! // Customised.
//! let layer = TimeboxLayer::new(Duration::from_secs(5))
//!     .reports(heeler::Reports::default())
//!     .limit_for(|parts| parts.uri.path().starts_with("/export").then_some(Duration::from_secs(60)))
//!     .deadline_header(http::HeaderName::from_static("x-deadline-ms"))
//!     .status(http::StatusCode::GATEWAY_TIMEOUT)
//!     .limit_bodies();
//! ```
//!
//! # What a client hears
//!
//! An HTTP client gets a 503 with a problem document ([RFC 9457]) that names the limit and nothing else, or the
//! response that [`respond`](TimeboxLayer::respond) makes. A gRPC client gets the status `DEADLINE_EXCEEDED`. A
//! response whose body is cut off ([`limit_bodies`](TimeboxLayer::limit_bodies)) ends with an error, which resets the
//! stream or closes the connection. In gRPC it ends with the status.
//!
//! Layers further out find the [`Interrupted`](crate::Interrupted) in the extensions of the response.
//!
//! # The caller's deadline
//!
//! A gRPC request may say in `grpc-timeout` how long its caller waits. Any request may say so in a header that you
//! [name](TimeboxLayer::deadline_header). The smaller of that and the limit counts. A value that isn't valid is
//! ignored. With a deadline of zero, a request gets one poll. (tonic's own server reads `grpc-timeout`, too. Which of
//! the two acts first is up to chance.)
//!
//! # Differences from `tower_http::timeout`
//!
//! `TimeoutLayer` of `tower-http` ends a request with only a status, and leaves no trace of where it was. It needs
//! tokio's timer, and cannot end a request that uses up tokio's budget without a pause. Here
//! [`checkpoint`](crate::checkpoint), [`remaining`](crate::timebox::remaining) and other boxes within the request know
//! its limit. With `TimeoutLayer` they do not.
//!
//! # Beside the watchdog
//!
//! Put the watchdog outside and give it less time than the box. It then reports a late request while the request can
//! still be captured, and the box ends a request that does not come back. A watchdog whose threshold is not below the
//! limit never sees a slow request, and the log says so once.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

mod answer;
mod body;
mod future;
mod service;
mod settings;

pub use self::body::ResponseBody;
pub use self::future::ResponseFuture;
pub use self::service::TimeboxService;
pub use self::settings::TimeboxLayer;
