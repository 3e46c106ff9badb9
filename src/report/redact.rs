//! What of a request may be in a report.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};

use super::escape::{escape, push_cut, push_escaped};
use super::secrets::{SecretNames, decode};
use crate::capture::front;
use crate::error::{Error, Result};

/// Stands in the place of a value that is not shown.
pub(crate) const REDACTED: &str = "[redacted]";

/// The longest URI in a report, in characters before escaping.
const MAX_URI: usize = 2048;

/// The longest value of a header or a span's field, in characters before escaping.
const MAX_VALUE: usize = 512;

/// These carry credentials whatever the application is: nobody can allow them.
const NEVER: [HeaderName; 4] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SET_COOKIE];

/// Reduces a request to what a report may hold.
#[derive(Debug, Clone)]
pub(crate) struct Redactor {
    headers: Vec<HeaderName>,
    secrets: SecretNames,
}

impl Default for Redactor {
    fn default() -> Self {
        let trace = ["x-request-id", "traceparent"].map(HeaderName::from_static);
        let mut headers = vec![header::HOST, header::USER_AGENT];
        headers.extend(trace);
        Self { headers, secrets: SecretNames::default() }
    }
}

impl Redactor {
    /// Shows these headers instead of the default ones.
    ///
    /// # Errors
    ///
    /// A name that is no header's, or one of a header that carries credentials.
    pub(crate) fn allow_headers(&mut self, names: &[String]) -> Result<()> {
        let parse = |name: &String| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Error::config(format!("`{}` is no name of a header", escape(name, 64))))?;
            if NEVER.contains(&header) {
                return Err(Error::config(format!("the header `{header}` is never reported: it carries credentials")));
            }
            Ok(header)
        };
        self.headers = names.iter().map(parse).collect::<Result<_>>()?;
        Ok(())
    }

    /// The headers that are shown.
    pub(crate) fn allowed_headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Takes these for names of secrets, too.
    pub(crate) fn secret_names(&mut self, names: &[String]) {
        self.secrets.extend(names);
    }

    /// A URI (or its path and query) as it may be shown: values of secret-looking parameters replaced, user and
    /// password gone, odd characters escaped, cut if very long.
    pub(crate) fn uri(&self, uri: &str) -> String {
        let (front, rest) = match uri.find(['?', '#']) {
            Some(at) => uri.split_at(at),
            None => (uri, ""),
        };
        let mut out = Limited::new(MAX_URI);
        self.path(front, &mut out);
        let mut rest = rest;
        while !rest.is_empty() && !out.full() {
            // `rest` begins with the separator.
            out.push(&rest[..1]);
            let part = &rest[1..];
            let end = part.find(['&', '?', '#']).unwrap_or(part.len());
            self.parameter(&part[..end], &mut out);
            rest = &part[end..];
        }
        out.finish(uri.len())
    }

    /// The part before the query: without user and password. From a secret-looking parameter on (`;jsessionid=..`, or a
    /// query that lost its `?`) nothing is shown, for nobody knows where its value ends.
    fn path(&self, path: &str, out: &mut Limited) {
        let secret = self.parameter_in_path(path);
        let mut rest = &path[..secret.unwrap_or(path.len())];
        while let Some(at) = rest.find("://") {
            let (scheme, after) = rest.split_at(at + 3);
            let end = after.find('/').unwrap_or(after.len());
            let host = after[..end].rfind('@').map_or(0, |at| at + 1);
            out.push(scheme);
            out.push(&after[host..end]);
            rest = &after[end..];
            if out.full() {
                return;
            }
        }
        // The authority form, `user:password@host:443`, has no scheme and no slash.
        let host = if rest.contains('/') { 0 } else { rest.rfind('@').map_or(0, |at| at + 1) };
        out.push(&rest[host..]);
        if secret.is_some() {
            out.push(REDACTED);
        }
    }

    /// Where in a path the value of a secret begins. Looks at as much as could be printed.
    fn parameter_in_path(&self, path: &str) -> Option<usize> {
        let front = front(path, 4 * MAX_URI);
        front.match_indices([';', '&']).find_map(|(at, _)| {
            let name = &front[at + 1..];
            let end = name.find([';', '&', '/', '='])?;
            (name[end..].starts_with('=') && self.secrets.contain(&name[..end])).then_some(at + end + 2)
        })
    }

    /// `name=value`, or `name=value;name=value`: what a `;` means depends on the server, so both readings are looked at.
    fn parameter(&self, parameter: &str, out: &mut Limited) {
        let mut rest = parameter;
        loop {
            let end = rest.find(';').map_or(rest.len(), |at| at + 1);
            let (name, value) = match rest[..end].find('=') {
                Some(at) => (&rest[..=at], &rest[at + 1..end]),
                None => ("", &rest[..end]),
            };
            // A secret value goes on to the end, whatever a `;` in it may mean.
            if self.secrets.contain(name.trim_end_matches('=')) || self.hides_secret(value) {
                out.push(name);
                out.push(REDACTED);
                return;
            }
            out.push(&rest[..end]);
            rest = &rest[end..];
            if rest.is_empty() || out.full() {
                return;
            }
        }
    }

    /// Whether a value is itself a URL, a form or JSON with a secret in it, percent-encoded or not. Looks at as much as
    /// could be printed.
    fn hides_secret(&self, value: &str) -> bool {
        let front = front(value, 4 * MAX_URI);
        if !front.contains(['=', '%', '@', '"']) {
            return false;
        }
        let decoded = decode(front);
        let pairs = decoded.split(['?', '&', ';', '#', '/', ' ', ',', '{', '"', '\n']);
        let named = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| self.secrets.contain(name));
        let quoted: Vec<&str> = decoded.split('"').collect();
        let member = |pair: &[&str]| pair[1].trim_start().starts_with(':') && self.secrets.contain(pair[0]);
        let with_user = |url: &str| url.split(['/', '?', '#', '&', ' ']).next().is_some_and(|host| host.contains('@'));
        pairs.into_iter().any(named) || quoted.windows(2).any(member) || decoded.split("://").skip(1).any(with_user)
    }

    /// A header's value as it may be shown.
    pub(crate) fn header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        if value.is_sensitive() {
            return REDACTED.to_owned();
        }
        // Only the front is converted: a value may be long, and four bytes are the most that a character takes.
        let bytes = value.as_bytes();
        let front = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_VALUE)]);
        let text = match *name {
            header::REFERER | header::LOCATION | header::CONTENT_LOCATION | header::ORIGIN => {
                Cow::Owned(self.uri(&front))
            }
            _ => front,
        };
        let mut out = escape(&text, MAX_VALUE).into_owned();
        if bytes.len() > 4 * MAX_VALUE && !out.ends_with(" bytes)") {
            push_cut(&mut out, bytes.len());
        }
        out
    }

    /// The value of a header of any name, as it may be shown.
    pub(crate) fn any_header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        if NEVER.contains(name) || self.secrets.contain(name.as_str()) {
            REDACTED.to_owned()
        } else {
            self.header(name, value)
        }
    }

    /// A named value, such as the field of a span, as it may be shown.
    pub(crate) fn field(&self, name: &str, value: &str) -> String {
        if self.secrets.contain(name) { REDACTED.to_owned() } else { escape(value, MAX_VALUE).into_owned() }
    }
}

/// Text that is escaped as it is put together, up to a limit.
struct Limited {
    text: String,
    left: usize,
    cut: bool,
}

impl Limited {
    fn new(max: usize) -> Self {
        Self { text: String::new(), left: max, cut: false }
    }

    fn full(&self) -> bool {
        self.cut
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if self.left == 0 {
                self.cut = true;
                return;
            }
            self.left -= 1;
            push_escaped(&mut self.text, c);
        }
    }

    fn finish(mut self, bytes: usize) -> String {
        if self.cut {
            push_cut(&mut self.text, bytes);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::escape::is_unsafe;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn uris() {
        let redactor = Redactor::default();
        let table = [
            ("/", "/"),
            ("/users/4711?page=2&sort=name", "/users/4711?page=2&sort=name"),
            ("/login?user=me&password=hunter2&next=/", "/login?user=me&password=[redacted]&next=/"),
            ("/a?pass%77ord=hunter2", "/a?pass%77ord=[redacted]"),
            ("/a?token=hunter;2&b=1", "/a?token=[redacted]&b=1"),
            ("/a?b=1;token=hunter2;c=d", "/a?b=1;token=[redacted]"),
            ("/a?token", "/a?token"),
            ("/a?token=", "/a?token=[redacted]"),
            ("/a?&&=x&", "/a?&&=x&"),
            ("/a;x=y/b;jsessionid=hunter2/c?d=e", "/a;x=y/b;jsessionid=[redacted]?d=e"),
            ("/cb#access_token=hunter2&state=1", "/cb#access_token=[redacted]&state=1"),
            ("/a?next=/b?token=hunter2", "/a?next=/b?token=[redacted]"),
            ("/a?next=%2Fb%3Ftoken%3Dhunter2&c=d", "/a?next=[redacted]&c=d"),
            ("/a?next=https%3A%2F%2Fme%3Ahunter2%40host%2F", "/a?next=[redacted]"),
            (r#"/a?filter={"name":"x","password":"hunter2"}"#, "/a?filter=[redacted]"),
            ("/a?filter=%7B%22password%22:%22hunter2%22%7D", "/a?filter=[redacted]"),
            ("/a?mail=me@example.com", "/a?mail=me@example.com"),
            ("http://me:hunter2@example.com/a?b=c", "http://example.com/a?b=c"),
            ("http://example.com/a@b", "http://example.com/a@b"),
            ("me:hunter2@example.com:443", "example.com:443"),
            ("/proxy/http://me:hunter2@example.com/x", "/proxy/http://example.com/x"),
            ("/<script>alert(1)</script>\u{202e}\n", "/<script>alert(1)</script>\\u{202e}\\n"),
        ];
        for (input, expected) in table {
            assert_eq!(redactor.uri(input), expected, "{input}");
        }
    }

    /// Guards: a megabyte of URI costs what is printed of it, whatever it is made of.
    #[test]
    fn huge_uris_are_cut() {
        let redactor = Redactor::default();
        let size = 1 << 20;
        for filler in ["a", "a=b&", ";", "a;b=c;", "://", "@", "%25", "?", "ä", "/;x=y", "=", "a=%3d&"] {
            let uri = format!("/x?{}", filler.repeat(size / filler.len()));
            let path = filler.repeat(size / filler.len());
            let started = Instant::now();
            for uri in [uri, path] {
                let out = redactor.uri(&uri);
                assert!(out.len() < 3 * MAX_URI, "{filler}: {}", out.len());
            }
            // Quadratic work would take minutes.
            assert!(started.elapsed().as_secs() < 5, "{filler}");
        }
        let uri = format!("/{}", "a".repeat(size - 1));
        assert!(redactor.uri(&uri).ends_with("aaa… (1048576 bytes)"));
        assert_eq!(redactor.uri(&uri).chars().count(), MAX_URI + "… (1048576 bytes)".chars().count());
    }

    #[test]
    fn headers_by_name_only() {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("hunter2");
        for (name, value) in [
            ("host", "example.com"),
            ("authorization", "Bearer hunter2"),
            ("cookie", "sid=hunter2"),
            ("x-internal", "hunter2"),
            ("traceparent", "00-1-2-01"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("user-agent", HeaderValue::from_bytes(b"curl\t\xe2\x80\xae\xff").unwrap());
        // As a request goes through a layer: what is kept of it, and what of that is shown.
        let shown = |redactor: &Redactor, headers: &HeaderMap| -> Vec<(String, String)> {
            let mut request = http::Request::new(());
            *request.headers_mut() = headers.clone();
            let names = redactor.allowed_headers();
            let mut kept = crate::inflight::Request::default();
            kept.fill(&mut request.uri().path_and_query().cloned(), &crate::inflight::Head::of(&request), names);
            let show = |(at, value): &(u16, HeaderValue)| (&names[usize::from(*at)], value.clone());
            let headers = kept.headers.iter().map(show);
            headers.map(|(name, value)| (name.as_str().to_owned(), redactor.header(name, &value))).collect()
        };
        let expected =
            [("host", "example.com"), ("user-agent", "curl\\t\\u{202e}\u{fffd}"), ("traceparent", "00-1-2-01")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(shown(&Redactor::default(), &headers), expected);

        let mut redactor = Redactor::default();
        redactor.allow_headers(&["X-Tenant".to_owned(), "x-long".to_owned(), "referer".to_owned()]).unwrap();
        secret.set_sensitive(true);
        headers.append("x-tenant", secret);
        headers.append("x-long", HeaderValue::from_str(&"x".repeat(100_000)).unwrap());
        headers.append("referer", HeaderValue::from_static("https://me:hunter2@a/?token=hunter2"));
        let values = shown(&redactor, &headers);
        assert_eq!(values.len(), 3);
        assert_eq!(values[0].1, REDACTED);
        assert!(values[1].1.len() < 600 && values[1].1.ends_with(" bytes)"));
        assert_eq!(values[2].1, "https://a/?token=[redacted]");

        redactor.allow_headers(&[]).unwrap();
        assert!(shown(&redactor, &headers).is_empty());
    }

    #[test]
    fn some_headers_cannot_be_allowed() {
        for name in ["Authorization", "cookie", "set-cookie", "PROXY-authorization"] {
            let error = Redactor::default().allow_headers(&[name.to_owned()]).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("never"), "{error}");
        }
        let error = Redactor::default().allow_headers(&["no name\n".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "`no name\\n` is no name of a header");
    }

    #[test]
    fn fields() {
        let mut redactor = Redactor::default();
        redactor.secret_names(&["patient".to_owned()]);
        assert_eq!(redactor.field("user", "me\n"), "me\\n");
        assert_eq!(redactor.field("password", "hunter2"), REDACTED);
        assert_eq!(redactor.field("patient", "hunter2"), REDACTED);
    }

    /// One character of `text` percent-encoded, so that the name is still the same to a server.
    fn encode_one(text: &str, at: usize) -> String {
        let at = at % text.len();
        format!("{}%{:02x}{}", &text[..at], text.as_bytes()[at], &text[at + 1..])
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_nothing_odd(uri in any::<String>()) {
            let out = Redactor::default().uri(&uri);
            prop_assert!(!out.contains(is_unsafe));
        }

        #[test]
        fn no_secret_comes_through(
            before in "[a-z0-9/=&;?#%@:+.]{0,40}",
            name in prop::sample::select(vec!["password", "API_KEY", "access_token", "sig", "user[pwd]", "X-Amz-Signature"]),
            at in 0usize..32,
            separator in prop::sample::select(vec!["?", "&", ";", "#"]),
            inside in "[a-z=;%+:/@.]{0,8}",
            after in "(&[a-z=&;?#%@]{0,40})?",
        ) {
            let uri = format!("/{before}{separator}{}={inside}S3CRET{inside}{after}", encode_one(name, at));
            let out = Redactor::default().uri(&uri);
            prop_assert!(!out.contains("S3CRET"), "{uri} → {out}");
        }

        #[test]
        fn no_user_comes_through(user in "[a-z:@]{0,10}", host in "[a-z]{1,9}", rest in "(/[a-z/?=&]{0,20})?") {
            let out = Redactor::default().uri(&format!("http://{user}S3CRET@{host}{rest}"));
            prop_assert!(!out.contains("S3CRET"), "{out}");
        }
    }
}
