//! Random secrets in all places where they may occur.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::looks::mixed;
use super::redactor::{MAX_URI, MAX_VALUE};
use super::*;

/// Runs four thousand cases, always the same, unless `HEELER_FUZZ` sets how many others. Slow tests run only a part of
/// them.
pub(crate) fn config(part: u32) -> Config {
    let asked: Option<u32> = std::env::var("HEELER_FUZZ").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(3) };
    Config { cases: (asked.unwrap_or(4_000) / part).max(1), failure_persistence: None, rng_seed, ..Config::default() }
}

/// A text with a secret in it.
#[derive(Debug, Clone)]
pub(crate) struct Planted {
    pub(crate) text: String,
    pub(crate) secret: String,
}

impl Planted {
    /// Returns whether `shown` contains the secret, or twelve characters of it.
    pub(crate) fn is_in(&self, shown: &str) -> bool {
        let secret = self.secret.as_bytes();
        secret.windows(secret.len().min(12)).any(|part| memchr::memmem::find(shown.as_bytes(), part).is_some())
    }
}

/// A secret that anybody could have thought of. Only its name shows that it is one.
fn password() -> impl Strategy<Value = String> {
    "q7[A-Za-z0-9_.~!*-]{3,28}z"
}

/// One that looks like a placeholder of SQL. Within quotes, and in a database's message about a row, it isn't one.
fn placeholder() -> impl Strategy<Value = String> {
    "[$:@?]q7[A-Za-z0-9_]{3,28}z"
}

/// One that is recognized by its shape.
fn shaped() -> impl Strategy<Value = String> {
    prop_oneof![
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\\.eyJ[A-Za-z0-9_-]{20,80}\\.[A-Za-z0-9_-]{43}",
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0\\.eyJ[A-Za-z0-9_-]{20,80}\\.",
        "v4\\.public\\.[A-Za-z0-9_-]{60}",
        "(AKIA|ASIA)[A-Z0-9]{16}",
        "AIza[A-Za-z0-9_-]{35}",
        "ya29\\.[A-Za-z0-9_-]{40}",
        "gh[pousr]_[A-Za-z0-9]{36}",
        "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        "glpat-[A-Za-z0-9_-]{20}",
        "xox[bp]-[0-9]{10,12}-[0-9]{10,12}-[A-Za-z0-9]{24}",
        "[sr]k_(live|test)_[A-Za-z0-9]{24}",
        "whsec_[A-Za-z0-9]{32}",
        "SG\\.[A-Za-z0-9_-]{22}\\.[A-Za-z0-9_-]{43}",
        "[A-Za-z0-9]{3}8Q~[A-Za-z0-9_-]{34}",
        "[0-9]{9}:AA[A-Za-z0-9_-]{33}",
        random(43, BASE64_URL),
        random(64, &BASE64_URL[..62]),
        random(88, BASE64),
    ]
}

const BASE64_URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Without a slash, because its meaning in a path isn't known.
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+";

/// A random string, each character as likely as any other. A few look like words by chance, and would not be hidden.
fn random(length: usize, alphabet: &'static [u8]) -> impl Strategy<Value = String> {
    let one = prop::sample::select(alphabet).prop_map(char::from);
    let text = prop::collection::vec(one, length).prop_map(|characters| characters.into_iter().collect::<String>());
    text.prop_filter("as nearly all are", |text| is_hidden(text) && !begins_with_words(text))
}

/// Returns whether the beginning of a token, where it may be cut, looks like words by chance.
fn begins_with_words(text: &str) -> bool {
    (SHORTEST_CUT..text.len()).any(|cut| !mixed(&text[..cut], 70))
}

/// The least that is left of a cut secret, where no half of it may be shown.
const SHORTEST_CUT: usize = 24;

fn is_hidden(text: &str) -> bool {
    !Redactor::default().text(text, usize::MAX).contains(text)
}

/// Guards: random tokens are recognized, except for a few that look like words by chance.
#[test]
fn random_tokens_are_hidden() {
    let mut random = fastrand::Rng::with_seed(7);
    for (length, alphabet) in [(43, BASE64_URL), (64, &BASE64_URL[..62]), (88, BASE64)] {
        let mut token =
            || (0..length).map(|_| char::from(alphabet[random.usize(..alphabet.len())])).collect::<String>();
        let tokens: Vec<String> = (0..2_000).map(|_| token()).collect();
        let hidden = tokens.iter().filter(|token| is_hidden(token)).count();
        assert!(hidden >= 1_990, "{hidden} of 2,000 with {length} characters");
        let cut = tokens.iter().filter(|token| !begins_with_words(token)).count();
        assert!(cut >= 1_980, "{cut} of 2,000 with {length} characters, where they are cut");
    }
}

/// Names of secrets, in many spellings.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "password",
        "PASSWD",
        "new-password",
        "API_KEY",
        "x-api-key",
        "access_token",
        "refreshToken",
        "clientSecret",
        "sig",
        "X-Amz-Signature",
        "session_id",
        "PHPSESSID",
        "csrf-token",
        "auth",
        "jwt",
        "db.password",
        "aws_secret_access_key",
        "AccountKey",
    ])
}

fn with(template: &str, name: &str, secret: &str) -> String {
    template.replace("{n}", name).replace("{s}", secret)
}

/// Percent-encodes every character that may be.
fn encoded(text: &str) -> String {
    let encode =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

fn template(templates: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(templates.to_vec())
}

/// URIs with a secret in them.
pub(crate) fn uri() -> impl Strategy<Value = Planted> {
    const NAMED: &[&str] = &[
        "/login?{n}={s}",
        "/login?user=me&{n}={s}&next=/",
        "/a;{n}={s}/b?c=d",
        "/a/{n}={s}/b",
        "/cb#{n}={s}&state=1",
        "/a?b=1;{n}={s};c=d",
        "/a?next=/b?{n}={s}",
        "https://example.com/a?{n}={s}",
        "//example.com/a?{n}={s}",
        "/a?filter={\"x\":1,\"{n}\":\"{s}\"}",
        "/{n}/{s}0000000000000000/b",
        "/reset/{s}0000000000000000",
        "/reset/MQ/{s}0000000000000000/",
        "/pattern/{s}",
        "https://me:{s}@example.com/a?b=c",
        "me:{s}@example.com:443",
        "/proxy/https://me:{s}@example.com/x",
        "/a?db=postgres://me:{s}@db:5432/x",
    ];
    const ENCODED: &[&str] = &["/b?{n}={s}", "https://me:{s}@host/", "{\"{n}\":\"{s}\"}", "{n}={s}&x=1", "Bearer {s}"];
    const SHAPED: &[&str] = &[
        "/x/{s}",
        "/x/{s}/y?z=1",
        "/x?u={s}",
        "/x?{s}",
        "/x?a=1&t={s}&b=2",
        "/x#{s}",
        "https://example.com/x/{s}/y",
        "/x/a-{s}",
    ];
    prop_oneof![
        4 => (template(NAMED), name(), password()).prop_map(|(template, name, secret)| Planted {
            text: with(template, name, &secret), secret }),
        2 => (template(ENCODED), name(), password(), 1..3).prop_map(|(template, name, secret, times)| {
            let value = (0..times).fold(with(template, name, &secret), |text, _| encoded(&text));
            Planted { text: format!("/a?next={value}&c=d"), secret }
        }),
        1 => (template(ENCODED), name(), password()).prop_map(|(template, name, secret)| Planted {
            text: format!("/go/{}/x", encoded(&with(template, name, &secret))), secret }),
        4 => (template(SHAPED), shaped()).prop_filter("no key has a colon before a slash", |(template, secret)| {
            !(template.contains("a-") && (secret.contains(':') || secret.len() == 40))
        }).prop_map(|(template, secret)| Planted { text: with(template, "", &secret), secret }),
    ]
}

/// Texts with a secret in them: errors, notes, fields of spans, headers, names of jobs.
pub(crate) fn text() -> impl Strategy<Value = Planted> {
    const NAMED: &[&str] = &[
        "{n}={s}",
        "{n} = {s}",
        "{n}: {s}",
        "{n}={s} user=7",
        "user=7, {n}={s}, x=1",
        "user=7&{n}={s}&x=1",
        "{n}=\"{s} and more\"",
        "{n} = '{s}'",
        "{\"user\":\"me\",\"{n}\":\"{s}\",\"x\":1}",
        "{\"{n}\": {\"value\": \"{s}\"}}",
        "{\\\"{n}\\\":\\\"{s}\\\"}",
        "Request { user: \"me\", {n}: \"{s}\", x: 1 }",
        "Request { {n}: Some(\"{s}\") }",
        "Outer { inner: Inner { {n}: Secret(\"{s}\"), x: 1 }, y: 2 }",
        "Login { {n}: [\"{s}\", \"b\"] }",
        "[(\"a\", \"b\"), (\"{n}\", \"{s}\")]",
        "run --{n} {s} --verbose",
        "run --{n} a,b}{s}] --verbose",
        "<request><{n}>{s}</{n}></request>",
        "error sending request for url (https://example.com/a?{n}={s}): timed out",
        "GET /login?{n}={s} HTTP/1.1",
        "uri=/login?user=me&{n}={s}",
        "cannot connect to postgres://me:{s}@db.example.com:5432/x?sslmode=require",
        "redis://:{s}@cache:6379/0 refused",
        "amqp://me:{s}/x@mq:5672",
        "root:{s}@tcp(127.0.0.1:3306)/db",
        "Server=db;User Id=me;Password={s};",
        "ALTER USER me WITH PASSWORD '{s}'",
        "Authorization: Bearer {s}",
        "{\"authorization\": \"Bearer {s}\", \"accept\": \"*/*\"}",
        "sent Bearer {s} to it",
        "Cookie: a=b; c={s}",
        "{n}%3D{s}",
        "-----BEGIN PRIVATE KEY-----\n{s}\n{s}\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\\n{s}\\n{s}",
        "{s}\n-----END PRIVATE KEY-----\nmore",
        "{n}= {s}",
        "{n} : {s}",
        "{n} => {s}",
        "{n}=> {s}",
        "{n}      :      {s}",
        "`{n}` = '{s}'",
        "invalid {n}: {s} is too short",
        "(\"{n}\", Some(\"{s}\"))",
        "(\n    \"{n}\",\n    Some(\n        \"{s}\",\n    ),\n)",
        "[\"{n}\", \"{s}\"]",
        "[\"a\", \"--{n}\", \"{s}\", \"b\"]",
        "\"mysql\" \"--{n}\" \"{s}\" \"db\"",
        "[[\"host\",\"x\"],[\"{n}\",\"{s}\"]]",
        "['{n}', '{s}']",
    ];
    const SQL: &[&str] = &[
        "INSERT INTO users (name, {n}) VALUES ('a', '{s}')",
        "insert into users (\"{n}\", name)\n values ('{s}', 'a'), ($1, $2)",
        "INSERT INTO users (id, {n}, name) VALUES (1, 'x, y', 'b'), (2, N'{s}', 'it''s')",
        "INSERT INTO users (name, {n}) VALUES ('a', 'b', '{s}')",
        "INSERT INTO users (name, {n}) SELECT 'a', '{s}'",
        "INSERT INTO tokens VALUES (1, '{s}')",
        "UPDATE users SET {n} = '{s}' WHERE id = 7",
        "UPDATE users SET (name, {n}) = ('a', '{s}')",
        "SELECT id FROM users WHERE {n} = '{s}'",
        "SELECT id FROM users WHERE {n} IN ('a', '{s}')",
        "SELECT id FROM users WHERE {n} NOT LIKE '{s}%'",
        "SELECT id FROM users WHERE {n} <> '{s}'",
        "UPDATE users SET {n} = crypt('{s} x', gen_salt('bf'))",
        "duplicate key value violates unique constraint \"a\": Key (name, {n})=(a, {s}) already exists.",
        "ALTER USER me PASSWORD '{s}'",
        "CREATE USER me IDENTIFIED BY '{s}'",
        "Key ({n})=({s}) already exists.",
        "Key ({n})=({s})({s}) is not present in table \"x\".",
        "Key (lower({n}), id)=(it's, {s}, 7) already exists.",
        "Failing row contains ({s}).",
        "Failing row contains (7, {s})",
        "Failing row contains (7, {s}, null)",
        "Failing row contains (7, it's (, {s}).",
        "Duplicate entry '{s}' for key 'users.{n}'",
        "Duplicate entry 'it's-{s}' for key '{n}'",
    ];
    /// Types and variants with the name of a secret.
    const TYPED: &[&str] = &[
        "{n}(\"{s}\")",
        "Err({n}(\"{s}\"))",
        "{n}(Some(\"{s}\"))",
        "{n}({s})",
        "{n}(\n    \"{s}\",\n)",
        "{n} { value: \"{s}\", kind: Opaque }",
        "Wrapper { inner: {n}(Inner { id: \"{s}\", at: 7 }) }",
    ];
    let types = || {
        prop::sample::select(vec![
            "Password",
            "InvalidToken",
            "ApiKey",
            "Secret",
            "SecretString",
            "SessionId",
            "AuthToken",
            "PASSWORD",
            "WrongPassword",
        ])
    };
    const SHAPED: &[&str] = &[
        "{s}",
        "({s})",
        "\"{s}\"",
        "value {s}.",
        "Token(\"{s}\")",
        "got {s}, wanted another",
        "x={s}",
        "x: {s}",
        "id={s}&x=1",
        "https://example.com/x/{s}",
        "{\"x\":\"{s}\"}",
        "a|{s}|b",
    ];
    let planted = prop_oneof![
        4 => (template(NAMED), name(), password()).prop_map(|(template, name, secret)| Planted {
            text: with(template, name, &secret), secret }),
        2 => (template(SQL), name(), prop_oneof![password(), placeholder()]).prop_map(|(template, name, secret)| Planted {
            text: with(template, name, &secret), secret }),
        2 => (template(TYPED), types(), password()).prop_map(|(template, name, secret)| Planted {
            text: with(template, name, &secret), secret }),
        1 => ("[a-z]{1,8}", password()).prop_map(|(user, secret)| {
            let secret = STANDARD.encode(format!("{user}:{secret}"));
            Planted { text: format!("tried Basic {secret} with it"), secret }
        }),
        1 => (name(), password()).prop_map(|(name, secret)| {
            let secret = STANDARD.encode(format!("{{\"user\":\"somebody\",\"{name}\":\"{secret}\"}}"));
            Planted { text: format!("state={secret}"), secret }
        }),
        4 => (template(SHAPED), shaped()).prop_map(|(template, secret)| Planted {
            text: with(template, "", &secret), secret }),
    ];
    let around = || prop_oneof![Just(String::new()), "[a-z]{1,8}( [a-z]{1,8}){0,4}"];
    (around(), planted, around()).prop_map(|(before, planted, after)| {
        let text = format!("{before} {} {after}", planted.text);
        Planted { text: text.trim().to_owned(), ..planted }
    })
}

/// Lines of source code with a secret in them.
pub(crate) fn line() -> impl Strategy<Value = Planted> {
    const NAMED: &[&str] = &[
        "let {i} = \"{s}\";",
        "let mut {i}: &'static str = \"{s}\";",
        "pub(crate) const {i}: &str = r#\"{s}\"#;",
        "let {i} = String::from(\"{s}\");",
        "let {i} = Some(\"{s}\".to_owned());",
        "let {i} = SecretString::new(\"{s}\".into());",
        "let {i} = std::env::var(\"X\").unwrap_or_else(|_| \"{s}\".into());",
        "let {i} = hex::decode(\"{s}\")?;",
        "Login { user: \"me\", {i}: \"{s}\", age: 7 }",
        "self.{i} = b\"{s}\";",
        "if {i} == \"{s}\" {",
        "client.get(url).header(\"{n}\", \"{s}\").send().await?;",
        ".header(header::AUTHORIZATION, format!(\"{s}{}\", rest))",
        ".set_{i}(\"{s}\").await?;",
        "map.insert(\"{n}\".to_owned(), \"{s}\".into());",
        "HashMap::from([(\"a\", \"b\"), (\"{n}\", \"{s}\")])",
        "json!({ \"user\": \"me\", \"{n}\": \"{s}\" })",
        ".basic_auth(\"me\", Some(\"{s}\"))",
        ".bearer_auth(\"{s}\").send().await?;",
        "Credentials::new(\"me\".to_owned(), \"{s}\".to_owned())",
        "Password(\"{s}\")",
        "let url = \"postgres://app:{s}@db/x\";",
        "connect(\"host=db {n}={s} sslmode=disable\").await?",
        "{n}={s} sslmode=disable\").await?",
        "f('\\'', '\"', \"{n}={s}\")",
        "let body = r#\"{\"{n}\":\"{s}\"}\"#;",
        "let body = \"{\\\"{n}\\\":\\\"{s}\\\"}\";",
        "query(\"INSERT INTO users (name, {n}) VALUES ('a', '{s}')\").await?;",
        ".header(\"authorization\", \"Bearer {s}\")",
        "get(\"/x?{n}={s}\").await?; // it answers",
        "login().await?; // {n}: {s}",
    ];
    const SHAPED: &[&str] = &["let x = \"{s}\";", "call(\"a\", \"{s}\").await?;", "call().await?; // {s}", "key!({s})"];
    prop_oneof![
        4 => (template(NAMED), name(), password()).prop_map(|(template, name, secret)| Planted {
            text: with(&template.replace("{i}", &name.replace(['-', '.'], "_")), name, &secret), secret }),
        1 => (template(SHAPED), shaped()).prop_map(|(template, secret)| Planted {
            text: with(template, "", &secret), secret }),
    ]
}

/// A redactor with the patterns that [`uri`] plants secrets for.
pub(crate) fn redactor() -> Redactor {
    let mut redactor = Redactor::default();
    redactor.secret_paths(&["/pattern/{token}".to_owned()]).unwrap();
    redactor
}

proptest! {
    #![proptest_config(config(1))]

    /// Guards: no secret is shown, wherever it is, and redacting again changes nothing.
    #[test]
    fn no_secret_in_a_uri_comes_through(planted in uri()) {
        let redactor = redactor();
        let out = redactor.uri(&planted.text);
        prop_assert!(!planted.is_in(&out), "{} → {out}", planted.text);
        prop_assert_eq!(redactor.uri(&out), &*out);
        for text in [planted.text.clone(), format!("GET {} failed", planted.text), format!("Uri({:?})", planted.text)] {
            // Without a slash it isn't a URI in the middle of a text.
            let out = redactor.text(&text, MAX_URI);
            prop_assert!(!planted.is_in(&out), "{text} → {out}");
            prop_assert_eq!(redactor.text(&out, MAX_URI), &*out);
        }
        for name in ["referer", "location", "x-original-uri", "x-forwarded-uri", "x-rewrite-url", "x-custom", "link"] {
            let Ok(value) = HeaderValue::from_str(&planted.text) else { continue };
            let out = redactor.any_header(&HeaderName::from_static(name), &value);
            prop_assert!(!planted.is_in(&out), "{name}: {} → {out}", planted.text);
        }
    }

    #[test]
    fn no_secret_in_a_text_comes_through(planted in text()) {
        let redactor = redactor();
        let out = redactor.text(&planted.text, MAX_VALUE);
        prop_assert!(!planted.is_in(&out), "{} → {out}", planted.text);
        prop_assert_eq!(redactor.text(&out, MAX_VALUE), &*out);
        let out = redactor.field("message", &planted.text, MAX_VALUE);
        prop_assert!(!planted.is_in(&out), "{} → {out}", planted.text);
        // As `Debug` prints a `String` within something else.
        let debug = format!("Wrapper {{ text: {:?} }}", planted.text);
        let out = redactor.text(&debug, MAX_VALUE);
        prop_assert!(!planted.is_in(&out), "{debug} → {out}");
        prop_assert_eq!(redactor.text(&out, MAX_VALUE), &*out);
    }

    #[test]
    fn no_secret_in_a_line_of_source_comes_through(planted in line()) {
        let redactor = redactor();
        let out = redactor.code(&planted.text, MAX_VALUE);
        prop_assert!(!planted.is_in(&out), "{} → {out}", planted.text);
        prop_assert_eq!(redactor.code(&out, MAX_VALUE), &*out);
    }

    /// Guards: a value that was cut where it was written down doesn't reveal the beginning of a secret.
    #[test]
    fn no_half_of_a_secret_comes_through(planted in "[ a-z]{0,20} ".prop_flat_map(|before| {
        shaped().prop_map(move |secret| Planted { text: format!("{before}{secret}"), secret })
    }), kept in 20usize..90) {
        let cut: String = planted.text.chars().take(planted.text.len() - 1).take(kept.max(planted.text.len() - planted.secret.len() + SHORTEST_CUT)).collect();
        let out = Redactor::default().text(&format!("{cut}…"), MAX_VALUE);
        prop_assert!(!planted.is_in(&out), "{cut} → {out}");
    }

    #[test]
    fn any_text_is_redacted_in_bounded_time(text in any::<String>(), name in any::<String>()) {
        check(&text)?;
        Redactor::default().field(&name, &text, MAX_VALUE);
    }

    /// The same for texts that contain many secrets.
    #[test]
    fn redacting_twice_changes_nothing(parts in prop::collection::vec(prop::sample::select(vec![
        "token", "password", "key", "=", ":", ": ", "\"", "'", "\\\"", "\\", "{", "}", "(", ")", "[", "]", "/", "//", "://", "?", "&", ";",
        "#", "@", "%", "%3D", "%2F", "%25", "+", " ", "\n", ",", "<", ">", "</", "--", "-----BEGIN", "-----END", "-----", "Bearer ",
        "basic ", "eyJ", "eyJhbGciOiJub25lIn0", ".", "ghp_", "AKIAIOSFODNN7EXAMPLE", "a", "Ab9", "http", "user", "cookie", "set-cookie",
        "[redacted]", "…", "ä", "hooks.slack.com", "sha256-", "Q~", "12345678:", "kT3xQ9vB2mN8pL5rW1yZ7cD4fG6hJ0sAqEuIoXyTz0", "{token}",
        "reset", "=>", "b\"", "Some(", "$1", "None", "Token(", "Password", "Session {", " {", "INSERT INTO a (b, token) ", "VALUES (",
        "IN (", "LIKE ", "Key (", ")=(", ") already exists", "row contains (", "Duplicate entry '", "' for key '", "--token", "N'", "must", "let ", ";", "//", "r#\"", ".header(",
    ]), 0..24)) {
        check(&parts.concat())?;
    }
}

/// Checks for any text that the output is safe to print, and that redacting it again hides as much.
fn check(text: &str) -> Result<(), TestCaseError> {
    let redactor = redactor();
    for (out, again) in [
        (redactor.uri(text), &(|text: &str| redactor.uri(text)) as &dyn Fn(&str) -> String),
        (redactor.text(text, MAX_VALUE), &|text: &str| redactor.text(text, usize::MAX)),
        (redactor.code(text, MAX_VALUE), &|text: &str| redactor.code(text, usize::MAX)),
    ] {
        prop_assert!(!out.contains(crate::text::escape::is_unsafe));
        let once = again(&out);
        prop_assert_eq!(again(&once), once, "{}", text);
    }
    Ok(())
}
