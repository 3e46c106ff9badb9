//! A report as attributes, named after the semantic conventions where these have a name.
//!
//! Everything that came from the request was redacted and escaped when the report was made.

use http::Method;
use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::stacktrace::stacktrace;
use crate::report::{Report, RequestInfo};
use crate::text::time::in_millis;

/// The methods that the conventions know. A second attribute tells the others apart.
const METHODS: [Method; 9] = [
    Method::CONNECT,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];

/// Returns the attributes of the request itself, which a span of the request also has.
pub(super) fn of_request(report: &Report) -> Vec<KeyValue> {
    let Some(request) = &report.request else { return Vec::new() };
    let mut list = Vec::new();
    if METHODS.iter().any(|method| method.as_str() == request.method) {
        list.push(KeyValue::new("http.request.method", request.method.clone()));
    } else {
        list.push(KeyValue::new("http.request.method", "_OTHER"));
        list.push(KeyValue::new("http.request.method_original", request.method.clone()));
    }
    if let Some(route) = &request.route {
        list.push(KeyValue::new("http.route", route.clone()));
    }
    let (host, target) = host_and_target(request);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    list.push(KeyValue::new("url.path", path.to_owned()));
    if let Some(query) = query {
        list.push(KeyValue::new("url.query", query.to_owned()));
    }
    if let Some((address, port)) = host.map(address_and_port) {
        list.push(KeyValue::new("server.address", address.to_owned()));
        list.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    if let Some(version) = request.version.strip_prefix("HTTP/") {
        list.push(KeyValue::new("network.protocol.name", "http"));
        // The conventions write `2` and `3`.
        let version = version.strip_suffix(".0").filter(|version| *version != "1").unwrap_or(version);
        list.push(KeyValue::new("network.protocol.version", version.to_owned()));
    }
    list
}

/// Returns the attributes of what heeler found.
pub(super) fn of_findings(report: &Report) -> Vec<KeyValue> {
    let mut list = vec![
        KeyValue::new("heeler.report.id", report.id.clone()),
        KeyValue::new("heeler.report.update", i64::from(report.update)),
        KeyValue::new("heeler.kind", report.kind.as_str()),
        KeyValue::new("heeler.verdict", report.verdict.as_str()),
        KeyValue::new("heeler.elapsed_ms", in_millis(report.elapsed)),
        KeyValue::new("heeler.busy_ms", in_millis(report.busy)),
        KeyValue::new("heeler.waiting_ms", in_millis(report.waiting)),
        KeyValue::new("heeler.polls", i64::from(report.polls)),
        KeyValue::new("heeler.fingerprint", report.fingerprint.clone()),
        KeyValue::new("heeler.suppressed", i64::try_from(report.suppressed).unwrap_or(i64::MAX)),
    ];
    if !report.incident.is_empty() {
        list.push(KeyValue::new("heeler.incident", report.incident.clone()));
    }
    list.extend(report.threshold.map(|threshold| KeyValue::new("heeler.threshold_ms", in_millis(threshold))));
    list.extend(report.job.clone().map(|job| KeyValue::new("heeler.job", job)));
    if let Some(ending) = &report.ending {
        list.push(KeyValue::new("heeler.ended", ending.how.as_str()));
        list.push(KeyValue::new("heeler.ended_after_ms", in_millis(ending.after)));
        list.extend(ending.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    }
    if !report.notes.is_empty() {
        let notes: Vec<StringValue> = report.notes.iter().map(|note| note.clone().into()).collect();
        list.push(KeyValue::new("heeler.notes", Value::Array(Array::String(notes))));
    }
    if let Some(location) = &report.location {
        list.extend(location.function.clone().map(|function| KeyValue::new("code.function.name", function)));
        list.extend(location.file.clone().map(|file| KeyValue::new("code.file.path", file)));
        list.extend(location.line.map(|line| KeyValue::new("code.line.number", i64::from(line))));
    }
    list.extend(stacktrace(report).map(|stacks| KeyValue::new("code.stacktrace", stacks)));
    if let Some(thread) = &report.thread {
        list.push(KeyValue::new("thread.id", i64::from(thread.id)));
        list.push(KeyValue::new("thread.name", thread.name.clone()));
    }
    list
}

/// Returns the requested host, if the request has one and the report may show it, and the rest of the URI.
fn host_and_target(request: &RequestInfo) -> (Option<&str>, &str) {
    let header = request.headers.iter().find(|(name, _)| name == "host").map(|(_, host)| &**host);
    (header, &request.uri)
}

fn address_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        // An IPv6 address stands in brackets, and contains colons itself.
        Some((address, port)) if !port.ends_with(']') => {
            port.parse().map_or((host, None), |port| (address.trim_matches(['[', ']']), Some(port)))
        }
        _ => (host.trim_matches(['[', ']']), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn texts(list: &[KeyValue]) -> Vec<String> {
        list.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect()
    }

    fn of(change: impl FnOnce(&mut RequestInfo)) -> Vec<String> {
        let mut report = report();
        change(report.request.as_mut().unwrap());
        texts(&of_request(&report))
    }

    #[test]
    fn requests_follow_the_semantic_conventions() {
        let common = ["http.request.method=GET", "http.route=/slow/{what}", "url.path=/slow/lock"];
        let localhost = ["server.address=localhost", "server.port=3000", "network.protocol.name=http"];
        let expected: Vec<&str> = common.into_iter().chain(localhost).chain(["network.protocol.version=1.1"]).collect();
        assert_eq!(of(|_| {}), expected);
        let http2 = of(|request| {
            "HTTP/2.0".clone_into(&mut request.version);
            "/a?b=c&d=e?f".clone_into(&mut request.uri);
            "BREW".clone_into(&mut request.method);
            request.route = None;
            request.headers = vec![("host".to_owned(), "[::1]:8443".to_owned())];
        });
        let expected = [
            "http.request.method=_OTHER",
            "http.request.method_original=BREW",
            "url.path=/a",
            "url.query=b=c&d=e?f",
            "server.address=::1",
            "server.port=8443",
            "network.protocol.name=http",
            "network.protocol.version=2",
        ];
        assert_eq!(http2, expected);
    }

    /// Guards: a path with two slashes is not a host, and without a host there is no address.
    #[test]
    fn odd_targets_give_no_server_address() {
        for version in ["HTTP/1.1", "HTTP/2.0"] {
            let odd = of(|request| {
                version.clone_into(&mut request.version);
                "//evil.example/x".clone_into(&mut request.uri);
                request.headers.clear();
            });
            assert!(odd.contains(&"url.path=//evil.example/x".to_owned()), "{odd:?}");
            assert!(!odd.iter().any(|text| text.starts_with("server.")), "{odd:?}");
        }
        assert_eq!(address_and_port("a:b"), ("a:b", None));
        assert_eq!(address_and_port("[::1]"), ("::1", None));
        assert_eq!(address_and_port(""), ("", None));
    }

    #[test]
    fn findings_become_attributes() {
        let mut report = report();
        report.location = crate::report::assemble::location::locate(&report);
        report.notes = vec!["one".to_owned(), "two".to_owned()];
        let list = texts(&of_findings(&report));
        for expected in [
            "heeler.verdict=waiting",
            "heeler.elapsed_ms=2510",
            "heeler.threshold_ms=2500",
            "heeler.notes=[\"one\",\"two\"]",
            "code.function.name=photos::wait_for_import",
            "code.file.path=examples/photos/slow.rs",
            "code.line.number=88",
        ] {
            assert!(list.iter().any(|text| text == expected), "{expected} in {list:#?}");
        }
        assert!(!list.iter().any(|text| text.starts_with("thread.") || text.starts_with("heeler.job")), "{list:?}");
    }
}
