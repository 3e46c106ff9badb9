//! The query parameter that asks for a profile. It starts profiles, and it is removed from calls to other services.

use std::borrow::Cow;
use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderName, Uri};
use memchr::memmem::Finder;

use crate::error::{Error, Result};

/// The parameter's default name, which is geordi's.
pub(crate) const DEFAULT_NAME: &str = "__geordi__";

/// The header's default name.
pub(crate) const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-geordi");

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The parameter that asks for a profile.
///
/// A request without it pays for one search of its query, at least sixteen bytes at a time.
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
    /// If `name` is empty, longer than 64 bytes, or has other characters than letters, digits, `-`, `.`, `_` and `~`.
    /// These characters mean themselves everywhere in a URL (RFC 3986, 2.3), so the name has one spelling.
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

    /// Returns the name, as in the URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the flag's value as it is in the query, or `""` without a `=`. If there are many, the first one counts.
    ///
    /// A request without the flag pays for nothing else.
    #[inline]
    pub(crate) fn find<'a>(&self, uri: &'a Uri) -> Option<&'a str> {
        self.find_in(uri.query()?)
    }

    #[inline]
    pub(crate) fn find_in<'a>(&self, query: &'a str) -> Option<&'a str> {
        // If two matches overlap, only the first can be a parameter, because the name has no `&`.
        self.finder.find_iter(query.as_bytes()).find_map(|at| self.value_at(query, at))
    }

    /// Returns the value if the name at `at` is a parameter's.
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

    /// Returns whether the parameter has this name once it is decoded. heeler takes no other spelling for the flag, but
    /// a service that passes a query on may rewrite it.
    fn is_spelled(&self, parameter: &str) -> bool {
        let name = parameter.split('=').next().unwrap_or_default();
        name.contains('%') && *decode(name) == *self.name || self.is(parameter)
    }

    /// Returns whether the query has the flag in a spelling other than its own.
    pub(crate) fn is_disguised_in(&self, query: &str) -> bool {
        query.contains('%') && query.split('&').any(|parameter| self.is_spelled(parameter))
    }

    /// Returns a query for another service, without the flag in any spelling, or `None` if the query doesn't have the
    /// flag.
    pub(crate) fn purge(&self, query: &str) -> Option<String> {
        let is_there = self.find_in(query).is_some() || self.is_disguised_in(query);
        is_there.then(|| without(query, |parameter| self.is_spelled(parameter)))
    }

    /// Does the same to a URI. Everything else stays as [`strip`](Self::strip) leaves it.
    pub(crate) fn purge_from(&self, uri: &Uri) -> Uri {
        match uri.query().and_then(|query| self.purge(query)) {
            Some(query) => with_query(uri, &query),
            None => uri.clone(),
        }
    }

    /// Returns `uri` without the flag. Everything else stays the same, byte for byte. If the query has nothing else,
    /// not even an `&` separator, the `?` goes as well.
    pub(crate) fn strip(&self, uri: &Uri) -> Uri {
        match uri.query() {
            Some(query) if self.find_in(query).is_some() => with_query(uri, &without(query, |one| self.is(one))),
            _ => uri.clone(),
        }
    }
}

/// Returns the other parameters. A lone empty one is what is left of `flag&` and `&flag`, so it doesn't count.
fn without(query: &str, is_flag: impl Fn(&str) -> bool) -> String {
    let others: Vec<&str> = query.split('&').filter(|parameter| !is_flag(parameter)).collect();
    others.join("&")
}

/// Returns `uri` with another query, or without one.
pub(crate) fn with_query(uri: &Uri, query: &str) -> Uri {
    let Some((path, _)) = uri.path_and_query().and_then(|both| both.as_str().split_once('?')) else {
        return uri.clone();
    };
    // `http://example.com?flag` has an empty path, which stands for `/`.
    let path = if path.is_empty() { "/" } else { path };
    let changed = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    // A valid query is still valid without some of its parts. If `http` ever disagrees, the application sees the flag.
    match PathAndQuery::from_maybe_shared(bytes::Bytes::from(changed)) {
        Ok(changed) => parts.path_and_query = Some(changed),
        Err(_) => return uri.clone(),
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flag").field(&self.name).finish()
    }
}

/// Decodes `%2C` and the like, and `+` as a space. Text that isn't encoded properly, or isn't valid once decoded, stays
/// as it is and matches no word.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            // Two digits fit a byte.
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            (first, ..) => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(uri: &str) -> String {
        Flag::default().strip(&uri.parse().unwrap()).to_string()
    }

    /// Guards: the flag is one whole parameter.
    #[test]
    fn finds_the_flag_as_a_whole_parameter() {
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
    fn stripping_the_flag_changes_nothing_else() {
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

    /// Guards: an outgoing query loses the flag in every spelling, and nothing else.
    #[test]
    fn every_spelling_of_the_flag_is_removed() {
        for (query, left) in [
            ("__geordi__", Some("")),
            ("a=1&__geordi__=200x&b=2", Some("a=1&b=2")),
            ("%5F%5Fgeordi%5f%5F=200x&b=%26", Some("b=%26")),
            ("__geo%72di__&a&__geordi__=1", Some("a")),
            ("a=%41&b", None),
            ("a=__geordi__&%5F%5Fgeordi%5F%5Fx=1", None),
            ("%zz&%=%", None),
            ("", None),
        ] {
            assert_eq!(Flag::default().purge(query).as_deref(), left, "{query}");
        }
    }

    #[test]
    fn accepts_only_names_that_fit_a_query() {
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
