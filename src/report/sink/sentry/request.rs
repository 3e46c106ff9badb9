//! The request in Sentry's form, and the trace it belongs to.

use sentry::protocol::{Request, SpanId, TraceContext, TraceId, Url, Uuid};

use crate::report;
use crate::report::Report;

/// Returns what the report may show of the request. `here` is used where the client did not name a host.
pub(super) fn request(asked: &report::RequestInfo, here: &str) -> Request {
    let (path, query) = match asked.uri.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (&*asked.uri, None),
    };
    Request {
        url: url(path, header(asked, "host").unwrap_or(here)).or_else(|| url(path, here)),
        method: Some(asked.method.clone()),
        query_string: query,
        headers: asked.headers.iter().cloned().collect(),
        ..Request::default()
    }
}

/// Returns an absolute URL, as Sentry requires. The client's scheme isn't known, and what it sends as the host may be
/// anything.
fn url(path: &str, host: &str) -> Option<Url> {
    if !path.starts_with('/') {
        let mut absolute = Url::parse(path).ok().filter(Url::has_host)?;
        // Neither can fail for a URL with a host.
        let _ = absolute.set_username("");
        let _ = absolute.set_password(None);
        return Some(absolute);
    }
    let mut url = Url::parse(&format!("http://{host}/")).ok()?;
    let nothing_else = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !nothing_else || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.set_path(path);
    Some(url)
}

fn header<'a>(asked: &'a report::RequestInfo, name: &str) -> Option<&'a str> {
    asked.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// Returns the trace that the work belongs to, or else one for this report's events alone.
pub(super) fn trace(report: &Report, event: Uuid) -> TraceContext {
    let bytes = *event.as_bytes();
    let mut span = [0; 8];
    span.copy_from_slice(&bytes[..8]);
    let known = report.trace_ids().and_then(|ids| Some((ids.trace.parse().ok()?, ids.span.parse().ok()?)));
    let (trace_id, parent_span_id): (TraceId, Option<SpanId>) = match known {
        Some((trace, parent)) => (trace, Some(parent)),
        None => (TraceId::from(bytes), None),
    };
    TraceContext { trace_id, span_id: SpanId::from(span), parent_span_id, ..TraceContext::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{report as example, traced};

    fn with(uri: &str, host: Option<&str>) -> Request {
        let mut asked = example().request.unwrap();
        asked.uri = uri.to_owned();
        asked.headers = host.map(|host| ("host".to_owned(), host.to_owned())).into_iter().collect();
        request(&asked, "web1")
    }

    #[test]
    fn urls_are_made_from_the_host_header() {
        let table = [
            ("/slow?tour=4", Some("photos.example:81"), "http://photos.example:81/slow"),
            ("/slow", None, "http://web1/slow"),
            ("/slow", Some("evil/x?y"), "http://web1/slow"),
            ("/slow", Some("user:hunter2@evil"), "http://web1/slow"),
            ("/slow", Some(""), "http://web1/slow"),
            ("/a b#c", Some("[::1]"), "http://[::1]/a%20b%23c"),
            ("//evil.example/x", Some("good"), "http://good//evil.example/x"),
            ("https://user:hunter2@proxied.example/x?y=z", Some("h"), "https://proxied.example/x"),
        ];
        for (uri, host, expected) in table {
            assert_eq!(with(uri, host).url.map(String::from).as_deref(), Some(expected), "{uri} {host:?}");
        }
        assert_eq!(with("*", None).url, None);
        assert_eq!(with("example.com:443", None).url, None);
        assert_eq!(with("/slow?tour=4?5", None).query_string.as_deref(), Some("tour=4?5"));
    }

    /// Guards: the trace is that of the work, with the work's span as the event's parent, and a trace of its own if
    /// there is none. What isn't an id is no reason to fail.
    #[test]
    fn the_trace_is_the_works() {
        let mut report = traced();
        let of_work = trace(&report, Uuid::from_u128(7));
        assert_eq!(of_work.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(of_work.parent_span_id.map(|span| span.to_string()).as_deref(), Some("00f067aa0ba902b7"));
        report.span_id = Some("x".to_owned());
        let own = trace(&report, Uuid::from_u128(7));
        assert_eq!((own.trace_id.to_string(), own.parent_span_id), (format!("{:032x}", 7), None));
        report.trace_id = None;
        assert_eq!(trace(&report, Uuid::from_u128(8)).trace_id.to_string(), format!("{:032x}", 8));
    }
}
