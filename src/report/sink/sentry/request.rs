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

/// Returns the caller's trace, or else one for this report's events alone.
pub(super) fn trace(report: &Report, event: Uuid) -> TraceContext {
    let bytes = *event.as_bytes();
    let mut span = [0; 8];
    span.copy_from_slice(&bytes[..8]);
    let caller = report.request.as_ref().and_then(|asked| header(asked, "traceparent")).and_then(traceparent);
    let (trace_id, parent_span_id) = match caller {
        Some((trace, parent)) => (trace, Some(parent)),
        None => (TraceId::from(bytes), None),
    };
    TraceContext { trace_id, span_id: SpanId::from(span), parent_span_id, ..TraceContext::default() }
}

/// Parses `00-<trace>-<span>-<flags>`, from W3C Trace Context. All zeros mean nothing.
fn traceparent(value: &str) -> Option<(TraceId, SpanId)> {
    let mut parts = value.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let known = version.len() == 2 && version != "ff" && parts.next().is_some();
    let zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
    if !known || zero(trace) || zero(span) {
        return None;
    }
    Some((trace.parse().ok()?, span.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report as example;

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

    #[test]
    fn reads_only_a_valid_traceparent() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (trace, span) = traceparent(good).unwrap();
        assert_eq!(trace.to_string() + &span.to_string(), "4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7");
        let bad = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
            "00-xxf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00---",
        ];
        for value in bad {
            assert!(traceparent(value).is_none(), "{value}");
        }
    }
}
