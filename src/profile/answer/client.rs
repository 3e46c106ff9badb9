//! Who asks, and how an answer is adapted to them.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response};

/// The client, as far as an answer depends on it.
#[derive(Debug, Clone)]
pub(in crate::profile) struct Client {
    pub(in crate::profile) method: Method,
    /// Whether it is a browser that shows a page.
    pub(in crate::profile) shows_pages: bool,
    pub(in crate::profile) sends_body: bool,
}

impl Client {
    pub(in crate::profile) fn of(head: &Parts, sends_body: bool) -> Self {
        Self { method: head.method.clone(), shows_pages: accepts_html(&head.headers), sends_body }
    }

    /// Returns whether it asks without changing anything.
    pub(in crate::profile) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Returns the answer as it is sent: without its body to HEAD.
    pub(in crate::profile) fn fit(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        let length = response.body().len();
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        if self.method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }
}

/// Returns whether `text/html` is named explicitly.
fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/html"));
        let refused = |part: &str| {
            let weight = part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            weight.and_then(|(_, weight)| weight.trim().parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
        };
        is_html && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a browser accepts `text/html`. A client that accepts anything is not a browser.
    #[test]
    fn only_browsers_ask_for_html() {
        for (accept, is) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML;level=1 ; q=0.5", true),
            ("*/*", false),
            ("text/*", false),
            ("", false),
            ("text/html;q=0", false),
            ("text/html; Q=0.000, */*", false),
            ("text/htmlx", false),
            ("application/json;x=text/html", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(accepts_html(&headers), is, "{accept}");
        }
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
