//! The sinks that come with features, as a builder knows them.

#[cfg(any(feature = "email", feature = "webhook"))]
use std::sync::Arc;

use super::builder::ReportsBuilder;
#[cfg(any(feature = "email", feature = "webhook"))]
use crate::report::delivery::AnySink;

impl ReportsBuilder {
    /// Mails each report, too. May be called several times.
    ///
    /// The settings are checked by [`build`](Self::build).
    #[cfg(feature = "email")]
    #[cfg_attr(docsrs, doc(cfg(feature = "email")))]
    pub fn email(self, email: crate::Email) -> Self {
        self.any_sink(email.prepare().map(|mailer| AnySink::Async(Arc::new(mailer))))
    }

    /// Hands each report to OpenTelemetry, too: see [`OpenTelemetry`](crate::OpenTelemetry).
    #[cfg(feature = "otel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "otel")))]
    pub fn open_telemetry(self, open_telemetry: crate::report::sink::OpenTelemetry) -> Self {
        self.sink(open_telemetry.start())
    }

    /// Sends each report to Sentry, too.
    #[cfg(feature = "sentry")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sentry")))]
    pub fn sentry(self, sentry: crate::report::sink::Sentry) -> Self {
        self.sink(sentry)
    }

    /// Posts each report to a URL, too: as short JSON, or as a message for Slack and its like.
    #[cfg(feature = "webhook")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webhook")))]
    pub fn webhook(self, webhook: crate::report::sink::Webhook) -> Self {
        self.any_sink(webhook.prepare().map(|post| AnySink::Async(Arc::new(post))))
    }
}
