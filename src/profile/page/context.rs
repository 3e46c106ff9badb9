//! What a page needs to know besides what it shows.

use std::fmt;

pub(crate) use crate::text::page::nonce;
use crate::text::page::{NO_PAGE, PICTURE, policy_in_page};

/// What a page needs to know about the request that it answers.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The name of the parameter that asks for a profile.
    pub(crate) flag: &'a str,
    /// Path and query of the request, without the flag.
    pub(crate) base: &'a str,
    /// Identifies this page's own scripts and styles: see [`nonce`].
    pub(crate) nonce: &'a str,
    /// Whether links lead anywhere. In a file they don't.
    pub(crate) links: bool,
}

impl<'a> Context<'a> {
    /// For a page that answers a request for `base`.
    pub(crate) fn new(flag: &'a str, base: &'a str, nonce: &'a str) -> Self {
        Self { flag, base, nonce, links: true }
    }

    /// For a page that is a file.
    pub(crate) fn file(nonce: &'a str) -> Self {
        Self { flag: "", base: "", nonce, links: false }
    }

    /// Returns the URL with another value of the flag. It has no path, which means the page's own path, because a path
    /// of `//host` would name another host.
    pub(super) fn link(&self, value: &str) -> String {
        let query = self.base.split_once('?').map_or("", |(_, query)| query);
        let and = if query.is_empty() || query.ends_with('&') { "" } else { "&" };
        format!("?{query}{and}{}={value}", self.flag)
    }

    /// Returns the URL without the flag.
    pub(super) fn plain(&self) -> String {
        let query = self.base.split_once('?').map_or("", |(_, query)| query);
        format!("?{query}")
    }
}

impl fmt::Debug for Context<'_> {
    /// Leaves out the request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("flag", &self.flag).field("links", &self.links).finish_non_exhaustive()
    }
}

/// The kind of an answer, which determines its `Content-Security-Policy`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Policy<'a> {
    /// A page that was made with this nonce.
    Page(&'a str),
    /// A flamegraph.
    Picture,
    /// Anything else: a body of the application's, a download.
    Other,
}

impl Policy<'_> {
    /// Returns the value of the header. Every answer also needs `X-Content-Type-Options: nosniff`,
    /// `Cache-Control: no-store` and `Referrer-Policy: same-origin`. (With `no-referrer`, the origin of the form that
    /// cancels would be `null`.)
    pub(crate) fn header(self) -> String {
        match self {
            Self::Page(nonce) => format!("{}; frame-ancestors 'none'", policy_in_page(nonce, true)),
            // Its search uses a prompt.
            Self::Picture => PICTURE.to_owned(),
            Self::Other => NO_PAGE.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: links stay on this path, whatever it is, and keep the request's own parameters.
    #[test]
    fn links_stay_on_the_same_path() {
        let table = [
            ("/albums/7", "?p=index"),
            ("/albums/7?", "?p=index"),
            ("/albums/7?a=1&b=%26", "?a=1&b=%26&p=index"),
            ("/?a=1&", "?a=1&p=index"),
            ("//evil.example/x", "?p=index"),
            ("*", "?p=index"),
        ];
        for (base, expected) in table {
            assert_eq!(Context::new("p", base, "n").link("index"), expected, "{base}");
        }
        assert_eq!(Context::new("p", "/x?a=1", "n").plain(), "?a=1");
    }

    #[test]
    fn each_page_has_a_new_nonce() {
        let (one, other) = (nonce().unwrap(), nonce().unwrap());
        assert!(one != other && one.len() == 24, "{one} {other}");
        assert!(!format!("{:?}", Context::new("p", "/secret", &one)).contains("secret"));
    }
}
