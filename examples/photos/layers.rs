//! All that heeler needs in a service: where reports go, layers around the router, and a console beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use heeler::{ProfileLayer, Reports, Rule, TimeboxLayer, WatchdogLayer, authorize};

use crate::settings::{Settings, Tool};

/// No page takes this long, not even a slow one, unless it is stuck for good.
const LIMIT: Duration = Duration::from_secs(120);

/// Puts the tools of `PHOTOS_LAYERS` around the router. Without any tool there are no reports.
pub(crate) fn apply(mut router: Router, settings: &Settings) -> Result<(Router, Option<Reports>), heeler::Error> {
    if settings.tools.is_empty() {
        return Ok((router, None));
    }
    let reports = Reports::builder()
        .directory(&settings.reports)
        // The tour asks for the same slow page again and wants a report each time. In production, leave it at a minute.
        .repeat_after(Duration::ZERO)
        // Where five were slow, the next shows in full where its time goes: it is in the console's history.
        .rule(Rule::slow(5, Duration::from_secs(60)).profile_next());
    // In production: Email::smtp(host, from, to), and the twenty messages an hour that it sends at most.
    #[cfg(feature = "email")]
    let reports = reports.email(heeler::Email::files(settings.messages()).per_hour(1_000));
    let reports = reports.build()?;
    // The watchdog outside, so that it knows of a request before its box does. A profiled request leaves both behind.
    if settings.has(Tool::Timebox) {
        router =
            router.layer(TimeboxLayer::new(LIMIT).limit_for(limit_asked_for).reports(reports.clone()).limit_bodies());
    }
    if settings.has(Tool::Profile) {
        // In production: `authorize::extension` with whatever your own authentication puts into a request.
        let layer = ProfileLayer::new(authorize::bearer(&settings.token.secret)?);
        #[cfg(feature = "remote")]
        let layer = match &settings.remote {
            Some(remote) => layer.remote(remote.clone()),
            None => layer,
        };
        router = router.layer(layer);
    }
    if settings.has(Tool::Watchdog) {
        let watchdog = WatchdogLayer::new(settings.threshold).name("photos").reports(reports.clone());
        router = router.layer(watchdog.watch_bodies());
    }
    Ok((router, Some(reports)))
}

/// Serves the console on an address of its own, and returns that. Another program may have the port.
pub(crate) fn console(reports: &Reports, settings: &Settings) -> Result<SocketAddr, heeler::Error> {
    let console = heeler::console(reports.clone(), authorize::bearer(&settings.token.secret)?);
    console.serve(settings.console).or_else(|_| console.serve((Ipv4Addr::LOCALHOST, 0).into()))
}

/// `/slow/lock?timebox=100`: 100 ms. In production, let clients send a header, which can only shorten your limit:
/// `TimeboxLayer::deadline_header`.
fn limit_asked_for(request: &Parts) -> Option<Duration> {
    let mut pairs = request.uri.query()?.split('&');
    let milliseconds = pairs.find_map(|pair| pair.strip_prefix("timebox="))?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}
