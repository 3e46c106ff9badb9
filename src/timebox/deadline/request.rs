//! The requests of client services.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request};

use crate::flag::{DEFAULT_HEADER, Flag, with_query};

/// A request that a [`DeadlineService`](super::DeadlineService) can limit: [`http::Request`], and with the feature
/// `reqwest` also `reqwest::Request`. This trait is sealed.
pub trait Outbound: sealed::Outbound {}

impl<R: sealed::Outbound> Outbound for R {}

/// The parameters and headers that ask a service for a profile. They are removed from calls.
#[derive(Clone, Debug)]
pub(super) struct ProfileFlags {
    pub(super) parameters: Vec<Flag>,
    pub(super) headers: Vec<HeaderName>,
}

impl Default for ProfileFlags {
    fn default() -> Self {
        Self { parameters: vec![Flag::default()], headers: vec![DEFAULT_HEADER] }
    }
}

impl ProfileFlags {
    pub(super) fn remove_from(&self, request: &mut impl sealed::Outbound) {
        for flag in &self.parameters {
            request.change_query(&|query| flag.purge(query));
        }
        for name in &self.headers {
            request.headers_mut().remove(name);
        }
    }
}

pub(super) mod sealed {
    use super::{Duration, HeaderMap};

    /// What the service needs from a request.
    pub trait Outbound {
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
        /// Without port and credentials.
        fn host(&self) -> Option<&str>;
        /// Without the query.
        fn path(&self) -> &str;
        /// A limit that the caller has set for this request by other means than a header.
        fn limit(&self) -> Option<Duration>;
        /// Replaces the query by what `change` returns, if it returns anything.
        fn change_query(&mut self, change: &dyn Fn(&str) -> Option<String>);
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

    fn change_query(&mut self, change: &dyn Fn(&str) -> Option<String>) {
        if let Some(query) = self.uri().query().and_then(change) {
            *self.uri_mut() = with_query(self.uri(), &query);
        }
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

    fn change_query(&mut self, change: &dyn Fn(&str) -> Option<String>) {
        if let Some(query) = self.url().query().and_then(change) {
            self.url_mut().set_query(Some(&*query).filter(|query| !query.is_empty()));
        }
    }
}
