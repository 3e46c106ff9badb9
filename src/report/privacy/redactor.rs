//! Turns values into what may be shown of them.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};

use super::found::{Found, REDACTED};
use super::headers::{self, NEVER, TRACEPARENT};
use super::names::SecretNames;
use super::paths::SecretPaths;
use super::scan::Scan;
use crate::capture::{PerProcess, front};
use crate::error::{Error, Result};
use crate::text::escape;

/// The longest URI in a report, in characters before escaping.
pub(super) const MAX_URI: usize = 2048;

/// The longest value of a header or a span's field, in characters before escaping.
pub(super) const MAX_VALUE: usize = 512;

/// Reduces values to what may be shown of them.
#[derive(Debug, Clone)]
pub(crate) struct Redactor {
    headers: Vec<HeaderName>,
    secrets: SecretNames,
    paths: SecretPaths,
}

impl Default for Redactor {
    fn default() -> Self {
        let request_id = HeaderName::from_static("x-request-id");
        let headers = vec![header::HOST, header::USER_AGENT, request_id, TRACEPARENT.clone()];
        Self { headers, secrets: SecretNames::default(), paths: SecretPaths::default() }
    }
}

/// A redactor that knows what secrets usually look like.
static STANDARD: PerProcess<Redactor> = PerProcess::new(Redactor::default);

impl Redactor {
    /// Returns a redactor without settings.
    pub(super) fn standard() -> &'static Self {
        STANDARD.settled()
    }

    /// Shows these headers instead of the default ones.
    ///
    /// # Errors
    ///
    /// Fails if a name isn't a header's, or if it is one of a header that carries credentials.
    pub(crate) fn allow_headers(&mut self, names: &[String]) -> Result<()> {
        let parse = |name: &String| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Error::config(format!("`{}` is not a header name", escape(name, 64))))?;
            if NEVER.contains(&header) {
                return Err(Error::config(format!("the header `{header}` is never reported: it carries credentials")));
            }
            Ok(header)
        };
        self.headers = names.iter().map(parse).collect::<Result<_>>()?;
        Ok(())
    }

    /// Returns the headers that are shown.
    pub(crate) fn allowed_headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Also treats these as names of secrets.
    pub(crate) fn secret_names(&mut self, names: &[String]) {
        self.secrets.extend(names);
    }

    /// Hides what these patterns of paths have placeholders for.
    ///
    /// # Errors
    ///
    /// Fails if a pattern hides nothing, or cannot be read.
    pub(crate) fn secret_paths(&mut self, patterns: &[String]) -> Result<()> {
        self.paths.extend(patterns)
    }

    fn scan(&self) -> Scan<'_> {
        Scan::new(&self.secrets, &self.paths)
    }

    /// Returns a URI (or its path and query) as it may be shown. Values of secret-looking parameters and anything that
    /// looks like a secret are replaced, user and password removed, odd characters escaped, and a very long URI is cut.
    pub(crate) fn uri(&self, uri: &str) -> String {
        self.uri_of(uri, MAX_URI)
    }

    pub(crate) fn uri_of(&self, uri: &str, max: usize) -> String {
        let seen = front(uri, max.saturating_mul(4));
        let mut found = Found::default();
        super::uri::find(self.scan(), seen, 0, true, &mut found);
        found.write(seen, max, uri.len())
    }

    /// Returns a text of any kind as it may be shown, at most `max` characters of it.
    pub(crate) fn text(&self, text: &str, max: usize) -> String {
        let seen = front(text, max.saturating_mul(4));
        let mut found = Found::default();
        // A text that was cut where it was written down ends like this.
        let (whole, cut) = match seen.rfind('…') {
            Some(at) if escape::is_cut(&seen[at..]) => (&seen[..at], true),
            _ => (seen, seen.len() < text.len()),
        };
        self.scan().text(whole, cut, &mut found);
        found.write(seen, max, text.len())
    }

    /// Returns a line of source code as it may be quoted.
    pub(super) fn code(&self, line: &str, max: usize) -> String {
        let mut found = Found::default();
        super::code::find(self.scan(), line, &mut found);
        found.write(line, max, line.len())
    }

    /// Returns a header's value as it may be shown.
    #[cfg(test)]
    pub(crate) fn header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        self.header_text(name.as_str(), &header_value(value), MAX_VALUE)
    }

    pub(super) fn header_text(&self, name: &str, value: &str, max: usize) -> String {
        if NEVER.iter().any(|never| never.as_str() == name) {
            return REDACTED.to_owned();
        }
        let seen = front(value, max.saturating_mul(4));
        let mut found = Found::default();
        if headers::is_uri(name) {
            super::uri::find(self.scan(), seen, 0, true, &mut found);
        }
        self.scan().with_random(!headers::is_random(name)).text(seen, seen.len() < value.len(), &mut found);
        found.write(seen, max, value.len())
    }

    /// Returns the value of a header of any name, as it may be shown.
    pub(crate) fn any_header(&self, name: &HeaderName, value: &HeaderValue) -> String {
        let name = name.as_str();
        if headers::is_hidden(name) || self.secrets.contain(name) {
            REDACTED.to_owned()
        } else {
            self.header_text(name, &header_value(value), MAX_VALUE)
        }
    }

    /// Returns a named value, such as the field of a span, as it may be shown.
    pub(super) fn field(&self, name: &str, value: &str, max: usize) -> String {
        if self.secrets.hide(name, value) {
            return REDACTED.to_owned();
        }
        // A value with this name may be a query without its question mark.
        if name.ends_with("query") && memchr::memchr(b' ', value.as_bytes()).is_none() {
            let shown = self.uri_of(&format!("?{value}"), max.saturating_add(1));
            return self.text(shown.strip_prefix('?').unwrap_or(&shown), usize::MAX);
        }
        self.text(value, max)
    }
}

/// Returns a text that isn't from a report or a profile, as it may be shown: an error for the log.
pub(crate) fn told(text: &str, max: usize) -> String {
    STANDARD.settled().text(text, max)
}

/// Returns a line of source code, without the keys, tokens and passwords in it.
pub(crate) fn code(line: &str, max: usize) -> String {
    STANDARD.settled().code(line, max)
}

/// Returns a header's value as text. Nothing is shown of one that is marked as sensitive.
pub(crate) fn header_value(value: &HeaderValue) -> Cow<'_, str> {
    if value.is_sensitive() { Cow::Borrowed(REDACTED) } else { String::from_utf8_lossy(value.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use http::HeaderMap;

    use super::*;
    use crate::capture::sys::own_cpu_time;
    use crate::text::escape::is_unsafe;

    #[test]
    fn redacts_secrets_in_uris() {
        let redactor = Redactor::default();
        let table = [
            ("/", "/"),
            ("/users/4711?page=2&sort=name", "/users/4711?page=2&sort=name"),
            ("/login?user=me&password=hunter2&next=/", "/login?user=me&password=[redacted]&next=/"),
            ("/a?pass%77ord=hunter2", "/a?pass%77ord=[redacted]"),
            ("/a?token=hunter;2&b=1", "/a?token=[redacted]&b=1"),
            ("/a?b=1;token=hunter2;c=d", "/a?b=1;token=[redacted]"),
            ("/a?token", "/a?token"),
            ("/a?token=", "/a?token="),
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

    /// Guards: redacting a megabyte of URI costs no more than the printed part, whatever it contains.
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

    /// Guards: each byte is examined a bounded number of times, whatever the text contains.
    #[test]
    fn long_texts_take_linear_time() {
        let mut redactor = Redactor::default();
        redactor.secret_paths(&["a/{b}".to_owned()]).unwrap();
        let fillers = [
            "a",
            "=",
            ":",
            "a=",
            "token=",
            "token: ",
            "token:",
            "\"token\":\"",
            "token=A(",
            "(\"",
            "(\"token\", ",
            "--token ",
            "password '",
            "<token>",
            ":token>",
            "-----BEGIN",
            "-----END",
            "-----",
            "Bearer ",
            "Basic a1",
            "eyJ",
            "eyJ.",
            "eyJ-",
            "eyJ+",
            "eyJ/",
            "ewo+",
            "ewo/",
            "eyJhbGciOi",
            "AKIA",
            "ghp_",
            "sk-",
            "1Q~",
            "12345678:",
            "12345678:a",
            "//",
            "x://u:p/",
            "a@",
            "a:b@",
            "://",
            "/reset/",
            "/a/",
            "%25",
            "%",
            "?a=",
            "&a=%3d",
            ";a=b",
            "\\\"",
            "\\",
            "'",
            "Ab9",
            "Ab9/",
            "Ab9+",
            "v4.public.",
            "[redacted]",
            "Some(",
            "cookie: ",
            "Token(",
            "Password(\"a b",
            "Session(Some(\"",
            "Token {",
            "\"token\",",
            "[\"token\", ",
            "['key', A(",
            "key=A(",
            "code=a;",
            "token= ",
            "INTO token (",
            "INTO a (token) VALUES (",
            "INTO a (b) VALUES",
            "INTO a (token) SELECT '",
            "(token)=(",
            "(token)=($1,",
            "row contains (",
            "row contains (7)",
            "Key (token)=(",
            "Key (token)=(a)",
            "Duplicate entry '",
            "Duplicate entry 'a' for key 'token'",
            "token in ('",
            "token like '",
            "let token = \"",
            "\", \"",
            "r#\"",
            "'",
            "//",
            "ä",
            "…",
        ];
        type Look<'a> = (&'static str, &'a dyn Fn(&str) -> String);
        let looks: [Look<'_>; 3] = [
            ("text", &|text| redactor.text(text, usize::MAX)),
            ("uri", &|text| redactor.uri_of(text, usize::MAX)),
            ("code", &|text| redactor.code(text, usize::MAX)),
        ];
        for filler in fillers {
            let texts = [1, 4].map(|times| filler.repeat(times * LENGTH / filler.len()));
            for (name, look) in looks {
                assert_in_proportion(&texts, look, &format!("{filler} as {name}"));
            }
            let out = redactor.text(&texts[0], usize::MAX);
            assert!(out.len() <= 6 * texts[0].len() + 64, "{filler}");
        }
        // Searches that end far away without a result.
        let open = [1, 4].map(|times| format!("{}<", ":token>".repeat(times * LENGTH / 8)));
        assert_in_proportion(&open, looks[0].1, "elements");
        // Nested, because decoded text is searched, too.
        let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let within = [1, 4].map(|times| {
            format!("/x/{}{}", "eyJ+".repeat(times * LENGTH / 8), encode("eyJ+".repeat(times * LENGTH / 16)))
        });
        assert_in_proportion(&within, looks[0].1, "what is encoded");
    }

    const LENGTH: usize = 12 << 10;

    /// Checks that four times the text takes four times as long, and not sixteen times. Of several runs, the fastest
    /// counts.
    fn assert_in_proportion(texts: &[String; 2], look: &dyn Fn(&str) -> String, what: &str) {
        let mut least = [Duration::MAX; 2];
        for _ in 0..20 {
            for at in [0, 0, 1] {
                least[at] = least[at].min(time_of(|| look(&texts[at])));
            }
            // Between the two, for where others use the machine's caches.
            if least[1] < 10 * least[0] {
                return;
            }
        }
        panic!("{what}: {least:?}");
    }

    /// Returns the CPU time, if it is known. On a busy machine, a short time is interrupted less often than a long one.
    fn time_of(look: impl Fn() -> String) -> Duration {
        let (started, before) = (Instant::now(), own_cpu_time());
        look();
        match own_cpu_time() - before {
            0 => started.elapsed(),
            time => Duration::from_nanos(time),
        }
    }

    /// Guards: secrets are redacted where secrets usually are, even if they look like something else.
    #[test]
    fn redacts_secrets_that_look_like_other_values() {
        let redactor = Redactor::default();
        let table = [
            ("ALTER USER me PASSWORD '$ecret1'", "ALTER USER me PASSWORD '[redacted]'"),
            ("ALTER USER me PASSWORD 'default'", "ALTER USER me PASSWORD '[redacted]'"),
            ("ALTER USER me PASSWORD '$ecret1", "ALTER USER me PASSWORD '[redacted]"),
            ("CREATE USER me IDENTIFIED BY '@bc123'", "CREATE USER me IDENTIFIED BY '[redacted]'"),
            ("WHERE token LIKE ':x' OR token LIKE $12", "WHERE token LIKE '[redacted]' OR token LIKE $12"),
            ("INTO users (token) SELECT '$ecret', $1", "INTO users (token) SELECT '[redacted]', $1"),
            ("Failing row contains (7, hunter2)", "Failing row contains ([redacted])"),
            ("Failing row contains (7, hun)ter2). (x)", "Failing row contains ([redacted]). (x)"),
            ("Failing row contains ($ecret", "Failing row contains ([redacted]"),
            ("Key (api_token)=($ecret99) already exists.", "Key (api_token)=([redacted]) already exists."),
            ("Key (token)=(abc)def)", "Key (token)=([redacted])"),
            ("Key (token)=(abc)def) is not present (x)", "Key (token)=([redacted]) is not present (x)"),
            ("Key (id, token)=(7, it's) already exists.", "Key (id, token)=(7, [redacted]) already exists."),
            (
                "Key (token)=(a, b) conflicts with existing key (token)=(b, c).",
                "Key (token)=([redacted]) conflicts with existing key (token)=([redacted]).",
            ),
            ("Schlüssel »(token)=(abc)def)« existiert (x)", "Schlüssel »(token)=([redacted])« existiert (x)"),
            (
                "Duplicate entry 'it's $ecret' for key 'users.token'",
                "Duplicate entry '[redacted]' for key 'users.token'",
            ),
            ("db.password: 12345678", "db.password: [redacted]"),
            ("db.password:12345678", "db.password:[redacted]"),
            ("auth.otp: 493021", "auth.otp: [redacted]"),
            ("{\"db.password\": 12345678}", "{\"db.password\": [redacted]}"),
            ("{\"secret.x\":12345678}", "{\"secret.x\":[redacted]}"),
            ("run --password hun,ter2 -v", "run --password [redacted] -v"),
            ("[\"--password\", hunter2]", "[\"--password\", [redacted]]"),
            ("a…token=hunter2 bytes)", "a…token=[redacted] bytes)"),
            ("a… (token=hunter2 bytes)", "a… (token=[redacted] bytes)"),
        ];
        let code = [
            (".basic_auth(\"me\", Some(\"swordfish\"))", ".basic_auth(\"me\", Some(\"[redacted]\"))"),
            (".basic_auth(\"x-token\", Some(\"swordfish\"))", ".basic_auth(\"x-token\", Some(\"[redacted]\"))"),
            (".bearer_auth(\"swordfish\")", ".bearer_auth(\"[redacted]\")"),
            (
                "Credentials::new(\"me\".to_owned(), \"swordfish\".to_owned())",
                "Credentials::new(\"me\".to_owned(), \"[redacted]\".to_owned())",
            ),
            ("Authorization::basic(\"me\", \"swordfish\")", "Authorization::basic(\"me\", \"[redacted]\")"),
        ];
        let text: &dyn Fn(&str) -> String = &|text| redactor.text(text, MAX_VALUE);
        let line: &dyn Fn(&str) -> String = &|line| redactor.code(line, MAX_VALUE);
        let all = table.iter().map(|row| (text, row)).chain(code.iter().map(|row| (line, row)));
        let wrong: Vec<String> = all
            .filter(|(look, (input, expected))| look(input) != *expected || look(expected) != *expected)
            .map(|(look, (input, _))| format!("{input} → {}", look(input)))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn only_allowed_headers_are_shown() {
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
        // As in a layer: which headers of a request are kept, and what is shown of them.
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
    fn secret_headers_cannot_be_allowed() {
        for name in ["Authorization", "cookie", "set-cookie", "PROXY-authorization"] {
            let error = Redactor::default().allow_headers(&[name.to_owned()]).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("never"), "{error}");
        }
        let error = Redactor::default().allow_headers(&["no name\n".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "`no name\\n` is not a header name");
    }

    #[test]
    fn redacts_fields_with_secret_names() {
        let mut redactor = Redactor::default();
        redactor.secret_names(&["patient".to_owned()]);
        assert_eq!(redactor.field("user", "me\n", MAX_VALUE), "me\\n");
        assert_eq!(redactor.field("password", "hunter2", MAX_VALUE), REDACTED);
        assert_eq!(redactor.field("patient", "hunter2", MAX_VALUE), REDACTED);
    }

    /// Guards: a text that was cut behind a secret reads the same the second time.
    #[test]
    fn a_cut_text_is_redacted_alike_twice() {
        let redactor = Redactor::default();
        let text = "VALUES password='hunter2', x";
        for max in 0..text.len() + 8 {
            let once = redactor.text(text, max);
            assert!(!once.contains("hunter") && once.split('…').next().unwrap().len() <= max, "{once}");
            assert_eq!(redactor.text(&once, usize::MAX), once);
        }
        assert_eq!(redactor.text(text, 20), "VALUES password='… (28 bytes)");
    }

    /// Percent-encodes one character of `text`. To a server, the name is still the same.
    fn encode_one(text: &str, at: usize) -> String {
        let at = at % text.len();
        format!("{}%{:02x}{}", &text[..at], text.as_bytes()[at], &text[at + 1..])
    }

    proptest! {
        #[test]
        fn any_uri_is_printed_safely(uri in any::<String>()) {
            let out = Redactor::default().uri(&uri);
            prop_assert!(!out.contains(is_unsafe));
        }

        #[test]
        fn no_secret_parameter_comes_through(
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
        fn no_user_information_comes_through(user in "[a-z:@]{0,10}", host in "[a-z]{1,9}", rest in "(/[a-z/?=&]{0,20})?") {
            let out = Redactor::default().uri(&format!("http://{user}S3CRET@{host}{rest}"));
            prop_assert!(!out.contains("S3CRET"), "{out}");
        }
    }
}
