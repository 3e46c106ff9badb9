//! The requests of client services.

use std::time::Duration;

use http::{HeaderMap, Request};

/// A request that a [`Deadline`](super::Deadline) can limit: [`http::Request`], and with the feature `reqwest` the
/// `reqwest::Request`. Sealed: there are no others.
pub trait Outbound: sealed::Outbound {}

impl<R: sealed::Outbound> Outbound for R {}

pub(super) mod sealed {
    use super::{Duration, HeaderMap};

    /// What the service needs of a request.
    pub trait Outbound {
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
        /// Without port and credentials.
        fn host(&self) -> Option<&str>;
        /// Without the query.
        fn path(&self) -> &str;
        /// A limit that the caller has set for this request by other means than a header.
        fn limit(&self) -> Option<Duration>;
    }
}

impl<B> sealed::Outbound for Request<B> {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn host(&self) -> Option<&str> {
        self.uri().host()
    }

    fn path(&self) -> &str {
        self.uri().path()
    }

    fn limit(&self) -> Option<Duration> {
        None
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Outbound for reqwest::Request {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn host(&self) -> Option<&str> {
        self.url().host_str()
    }

    fn path(&self) -> &str {
        self.url().path()
    }

    fn limit(&self) -> Option<Duration> {
        self.timeout().copied()
    }
}
