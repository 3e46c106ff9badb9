//! The flag among the parameters of a query.

use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;
use memchr::memmem::Finder;

use crate::error::{Error, Result};

/// The parameter's name unless it is set otherwise: geordi's.
pub(crate) const DEFAULT_NAME: &str = "__geordi__";

/// The longest name.
const MAX_NAME: usize = 64;

/// The parameter that asks for a profile.
///
/// A request without it pays for one search of its query, sixteen bytes or more at a time.
#[derive(Clone)]
pub(crate) struct Flag {
    name: Box<str>,
    finder: Finder<'static>,
}

impl Default for Flag {
    fn default() -> Self {
        Self::of(DEFAULT_NAME)
    }
}

impl Flag {
    /// # Errors
    ///
    /// If `name` is empty, longer than 64 bytes, or not of letters, digits, `-`, `.`, `_` and `~`: the characters that mean
    /// themselves everywhere in a URL (RFC 3986, 2.3), so that the name has one spelling.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(unreserved) {
            return Err(Error::config(format!(
                "the parameter that asks for a profile needs a name of 1 to {MAX_NAME} letters, digits, `-`, `.`, `_` and `~`"
            )));
        }
        Ok(Self::of(name))
    }

    fn of(name: &str) -> Self {
        Self { name: name.into(), finder: Finder::new(name).into_owned() }
    }

    /// As in the URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its value as it is in the query, the first one if there are many; `""` without a `=`.
    ///
    /// All that a request without the flag pays for.
    #[inline]
    pub(crate) fn find<'a>(&self, uri: &'a Uri) -> Option<&'a str> {
        self.find_in(uri.query()?)
    }

    #[inline]
    pub(super) fn find_in<'a>(&self, query: &'a str) -> Option<&'a str> {
        // Of two that overlap only the first can be a parameter's: the name has no `&`.
        self.finder.find_iter(query.as_bytes()).find_map(|at| self.value_at(query, at))
    }

    /// The value, if the name that begins there is a parameter's.
    fn value_at<'a>(&self, query: &'a str, at: usize) -> Option<&'a str> {
        let (before, rest) = query.split_at_checked(at)?;
        if !before.is_empty() && !before.ends_with('&') {
            return None;
        }
        let parameter = rest.split('&').next()?.strip_prefix(self.name())?;
        if parameter.is_empty() { Some("") } else { parameter.strip_prefix('=') }
    }

    fn is(&self, parameter: &str) -> bool {
        parameter.strip_prefix(self.name()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    }

    /// `uri` without the flag, wherever it is; everything else of it byte for byte. Of a query that has nothing else, not even
    /// a `&` that separates, the `?` goes as well.
    pub(crate) fn strip(&self, uri: &Uri) -> Uri {
        let Some((path, query)) = uri.path_and_query().and_then(|both| both.as_str().split_once('?')) else {
            return uri.clone();
        };
        if self.find_in(query).is_none() {
            return uri.clone();
        }
        let mut stripped = String::with_capacity(path.len() + 1 + query.len());
        stripped.push_str(path);
        let mut separator = '?';
        for parameter in query.split('&').filter(|parameter| !self.is(parameter)) {
            stripped.push(separator);
            stripped.push_str(parameter);
            separator = '&';
        }
        // A lone empty parameter is what is left of `?flag&` and `?&flag`.
        if stripped.len() == path.len() + 1 {
            stripped.pop();
        }
        // `http://example.com?flag` has an empty path, which stands for `/`.
        if stripped.is_empty() {
            stripped.push('/');
        }
        let mut parts = uri.clone().into_parts();
        // What was valid is still valid with parts of its query taken out. Should `http` see that differently, then the
        // application sees the flag.
        match PathAndQuery::from_maybe_shared(bytes::Bytes::from(stripped)) {
            Ok(stripped) => parts.path_and_query = Some(stripped),
            Err(_) => return uri.clone(),
        }
        Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flag").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(uri: &str) -> String {
        Flag::default().strip(&uri.parse().unwrap()).to_string()
    }

    /// Guards: the flag is one whole parameter.
    #[test]
    fn finds_the_flag() {
        for (query, value) in [
            ("__geordi__", Some("")),
            ("__geordi__=", Some("")),
            ("__geordi__=svg", Some("svg")),
            ("__geordi__==", Some("=")),
            ("a=1&__geordi__", Some("")),
            ("a=1&__geordi__&b=2", Some("")),
            ("a=1&__geordi__=svg&b=2", Some("svg")),
            ("__geordi__x&__geordi__=2&__geordi__=3", Some("2")),
            ("&&__geordi__=é", Some("é")),
            ("", None),
            ("a=1&b=2", None),
            ("__geordi_", None),
            ("__geordi__x=1", None),
            ("x__geordi__=1", None),
            ("a=__geordi__", None),
            ("a=1;__geordi__=svg", None),
            ("__GEORDI__", None),
            ("%5F%5Fgeordi%5F%5F", None),
            ("__geordi__%3Dsvg", None),
            ("__geordi__[]=1", None),
        ] {
            assert_eq!(Flag::default().find_in(query), value, "{query}");
        }
    }

    /// Guards: what is not the flag stays as it is, byte for byte, in every form of a URI.
    #[test]
    fn strips_the_flag() {
        for (uri, without) in [
            ("/?a=1&__geordi__=svg&b=2", "/?a=1&b=2"),
            ("/?__geordi__", "/"),
            ("/a%20b?__geordi__=svg", "/a%20b"),
            ("/?__geordi__&__geordi__=1&a&__geordi__", "/?a"),
            ("/?a=%41+%zz&&__geordi__&b=?__geordi__", "/?a=%41+%zz&&b=?__geordi__"),
            ("/?__geordi__&", "/"),
            ("/?&__geordi__", "/"),
            ("/?&&__geordi__", "/?&"),
            ("/?x__geordi__=1&__geordi__x", "/?x__geordi__=1&__geordi__x"),
            ("/__geordi__/?a", "/__geordi__/?a"),
            ("/?", "/?"),
            ("/?é=ü&__geordi__", "/?é=ü"),
            ("http://example.com/a?__geordi__&b", "http://example.com/a?b"),
            ("http://user@example.com:81/?__geordi__", "http://user@example.com:81/"),
            ("example.com:443", "example.com:443"),
            ("*", "*"),
        ] {
            assert_eq!(stripped(uri), without, "{uri}");
        }
        for (uri, left) in [("http://example.com?__geordi__", None), ("http://example.com?__geordi__&b", Some("b"))] {
            let bare = Flag::default().strip(&uri.parse().unwrap());
            assert_eq!((bare.path(), bare.query(), bare.host()), ("/", left, Some("example.com")));
        }
    }

    #[test]
    fn names() {
        for name in ["p", "__geordi__", "profile-1.x~", &"x".repeat(64)] {
            let flag = Flag::new(name).unwrap();
            let uri: Uri = format!("/?a&{name}=1").parse().unwrap();
            assert_eq!((flag.find(&uri), flag.strip(&uri).to_string()), (Some("1"), "/?a".to_owned()));
        }
        for name in ["", "a=b", "a&b", "a b", "ä", "a%20", "a+b", &"x".repeat(65)] {
            assert!(Flag::new(name).unwrap_err().is_config(), "{name}");
        }
        assert_eq!(Flag::default().name(), DEFAULT_NAME);
        assert_eq!(Flag::default().find(&Uri::from_static("/a")), None);
    }
}
