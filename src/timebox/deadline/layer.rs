//! The settings of deadlines for calls, and the service they make.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use super::DeadlineService;
use super::request::ProfileFlags;
use crate::error::Error;
use crate::flag::Flag;
use crate::log::Clamp;
use crate::report;

/// Gives every call of a client service a limit, and tells the peer. See the [module](mod@crate::timebox::deadline).
///
/// No call asks its peer for a profile: heeler removes the parameter `__geordi__` and the header `x-geordi` from its
/// request.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    default: Duration,
    header: Option<HeaderName>,
    flags: Arc<ProfileFlags>,
}

impl DeadlineLayer {
    /// The longest possible limit: a day. No call runs without a limit.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Creates a layer that gives each call `default`, or what is left of the box around it if that is less.
    ///
    /// More than a [day](Self::LONGEST), such as [`Duration::MAX`], counts as a day, and the log says so once. With
    /// zero no call is ever made.
    #[must_use]
    pub fn new(default: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("DeadlineLayer::new");
        Self { default: CLAMP.at_most(default, Self::LONGEST), header: None, flags: Arc::default() }
    }

    /// Sets the header that tells the peer of a call how many milliseconds are left, as Envoy does with
    /// `x-envoy-expected-rq-timeout-ms`. gRPC calls have `grpc-timeout` instead. Defaults to no header.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// Also removes this parameter from the query of each call, for peers whose
    /// [`ProfileLayer::parameter`](crate::ProfileLayer::parameter) is not `__geordi__`: see
    /// [gateways](crate::authorize#gateways).
    ///
    /// # Errors
    ///
    /// Returns an error if no [`ProfileLayer`](crate::ProfileLayer) can have that parameter.
    pub fn strip_profile_parameter(mut self, name: impl AsRef<str>) -> Result<Self, Error> {
        Arc::make_mut(&mut self.flags).parameters.push(Flag::new(name.as_ref())?);
        Ok(self)
    }

    /// Also removes this header from each call, for peers whose [`ProfileLayer::header`](crate::ProfileLayer::header) is not
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
        // Here, and not in the first call, because it calibrates the clock.
        report::start_watching();
        DeadlineService::new(inner, self.default, self.header.clone(), Arc::clone(&self.flags))
    }
}
