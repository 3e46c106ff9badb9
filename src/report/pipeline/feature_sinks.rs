//! The builder's methods for sinks that come with features.

#[cfg(any(feature = "email", feature = "pyroscope", feature = "webhook"))]
use std::sync::Arc;

use super::builder::ReportsBuilder;
#[cfg(any(feature = "email", feature = "pyroscope", feature = "webhook"))]
use crate::report::delivery::AnySink;

impl ReportsBuilder {
    /// Also mails each report. May be called several times.
    ///
    /// [`build`](Self::build) checks the settings.
    #[cfg(feature = "email")]
    #[cfg_attr(docsrs, doc(cfg(feature = "email")))]
    pub fn email(self, email: crate::Email) -> Self {
        self.any_sink(email.prepare().map(|mailer| AnySink::Async(Arc::new(mailer))))
    }

    /// Also hands each report to OpenTelemetry: see [`OpenTelemetry`](crate::OpenTelemetry).
    #[cfg(feature = "otel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "otel")))]
    pub fn open_telemetry(self, open_telemetry: crate::report::sink::OpenTelemetry) -> Self {
        self.sink(open_telemetry.start())
    }

    /// Also pushes where the time of reported work went to Pyroscope, as a profile of slow traffic: see
    /// [`Pyroscope`](crate::Pyroscope#a-profile-of-slow-traffic). May be called several times.
    ///
    /// [`build`](Self::build) checks the settings.
    #[cfg(feature = "pyroscope")]
    #[cfg_attr(docsrs, doc(cfg(feature = "pyroscope")))]
    pub fn pyroscope(self, pyroscope: crate::Pyroscope) -> Self {
        self.any_sink(pyroscope.prepare().map(|slow| AnySink::Async(Arc::new(slow))))
    }

    /// Also sends each report to Sentry.
    #[cfg(feature = "sentry")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sentry")))]
    pub fn sentry(self, sentry: crate::report::sink::Sentry) -> Self {
        self.sink(sentry)
    }

    /// Also posts each report to a URL: as short JSON, or as a message for Slack and similar services.
    #[cfg(feature = "webhook")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webhook")))]
    pub fn webhook(self, webhook: crate::report::sink::Webhook) -> Self {
        self.any_sink(webhook.prepare().map(|post| AnySink::Async(Arc::new(post))))
    }
}
