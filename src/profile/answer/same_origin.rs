//! Whether a request was made by a page of somebody else's: such a page can have a browser send it with the user's cookies.

use http::header::{HOST, ORIGIN, REFERER};
use http::request::Parts;
use http::{HeaderName, Uri};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether no other site has caused it: it comes from the application's own pages, from the address bar, or from something
/// that is no browser.
pub(super) fn is_own_start(head: &Parts) -> bool {
    match site(head) {
        Some(site) => site == b"same-origin" || site == b"none",
        None => speaks_of_us(head, &ORIGIN) && speaks_of_us(head, &REFERER),
    }
}

/// The same for what must come from the application's own pages, where a browser sends it.
pub(super) fn is_own_action(head: &Parts) -> bool {
    match site(head) {
        Some(site) => site == b"same-origin",
        None => speaks_of_us(head, &ORIGIN) && speaks_of_us(head, &REFERER),
    }
}

/// What a browser says. Over plain HTTP to another machine it says nothing.
fn site(head: &Parts) -> Option<&[u8]> {
    let mut said = head.headers.get_all(SEC_FETCH_SITE).iter().map(http::HeaderValue::as_bytes);
    let first = said.next()?;
    // More than one is nobody's.
    Some(if said.next().is_some() { b"" } else { first })
}

/// Whether the origin or the page that a header names is this host's, or none is named.
fn speaks_of_us(head: &Parts, name: &HeaderName) -> bool {
    let Some(value) = head.headers.get(name) else { return true };
    let Some(theirs) = value.to_str().ok().and_then(|value| value.parse::<Uri>().ok()) else { return false };
    let Some(theirs) = theirs.authority() else { return false };
    let of_header = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ours = [head.uri.authority().map(http::uri::Authority::as_str), of_header(&HOST), of_header(&X_FORWARDED_HOST)];
    ours.into_iter().flatten().any(|ours| ours.eq_ignore_ascii_case(theirs.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/a?__geordi__").header("host", "app.example.com:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Guards: what other sites cause is told from the rest by what browsers say, new and old, over TLS or not.
    #[test]
    fn sites() {
        for (headers, start, action) in [
            (&[][..], true, true),
            (&[("sec-fetch-site", "none")], true, false),
            (&[("sec-fetch-site", "same-origin")], true, true),
            (&[("sec-fetch-site", "same-origin"), ("referer", "http://other.example.com/")], true, true),
            (&[("sec-fetch-site", "same-site")], false, false),
            (&[("sec-fetch-site", "cross-site")], false, false),
            (&[("sec-fetch-site", "")], false, false),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false, false),
            (&[("origin", "http://app.example.com:8080")], true, true),
            (&[("origin", "https://APP.example.com:8080"), ("referer", "http://app.example.com:8080/a?b")], true, true),
            (&[("origin", "http://app.example.com")], false, false),
            (&[("origin", "http://app.example.com.evil.com:8080")], false, false),
            (&[("origin", "http://app.example.com:8080@evil.com")], false, false),
            (&[("origin", "null")], false, false),
            (&[("origin", "")], false, false),
            (&[("referer", "http://evil.example.com/?app.example.com:8080")], false, false),
            (&[("referer", "/relative")], false, false),
            (&[("origin", "https://public.com"), ("x-forwarded-host", "public.com")], true, true),
        ] {
            let head = head(headers);
            assert_eq!((is_own_start(&head), is_own_action(&head)), (start, action), "{headers:?}");
        }
    }
}
