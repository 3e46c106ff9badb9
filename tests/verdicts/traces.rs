//! The trace that a report belongs to, from the request's `traceparent`.

use heeler::{Report, WatchdogLayer};
use http::Request;
use tower::{Layer as _, ServiceExt as _};

use super::common::{beside_others, collect_with};
use super::{Driven, ms, service_of};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// The report about a request with that header.
fn reported(
    header: &str,
    change: impl FnOnce(heeler::report::ReportsBuilder) -> heeler::report::ReportsBuilder,
) -> Report {
    let (seen, reports) = collect_with(change);
    let layer = WatchdogLayer::new(ms(50)).reports(reports);
    let driven = Driven::new(1);
    let request = Request::get("/slow").header("host", "h").header("traceparent", header).body(()).unwrap();
    driven.spawn(layer.layer(service_of(std::future::pending())).oneshot(request));
    seen.first()
}

/// Guards: the ids are in everything that is made of a report, and so is the link.
#[test]
fn a_report_belongs_to_the_callers_trace() {
    let _guard = beside_others();
    let header = format!("00-{TRACE}-{SPAN}-01");
    let report = reported(&header, |builder| builder.trace_url("https://tracing.example/{trace_id}?span={span_id}&x"));
    assert_eq!((report.trace_id.as_deref(), report.span_id.as_deref()), (Some(TRACE), Some(SPAN)));
    let url = format!("https://tracing.example/{TRACE}?span={SPAN}&x");
    assert_eq!(report.trace_url.as_deref(), Some(&*url));
    let (json, text, html) = (report.to_json(), report.to_text(), report.to_html());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["trace_id"], &json["span_id"], &json["trace_url"]),
        (&TRACE.into(), &SPAN.into(), &url.clone().into())
    );
    assert!(text.contains(&format!("  trace       {TRACE}, span {SPAN}\n  trace at    {url}\n")), "{text}");
    let escaped = url.replace('&', "&amp;");
    assert!(html.contains(&format!("<a href=\"{escaped}\">{escaped}</a>")), "{html}");
}

/// Guards: the ids don't depend on which headers may be shown, and the header isn't shown because of them.
#[test]
fn the_ids_are_known_without_the_header() {
    let _guard = beside_others();
    let header = format!("00-{TRACE}-{SPAN}-00");
    for allowed in [&["host"][..], &[]] {
        let report = reported(&header, |builder| builder.allow_headers(allowed.iter().copied()));
        assert_eq!((report.trace_id.as_deref(), report.trace_url), (Some(TRACE), None));
        let shown: Vec<_> = report.request.unwrap().headers.into_iter().map(|(name, _)| name).collect();
        assert_eq!(shown, allowed);
    }
}

/// Guards: what a client sends in place of a traceparent is in no report, and no link.
#[test]
fn an_invalid_header_is_no_trace() {
    let _guard = beside_others();
    for header in [format!("00-{}-{SPAN}-01", "0".repeat(32)), format!("00-{TRACE}-{SPAN}-01-x"), "x".to_owned()] {
        let report = reported(&header, |builder| builder.trace_url("https://tracing.example/{trace_id}"));
        assert_eq!((report.trace_id.as_ref(), report.span_id.as_ref(), report.trace_url.as_ref()), (None, None, None));
        assert!(!report.to_text().contains("trace at") && report.to_json().contains("\"trace_id\": null"));
    }
}
