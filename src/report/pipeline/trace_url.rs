//! The link from a report to its trace.

use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::text::escape::escape;
use crate::text::traceparent::TraceIds;

const TRACE: &str = "{trace_id}";
const SPAN: &str = "{span_id}";
/// What any browser accepts.
const MAX_TEMPLATE: usize = 2_000;

/// A URL with places for a trace and a span.
#[derive(Debug, Clone)]
pub(in crate::report) struct TraceUrl(String);

impl TraceUrl {
    /// Checks a template.
    ///
    /// # Errors
    ///
    /// Fails if it isn't an `http` or `https` URL of a host, or if the trace's id has no place in it.
    pub(super) fn parse(template: &str) -> Result<Self> {
        let refuse = |why: &str| Error::config(format!("the trace URL `{}` {why}", escape(template, 200)));
        if !template.contains(TRACE) {
            return Err(refuse("has no `{trace_id}`"));
        }
        let Some(rest) = after_scheme(template) else {
            return Err(refuse("begins with neither `https://` nor `http://`"));
        };
        // Neither a user with a password, which everybody would see, nor an id.
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(refuse("has no host, or more than a host and a port in its place"));
        }
        if template.len() > MAX_TEMPLATE {
            return Err(refuse("is too long"));
        }
        if template.chars().any(char::is_control) {
            return Err(refuse("has control characters"));
        }
        Ok(Self(template.to_owned()))
    }

    pub(super) fn link(&self, ids: &TraceIds) -> String {
        encode(&self.0.replace(TRACE, &ids.trace).replace(SPAN, &ids.span))
    }
}

/// Returns whether `url` is one that a report may link to.
pub(in crate::report) fn is_link(url: &str) -> bool {
    after_scheme(url).is_some() && url.bytes().all(is_plain)
}

fn after_scheme(url: &str) -> Option<&str> {
    ["https://", "http://"].into_iter().find_map(|scheme| url.strip_prefix(scheme))
}

/// Returns whether a URL may have this byte as it is.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Encodes what a URL may not have. Links of dashboards are often copied with JSON in them.
fn encode(url: &str) -> String {
    url.bytes().fold(String::with_capacity(url.len()), |mut out, byte| {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> TraceIds {
        TraceIds { trace: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), span: "00f067aa0ba902b7".to_owned() }
    }

    #[test]
    fn the_ids_take_their_places() {
        for (template, link) in [
            ("https://t.example/trace/{trace_id}", "https://t.example/trace/T"),
            ("http://[::1]:16686/trace/{trace_id}?uiFind={span_id}", "http://[::1]:16686/trace/T?uiFind=S"),
            ("https://t.example/#/{trace_id}/{trace_id}", "https://t.example/#/T/T"),
            (
                "https://t.example?q={\"id\":\"{trace_id}\"} ä%20",
                "https://t.example?q=%7B%22id%22:%22T%22%7D%20%C3%A4%20",
            ),
        ] {
            let link = link.replace('T', &ids().trace).replace('S', &ids().span);
            assert_eq!(TraceUrl::parse(template).unwrap().link(&ids()), link);
            assert!(is_link(&link));
        }
    }

    /// Guards: no template of another kind becomes a link, and none shows a password.
    #[test]
    fn bad_templates_are_errors() {
        for (template, why) in [
            ("https://t.example/trace/", "has no `{trace_id}`"),
            ("https://t.example/trace/{traceid}", "has no `{trace_id}`"),
            ("javascript:alert({trace_id})", "begins with neither"),
            ("//t.example/{trace_id}", "begins with neither"),
            ("ftp://t.example/{trace_id}", "begins with neither"),
            (" https://t.example/{trace_id}", "begins with neither"),
            ("https:///{trace_id}", "has no host"),
            ("https://{trace_id}", "has no host"),
            ("https://user:secret@t.example/{trace_id}", "has no host, or more than"),
            ("https://t.example/\n{trace_id}", "control"),
            (&format!("https://t.example/{{trace_id}}{}", "x".repeat(MAX_TEMPLATE)), "too long"),
        ] {
            let error = TraceUrl::parse(template).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{error}");
        }
        for url in ["javascript:alert(1)", "https://t/\"><script>", "https://t/ x", "https://t/ä", ""] {
            assert!(!is_link(url), "{url}");
        }
    }
}
