//! All that heeler asks of a service: where reports go, and a layer around the router.

use std::time::Duration;

use axum::Router;
use heeler::{Reports, WatchdogLayer};

use crate::settings::{Settings, Tool};

/// Puts the tools of `PHOTOS_LAYERS` around the router. Without any there are no reports.
pub(crate) fn apply(mut router: Router, settings: &Settings) -> Result<(Router, Option<Reports>), heeler::Error> {
    if settings.tools.is_empty() {
        return Ok((router, None));
    }
    let reports = Reports::builder()
        .directory(&settings.reports)
        // The tour asks for the same slow page again and wants a report each time. In production, leave it at a minute.
        .repeat_after(Duration::ZERO);
    // In production: Email::smtp(host, from, to), and the twenty letters an hour that it sends at most.
    #[cfg(feature = "email")]
    let reports = reports.email(heeler::Email::files(settings.letters()).per_hour(1_000));
    let reports = reports.build()?;
    for tool in &settings.tools {
        router = match tool {
            Tool::Watchdog => router.layer(WatchdogLayer::new(settings.threshold).reports(reports.clone()).body(true)),
        };
    }
    Ok((router, Some(reports)))
}
