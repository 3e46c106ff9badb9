//! Hands events to the application's own client.

use std::fmt;
use std::sync::Arc;

use sentry::Hub;

use super::event::event;
use crate::report::{Report, Sink};

/// Sends reports to [Sentry](https://sentry.io), through the client that the application has set up.
///
/// ```
/// use heeler::{Reports, Sentry};
///
/// # let dsn = "";
/// // let dsn = "https://public@sentry.example.com/1";
/// let _guard = sentry::init(dsn);
///
/// let reports = Reports::builder().sentry(Sentry::new()).build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
///
/// The application itself depends on the crate `sentry`, of the same version (0.49), and chooses its transport there.
/// heeler's feature doesn't bring one.
///
/// # What an event contains
///
/// | in Sentry | in the report |
/// |---|---|
/// | issue | the [fingerprint](Report::fingerprint): one issue per place and route |
/// | title and message | the kind, the verdict, and the [sentence](Report::sentence) |
/// | level | warning; info for an abandoned request |
/// | exception | the stack that matters most, with the application's frames marked, and source lines if available |
/// | threads | every stack of the capture: branches, child work, culprits |
/// | transaction | method and route, or the job's name |
/// | tags | `verdict`, `kind`, `route`, `job` |
/// | request | method, URL, query and headers, as far as the report may show them |
/// | context `heeler` | times in milliseconds, where the time went, spans, notes |
/// | trace | the [work's](Report::trace_id), as a child of its span |
///
/// Release, environment and server name are those of the client. If it has none, the report's
/// [service](crate::ReportsBuilder::service) and host are used. Tags, contexts and the user of the hub's scope are
/// added as in every event. Its breadcrumbs and attachments are not, because they are about something else. Sessions
/// (release health) are left alone.
///
/// An [update](Report::update) is an event of its own in the same issue, except the last one, which says how the work has
/// [ended](Report::ending) and is not sent. An event's id is made of the report's id and
/// update, so a report that is sent twice is one event.
///
/// # What happens when
///
/// Handing an event over doesn't wait for the network. Sentry's client sends on a thread of its own, and samples,
/// filters (`before_send`) and drops as its options say. An event that it drops isn't a failure to heeler. Nor is a
/// client without a DSN, which is how Sentry is switched off. [`Reports::flush`](crate::Reports::flush) waits until the
/// events are handed over, and the guard of `sentry::init` sends them when it is dropped: flush first, then drop the
/// guard.
///
/// # Use your own hub
///
/// A client beside the application's main one, with tags of its own:
///
/// ```
/// use std::sync::Arc;
///
/// use heeler::{Reports, Sentry};
///
/// let options = sentry::ClientOptions::new().dsn("https://public@sentry.example.com/2");
/// let client = sentry::Client::from(sentry::apply_defaults(options));
/// let mut scope = sentry::Scope::default();
/// scope.set_tag("team", "photos");
/// let hub = sentry::Hub::new(Some(Arc::new(client)), Arc::new(scope));
/// let reports = Reports::builder().sentry(Sentry::with_hub(Arc::new(hub))).build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
#[derive(Clone)]
pub struct Sentry {
    hub: Arc<Hub>,
}

impl Sentry {
    /// Sends through the client of the main hub, as `sentry::init` sets it up.
    ///
    /// Make this after `sentry::init`, or at least on the same thread. The client is looked up for each report. Without
    /// one, reports wait, and the log says so.
    #[must_use]
    pub fn new() -> Self {
        // Done now and not at the first report: the thread that asks first has the main hub forever, and that must not
        // be ours.
        Self { hub: Hub::main() }
    }

    /// Sends through this hub's client, with what its scope adds.
    #[must_use]
    pub const fn with_hub(hub: Arc<Hub>) -> Self {
        Self { hub }
    }
}

impl Default for Sentry {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Sentry {
    fn name(&self) -> &str {
        "sentry"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        if report.ending.is_some() {
            // The issue has everything already.
            return Ok(());
        }
        let Some(client) = self.hub.client() else {
            return Err("there is no Sentry client: `sentry::init` was not called, or on another thread".into());
        };
        if client.dsn().is_none() {
            return Ok(());
        }
        if !client.is_enabled() {
            return Err("the Sentry client was closed, or has no transport".into());
        }
        // A copy, because changing the application's scope, even for a moment, could lose what it sets meanwhile.
        let mut scope = Hub::new_from_top(&self.hub).configure_scope(|scope| scope.clone());
        // Breadcrumbs of the thread that set Sentry up did not lead to this report.
        scope.clear_breadcrumbs();
        scope.set_level(None);
        scope.set_span(None);
        if let Some(event) = scope.apply_to_event(event(report, client.options())) {
            // Without the scope, which would count the application's session as one with an error.
            client.capture_event(event, None);
        }
        Ok(())
    }
}

impl fmt::Debug for Sentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A DSN may contain a secret key.
        f.debug_struct("Sentry").field("client", &self.hub.client().is_some()).finish_non_exhaustive()
    }
}
