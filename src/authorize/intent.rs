//! Decides whether a person meant to make a request that asks for a profile, or for another action of heeler's pages.
//!
//! A page can make a browser send almost any request with the credentials that the browser adds by itself: cookies,
//! passwords of Basic authentication, the client's certificate, the address it comes from. So a profile starts at once
//! in only three cases:
//!
//! 1. The browser says that somebody went there: `Sec-Fetch-Mode: navigate` and `Sec-Fetch-Dest: document`, from this
//!    origin (`Sec-Fetch-Site: same-origin`) or from no page at all (`none`: the address bar, a bookmark, or a link in
//!    another program). No page can set or leave out these headers. Over plain HTTP to another machine, browsers send
//!    none of them.
//! 2. The request has the header `x-geordi`. No image, script, frame, form or `no-cors` fetch can set it, and a script
//!    of another origin only after a preflight that the service has allowed. Then its `Origin` gives it away.
//! 3. It has no cookie, and does not look like a browser's, or has a kind of `Authorization` that no browser adds by
//!    itself.
//!
//! For anything else a page asks first. In a browser it also asks before more than one run.

use http::header::{
    ACCEPT, AUTHORIZATION, COOKIE, HOST, HeaderMap, ORIGIN, REFERER, UPGRADE_INSECURE_REQUESTS, USER_AGENT,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_CH_UA: HeaderName = HeaderName::from_static("sec-ch-ua");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How old and new browsers say that they only prepare for what somebody may do next.
const PREPARES: [(HeaderName, &str); 4] = [
    (HeaderName::from_static("sec-purpose"), "prefetch"),
    (HeaderName::from_static("purpose"), "prefetch"),
    (HeaderName::from_static("x-moz"), "prefetch"),
    (HeaderName::from_static("x-purpose"), "preview"),
];

/// Kinds of `Authorization` that a browser adds by itself, once it knows the password.
const AMBIENT: [&[u8]; 4] = [b"basic", b"digest", b"negotiate", b"ntlm"];

/// How a request asks for a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the URL's parameter.
    Flag,
    Header,
}

/// Who meant the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// A person who may profile.
    Act,
    /// Perhaps a page, so somebody has to be asked.
    Unclear,
    /// A browser that prepares for a possible request.
    Preparation,
    /// Another site.
    Foreign,
    /// A part of a page asks, by the header.
    Embedded,
    /// A script of a page asks for many runs, by the header. There is no page to ask on.
    ManyByHeader,
}

impl Intent {
    /// `many`: more than one run is asked for.
    pub(crate) fn of(head: &Parts, way: Way, many: bool) -> Self {
        let fetch = Fetch::of(&head.headers);
        if prepares(&head.headers) {
            return Self::Preparation;
        }
        if !fetch.is_from_here(head) {
            // A link from elsewhere leads to the page that asks. Nobody else can read that page or put it into a frame.
            let is_link = way == Way::Flag && fetch.navigates() && head.method == http::Method::GET;
            return if is_link { Self::Unclear } else { Self::Foreign };
        }
        match way {
            Way::Header if fetch.is_embedded() => Self::Embedded,
            Way::Header if many && (has_cookie(head) || looks_like_a_browser(head)) => Self::ManyByHeader,
            Way::Header => Self::Act,
            Way::Flag if fetch.is_said() => {
                let by_script = fetch.is_of_script() && is_explicit(head) && !has_cookie(head);
                if !many && (fetch.navigates() || by_script) { Self::Act } else { Self::Unclear }
            }
            Way::Flag if has_cookie(head) => Self::Unclear,
            Way::Flag if looks_like_a_browser(head) && (many || !is_explicit(head)) => Self::Unclear,
            Way::Flag => Self::Act,
        }
    }
}

/// Returns whether the request comes from the application's own pages, as far as the browser says, and isn't a
/// preparation.
pub(crate) fn goes_on(head: &Parts) -> bool {
    !prepares(&head.headers) && Fetch::of(&head.headers).is_from_here(head)
}

/// Returns whether a request that must come from the application's own pages does, as far as the browser says.
pub(crate) fn is_own_action(head: &Parts) -> bool {
    match Fetch::of(&head.headers).site {
        Some(site) => site == b"same-origin",
        None => names_us(head, &ORIGIN, true) && names_us(head, &REFERER, true),
    }
}

/// What a browser says about a request. Node sends only the mode.
struct Fetch<'a> {
    site: Option<&'a [u8]>,
    mode: &'a [u8],
    dest: Option<&'a [u8]>,
}

impl<'a> Fetch<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        // More than one value isn't a browser's.
        let get = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            let first = values.next()?;
            Some(if values.next().is_some() { b"".as_slice() } else { first })
        };
        Self { site: get(&SEC_FETCH_SITE), mode: get(&SEC_FETCH_MODE).unwrap_or_default(), dest: get(&SEC_FETCH_DEST) }
    }

    fn is_said(&self) -> bool {
        self.site.is_some() || self.dest.is_some()
    }

    /// Returns whether no other site has caused it.
    fn is_from_here(&self, head: &Parts) -> bool {
        match self.site {
            Some(site) => matches!(site, b"same-origin" | b"none"),
            // A request by a script of another origin names that origin. It could also name it as the forwarded host.
            None => names_us(head, &ORIGIN, false) && names_us(head, &REFERER, true),
        }
    }

    fn navigates(&self) -> bool {
        self.site.is_some() && self.mode == b"navigate" && self.dest == Some(b"document")
    }

    /// Returns whether it is a `fetch` or an `XMLHttpRequest` whose answer the script may read.
    fn is_of_script(&self) -> bool {
        self.site.is_some() && matches!(self.mode, b"cors" | b"same-origin") && self.dest == Some(b"empty")
    }

    fn is_embedded(&self) -> bool {
        self.mode == b"no-cors" || !matches!(self.dest, None | Some(b"empty" | b"document"))
    }
}

fn prepares(headers: &HeaderMap) -> bool {
    PREPARES.iter().any(|(name, word)| {
        let mut values = headers.get_all(name).iter().map(|value| value.as_bytes().to_ascii_lowercase());
        values.any(|value| value.starts_with(word.as_bytes()))
    })
}

fn has_cookie(head: &Parts) -> bool {
    head.headers.contains_key(COOKIE)
}

/// Returns whether it has credentials that something other than a browser has put there.
fn is_explicit(head: &Parts) -> bool {
    let mut schemes = head.headers.get_all(AUTHORIZATION).iter().map(|value| {
        let value = value.as_bytes().trim_ascii();
        value.split(|byte| *byte == b' ').next().unwrap_or_default()
    });
    schemes.next().is_some_and(is_explicit_scheme) && schemes.all(is_explicit_scheme)
}

fn is_explicit_scheme(scheme: &[u8]) -> bool {
    !scheme.is_empty() && !AMBIENT.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Returns whether a browser may have sent it. A page cannot keep its browser from sending at least one of these.
fn looks_like_a_browser(head: &Parts) -> bool {
    let headers = &head.headers;
    let says = [&SEC_FETCH_SITE, &SEC_FETCH_DEST, &SEC_CH_UA, &ORIGIN, &REFERER, &UPGRADE_INSECURE_REQUESTS];
    if says.into_iter().any(|name| headers.contains_key(name)) {
        return true;
    }
    let values = |name| headers.get_all(name).iter().map(|value: &HeaderValue| value.as_bytes().to_ascii_lowercase());
    let holds = |value: &[u8], part: &[u8]| memchr::memmem::find(value, part).is_some();
    // All browsers call themselves Mozilla, for the sake of servers of the last century.
    values(USER_AGENT).any(|value| holds(&value, b"mozilla/") || holds(&value, b"opera/"))
        || values(ACCEPT).any(|value| holds(&value, b"text/html") || holds(&value, b"image/"))
}

/// Returns whether the origin or page that a header names is this host's, or none is named. `forwarded`: a proxy may
/// have passed on the host name that it was asked for.
fn names_us(head: &Parts, name: &HeaderName, forwarded: bool) -> bool {
    let Some(value) = head.headers.get(name) else { return true };
    let Some(theirs) = value.to_str().ok().and_then(|value| value.parse::<Uri>().ok()) else { return false };
    let Some(theirs) = theirs.authority() else { return false };
    let of_header = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = if forwarded { of_header(&X_FORWARDED_HOST) } else { None };
    let ours = [head.uri.authority().map(http::uri::Authority::as_str), of_header(&HOST), forwarded];
    ours.into_iter().flatten().any(|ours| ours.eq_ignore_ascii_case(theirs.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0";

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/a?__geordi__").header("host", "app.example.com:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn flag(headers: &[(&str, &str)], many: bool) -> Intent {
        Intent::of(&head(headers), Way::Flag, many)
    }

    /// Guards: requests caused by other sites are told from the rest by what browsers send, new and old, over TLS or not.
    #[test]
    fn requests_caused_by_other_sites_are_recognised() {
        for (headers, from_here, action) in [
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
            (&[("referer", "https://public.com/a"), ("x-forwarded-host", "public.com")], true, true),
            // A script that may set headers could set this one, too.
            (&[("origin", "https://public.com"), ("x-forwarded-host", "public.com")], false, true),
        ] {
            let head = head(headers);
            let is_from_here = Fetch::of(&head.headers).is_from_here(&head);
            assert_eq!((is_from_here, is_own_action(&head)), (from_here, action), "{headers:?}");
        }
    }

    /// Guards: of everything that a browser can say about a request, with each kind of credentials, two things start a
    /// profile: an address that the user went to, and a script's fetch with credentials of its own. Many runs always need a
    /// confirmation.
    #[test]
    fn only_deliberate_requests_start_a_profile() {
        let sites = ["none", "same-origin", "same-site", "cross-site", "nonsense"];
        let modes = ["navigate", "no-cors", "cors", "same-origin", "websocket", "nonsense"];
        let dests =
            ["document", "iframe", "frame", "image", "script", "style", "empty", "object", "worker", "nonsense"];
        let cookies = [None, Some("session=1")];
        let authorizations = [None, Some("Bearer x"), Some("Basic eDp5"), Some("Negotiate x"), Some("")];
        let mut acts = 0;
        for site in sites {
            for (mode, dest) in modes.into_iter().flat_map(|mode| dests.map(|dest| (mode, dest))) {
                for (cookie, authorization) in
                    cookies.into_iter().flat_map(|cookie| authorizations.map(|authorization| (cookie, authorization)))
                {
                    let mut headers =
                        vec![("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
                    headers.extend(cookie.map(|cookie| ("cookie", cookie)));
                    headers.extend(authorization.map(|authorization| ("authorization", authorization)));
                    let own = matches!(site, "none" | "same-origin");
                    let went = own && (mode, dest) == ("navigate", "document");
                    let script = own
                        && matches!((mode, dest), ("cors" | "same-origin", "empty"))
                        && (cookie, authorization) == (None, Some("Bearer x"));
                    let once = flag(&headers, false);
                    assert_eq!(once == Intent::Act, went || script, "{headers:?}");
                    assert_ne!(flag(&headers, true), Intent::Act, "{headers:?}");
                    for purpose in
                        [("sec-purpose", "prefetch;prerender"), ("purpose", "Prefetch"), ("x-moz", "prefetch")]
                    {
                        headers.push(purpose);
                        assert_eq!(flag(&headers, false), Intent::Preparation, "{headers:?}");
                        headers.pop();
                    }
                    acts += usize::from(once == Intent::Act);
                }
            }
        }
        // Two sites with ten sorts of credentials each, and two modes of a script's.
        assert_eq!(acts, 2 * 10 + 2 * 2);
    }

    /// Guards: if a browser does not say where a request comes from, neither a cookie nor looking like a browser is enough.
    #[test]
    fn a_cookie_without_fetch_metadata_is_not_enough() {
        use Intent::{Act, Foreign, Unclear};
        let cookie = ("cookie", "session=1");
        for (headers, once, many) in [
            // Scripts.
            (&[][..], Act, Act),
            (&[("accept", "*/*"), ("user-agent", "curl/8.5.0")], Act, Act),
            (&[("authorization", "Bearer x")], Act, Act),
            (&[("authorization", "Basic eDp5"), ("user-agent", "curl/8.5.0")], Act, Act),
            // Node sends this with each fetch.
            (&[("authorization", "Bearer x"), ("sec-fetch-mode", "cors"), ("accept-language", "*")], Act, Act),
            // Browsers add a cookie by themselves, whatever else is there.
            (&[cookie], Unclear, Unclear),
            (&[cookie, ("authorization", "Bearer x")], Unclear, Unclear),
            (&[cookie, ("accept", "text/html"), ("user-agent", CHROME)], Unclear, Unclear),
            (&[cookie, ("sec-fetch-mode", "navigate")], Unclear, Unclear),
            (&[cookie, ("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")], Unclear, Unclear),
            // The same holds for passwords, certificates, and the address.
            (&[("authorization", "Basic eDp5"), ("user-agent", CHROME)], Unclear, Unclear),
            (&[("authorization", "NTLM x"), ("accept", "image/avif,image/*;q=0.8")], Unclear, Unclear),
            (&[("authorization", "Bearer x"), ("authorization", "Basic x"), ("user-agent", CHROME)], Unclear, Unclear),
            (&[("user-agent", CHROME)], Unclear, Unclear),
            (&[("accept", "text/html,*/*;q=0.8")], Unclear, Unclear),
            (&[("accept", "image/avif,image/webp")], Unclear, Unclear),
            (&[("upgrade-insecure-requests", "1")], Unclear, Unclear),
            (&[("origin", "http://app.example.com:8080")], Unclear, Unclear),
            (&[("referer", "http://app.example.com:8080/")], Unclear, Unclear),
            // A token is not added by a browser, but in a browser many runs need a confirmation.
            (&[("authorization", "Bearer x"), ("user-agent", CHROME)], Act, Unclear),
            (&[cookie, ("origin", "https://evil.example")], Foreign, Foreign),
            (&[cookie, ("referer", "https://evil.example/")], Foreign, Foreign),
        ] {
            assert_eq!((flag(headers, false), flag(headers, true)), (once, many), "{headers:?}");
        }
    }

    /// Guards: the header is set by a script. It counts neither for another origin, nor for many runs from a browser.
    #[test]
    fn a_header_from_another_origin_starts_nothing() {
        use Intent::{Act, Embedded, Foreign, ManyByHeader, Preparation};
        let cookie = ("cookie", "session=1");
        for (headers, once, many) in [
            (&[][..], Act, Act),
            (&[("authorization", "Bearer x")], Act, Act),
            (&[cookie], Act, ManyByHeader),
            (&[("user-agent", CHROME)], Act, ManyByHeader),
            (
                &[cookie, ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
                Act,
                ManyByHeader,
            ),
            (
                &[
                    cookie,
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "no-cors"),
                    ("sec-fetch-dest", "image"),
                ],
                Embedded,
                Embedded,
            ),
            (&[("sec-fetch-site", "none"), ("sec-fetch-dest", "iframe")], Embedded, Embedded),
            (&[cookie, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")], Foreign, Foreign),
            // A service that allows every origin allows it to set headers, too.
            (&[cookie, ("origin", "https://evil.example")], Foreign, Foreign),
            (&[cookie, ("origin", "https://evil.example"), ("x-forwarded-host", "evil.example")], Foreign, Foreign),
            (&[("origin", "http://app.example.com:8080")], Act, ManyByHeader),
            (&[("sec-purpose", "prefetch")], Preparation, Preparation),
        ] {
            let head = head(headers);
            let of = |many| Intent::of(&head, Way::Header, many);
            assert_eq!((of(false), of(true)), (once, many), "{headers:?}");
        }
    }

    /// Guards: a link on another site leads to the confirmation page if the user follows it, and to nothing otherwise.
    #[test]
    fn a_link_from_elsewhere_needs_confirmation() {
        for site in ["cross-site", "same-site"] {
            let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
            assert_eq!(flag(&link, false), Intent::Unclear);
            let mut form = head(&link);
            form.method = http::Method::POST;
            assert_eq!(Intent::of(&form, Way::Flag, false), Intent::Foreign);
            let frame = [link[0], link[1], ("sec-fetch-dest", "iframe")];
            assert_eq!(flag(&frame, false), Intent::Foreign);
        }
    }
}
