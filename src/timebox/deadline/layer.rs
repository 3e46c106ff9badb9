//! The settings of deadlines for calls, and the service they make.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::DeadlineService;
use super::request::ProfileFlags;
use crate::error::Error;
use crate::flag::Flag;
use crate::report;

/// Gives every call of a client service a limit, and tells the peer. See the [module](mod@crate::timebox::deadline).
///
/// No call asks its peer for a profile: the parameter `__geordi__` and the header `x-geordi` are taken out of its request.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    default: Duration,
    header: Option<HeaderName>,
    flags: Arc<ProfileFlags>,
}

impl DeadlineLayer {
    /// The longest limit there is: a day. No call runs without one.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Calls may take `default`, or what is left of the box around if that is less.
    ///
    /// More than a [day](Self::LONGEST), also [`Duration::MAX`], counts as a day. With zero no call is ever made.
    #[must_use]
    pub fn new(default: Duration) -> Self {
        Self { default: default.min(Self::LONGEST), header: None, flags: Arc::default() }
    }

    /// Tells the peer of a call how many milliseconds are left, in this header, as Envoy does in
    /// `x-envoy-expected-rq-timeout-ms`. Calls of gRPC have `grpc-timeout` in its place. By default there is none.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// Also takes this parameter out of the query of each call, for peers whose
    /// [`ProfileLayer::parameter`](crate::ProfileLayer::parameter) is not `__geordi__`: see
    /// [gateways](crate::authorize#gateways).
    ///
    /// # Errors
    ///
    /// If no [`ProfileLayer`](crate::ProfileLayer) can have that parameter.
    pub fn strip_profile_parameter(mut self, name: impl AsRef<str>) -> Result<Self, Error> {
        Arc::make_mut(&mut self.flags).parameters.push(Flag::new(name.as_ref())?);
        Ok(self)
    }

    /// Also takes this header out of each call, for peers whose [`ProfileLayer::header`](crate::ProfileLayer::header) is not
    /// `x-geordi`: see [gateways](crate::authorize#gateways).
    #[must_use]
    pub fn strip_profile_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.flags).headers.push(name);
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        // Here, and not in the first call: it calibrates the clock.
        report::start_watching();
        DeadlineService::new(inner, self.default, self.header.clone(), Arc::clone(&self.flags))
    }
}
