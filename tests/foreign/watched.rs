//! Put into axum's own test helpers by `run`: every service that axum's tests serve goes through heeler's layers.

use crate::{body::Body, extract::Request, response::Response};
use std::{convert::Infallible, time::Duration};
use tower::{Layer, ServiceExt};
use tower_service::Service;

/// Slow from the first millisecond on, so that nearly everything is looked at.
const THRESHOLD: Duration = Duration::from_millis(1);

/// Counts reports, and puts each into every form.
struct Render;

impl heeler::Sink for Render {
    fn name(&self) -> &str {
        "render"
    }

    fn deliver(&self, report: &heeler::Report) -> Result<(), heeler::SinkError> {
        assert!(!report.to_text().is_empty() && !report.to_json().is_empty());
        assert!(!report.to_html().is_empty() && !report.to_svg().is_empty());
        println!("heeler reported: {}", report.sentence());
        Ok(())
    }
}

/// The service behind all three layers.
pub(crate) fn watched<S>(
    service: S,
) -> impl Service<Request, Response = Response, Error = Infallible, Future = impl Send> + Clone + Send + 'static
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let reports = heeler::Reports::builder().without_log().repeat_after(Duration::ZERO).sink(Render).build().unwrap();
    let service = heeler::TimeboxLayer::new(Duration::from_secs(3_600)).reports(reports.clone()).layer(service);
    let service = service.map_response(|response| response.map(Body::new));
    let service = heeler::ProfileLayer::new(|_: &http::request::Parts| false).layer(service);
    let service = service.map_response(|response| response.map(Body::new));
    let watchdog = heeler::WatchdogLayer::new(THRESHOLD).reports(reports).watch_bodies();
    watchdog.layer(service).map_response(|response| response.map(Body::new))
}
