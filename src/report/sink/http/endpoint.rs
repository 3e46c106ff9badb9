//! One server, and attempts to post to it.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, StatusCode};
use reqwest::{Client, Response, Url};

use super::address::{is_here, origin};
use crate::error::{Error, Result};
use crate::report::privacy::{REDACTED, decode};
use crate::report::sink::SinkError;
use crate::text::escape::escape;

/// How much of an attempt's timeout connecting may take at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a refusal is read, in bytes, and how much of that is quoted, in characters.
const READ: usize = 4096;
const QUOTED: usize = 200;

/// How long to wait for the rest of a refusal.
const REFUSAL: Duration = Duration::from_secs(1);

/// A part of the URL or of a header this long or longer may be a secret. Anything shorter is more likely a word.
const SECRET: usize = 6;

/// A server whose address and headers were checked.
pub(crate) struct Endpoint {
    client: Client,
    url: Url,
    /// Sent with each attempt. Their values may be secret.
    headers: HeaderMap,
    timeout: Duration,
    /// What a response may repeat and an error must not, longest first.
    secrets: Vec<String>,
}

impl Endpoint {
    /// Creates one. `whose` begins a sentence: `the webhook's`.
    pub(in crate::report::sink) fn new(whose: &str, url: Url, headers: HeaderMap, timeout: Duration) -> Result<Self> {
        if timeout.is_zero() {
            return Err(Error::config(format!("{whose} timeout is zero: nothing would ever arrive")));
        }
        let mut client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(timeout.min(CONNECT_TIMEOUT))
            // Deliveries are rare: a connection kept since the last one is most likely dead by now.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("heeler/", env!("CARGO_PKG_VERSION")));
        if is_here(&url) {
            client = client.no_proxy();
        }
        // Fails if there is no way to verify certificates. The error contains no URL, because the client has none yet.
        let client =
            client.build().map_err(|error| Error::config(format!("{whose} HTTP client cannot be made: {error}")))?;
        let secrets = secrets(&url, &headers);
        Ok(Self { client, url, headers, timeout, secrets })
    }

    /// Returns the URL that it was created with.
    pub(in crate::report::sink) const fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the host, for names of sinks.
    pub(in crate::report::sink) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Posts `body` to `url`, which is at this server, with these headers and those of the server.
    ///
    /// # Errors
    ///
    /// Returns an error unless the server answers 2xx in time. It is transient if trying again may help, and contains
    /// no secret.
    pub(in crate::report::sink) async fn post(
        &self,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(), SinkError> {
        // The timeout covers every step of an attempt, whatever the other side and the name server do.
        let began = Instant::now();
        let request = self.client.post(url).headers(self.headers.clone()).headers(headers).body(body);
        let answer = tokio::time::timeout(self.timeout, request.send()).await;
        let answer = answer
            .map_err(|_| SinkError::transient(format!("no answer within {:?}", self.timeout)))?
            .map_err(|error| SinkError::transient(error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let left = self.timeout.saturating_sub(began.elapsed()).min(REFUSAL);
        let refusal = format!("the server answered {status}{}", self.quote(answer, left).await);
        Err(if is_transient(status) { SinkError::transient(refusal) } else { SinkError::permanent(refusal) })
    }

    /// Reads the beginning of a refusal, as far as it arrives in time.
    async fn quote(&self, mut answer: Response, time: Duration) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(time, async {
            while bytes.len() < READ {
                match answer.chunk().await {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    end => return matches!(end, Ok(None)),
                }
            }
            false
        });
        let whole = read.await.unwrap_or(false);
        quoted(&bytes, whole, &self.secrets)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Endpoint").field("url", &origin(&self.url)).field("headers", &headers).finish_non_exhaustive()
    }
}

/// Cuts and escapes a response, and removes the request's secrets that it repeats.
fn quoted(bytes: &[u8], whole: bool, secrets: &[String]) -> String {
    let (bytes, whole) = (&bytes[..bytes.len().min(READ)], whole && bytes.len() <= READ);
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for secret in secrets {
        text = text.replace(secret, REDACTED);
    }
    if !whole {
        // It may end in the middle of a secret, which would not be recognized.
        let begun = secrets.iter().flat_map(|secret| secret.char_indices().skip(1).map(|(at, _)| &secret[..at]));
        let cut = begun.filter(|begun| text.ends_with(begun)).map(str::len).max().unwrap_or(0);
        text.truncate(text.len() - cut);
    }
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", escape(text, QUOTED)),
    }
}

/// Returns whether trying again may help.
fn is_transient(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || passing.contains(&status)
}

/// Returns the parts of a request that must not get from a response into a log.
fn secrets(url: &Url, headers: &HeaderMap) -> Vec<String> {
    let values: Vec<&str> = headers.values().filter_map(|value| value.to_str().ok()).collect();
    let mut secrets: Vec<String> = [url.path(), url.username()].map(str::to_owned).into();
    secrets.extend(
        url.path_segments().into_iter().flatten().flat_map(|part| [part.to_owned(), decode(part).into_owned()]),
    );
    secrets.extend(url.password().map(str::to_owned));
    // In the header that the client makes of them, they are not percent-encoded.
    let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
    let pair = format!("{user}:{password}");
    secrets.extend([user.into_owned(), password.into_owned(), STANDARD.encode(&pair), pair]);
    secrets.extend(url.query().map(str::to_owned));
    secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    // `Bearer <token>`, too.
    secrets.extend(values.iter().flat_map(|value| value.split(' ').chain([*value])).map(str::to_owned));
    secrets.extend(values.into_iter().filter_map(credentials).flatten());
    secrets.retain(|secret| secret.len() >= SECRET);
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    secrets.dedup();
    secrets
}

/// Returns the pair in `Basic <base64>`, its user and its password: a server may quote them as it reads them.
fn credentials(value: &str) -> Option<[String; 3]> {
    let (scheme, pair) = value.split_once(' ')?;
    let pair = STANDARD.decode(pair.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let pair = String::from_utf8_lossy(&pair);
    let (user, password) = pair.split_once(':').unwrap_or((&pair, ""));
    Some([user.to_owned(), password.to_owned(), pair.clone().into_owned()])
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    /// Guards: no secret is quoted from a response, not even its beginning.
    #[test]
    fn responses_are_quoted_without_secrets() {
        let url = Url::parse("https://user:hunter1@h/services/B0/hunter2%2Fx?key=hunter3&b=2").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer hunter4"));
        let secrets = secrets(&url, &headers);
        let everything = format!("no {url} hunter1 hunter2/x hunter2%2Fx hunter3 hunter4 B0");
        assert!(!quoted(everything.as_bytes(), true, &secrets).contains("hunter"));
        assert!(quoted(everything.as_bytes(), true, &secrets).contains("[redacted] B0"));
        for end in 0..everything.len() {
            let cut = quoted(&everything.as_bytes()[..end], false, &secrets);
            assert!(!cut.contains("hun"), "{cut}");
        }
        assert_eq!(quoted(b" \n", true, &secrets), "");
        assert_eq!(quoted(b"no\r\n\x1b\xff", true, &secrets), ": no\\r\\n\\u{1b}\u{fffd}");
        let long = quoted(&b"hunter3".repeat(10_000), true, &secrets);
        assert!(long.len() < 300 && !long.contains("hunter"), "{long}");
    }

    /// Guards: a server that quotes the user and the password, as it has read them, brings neither into a log.
    #[test]
    fn credentials_are_not_quoted_as_a_server_reads_them() {
        let url = Url::parse("https://h/").unwrap();
        let mut headers = HeaderMap::new();
        let pair = STANDARD.encode("hunter5:hunter6:hunter7");
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Basic {pair}")).unwrap());
        let secrets = secrets(&url, &headers);
        for said in ["hunter5", "hunter6:hunter7", "hunter5:hunter6:hunter7", &pair] {
            let answer = format!("no user {said} here");
            assert_eq!(quoted(answer.as_bytes(), true, &secrets), ": no user [redacted] here");
        }
    }

    /// Guards: the same goes for those in a URL, where they are percent-encoded.
    #[test]
    fn credentials_in_a_url_are_not_quoted_in_any_form() {
        let url = Url::parse("https://us%40er1:p%40ssw0rd@h/").unwrap();
        let secrets = secrets(&url, &HeaderMap::new());
        for said in ["us@er1", "p@ssw0rd", "p%40ssw0rd", "us@er1:p@ssw0rd", &STANDARD.encode("us@er1:p@ssw0rd")] {
            let answer = format!("no user {said} here");
            assert_eq!(quoted(answer.as_bytes(), true, &secrets), ": no user [redacted] here");
        }
    }

    #[test]
    fn only_some_statuses_are_temporary() {
        for (status, transient) in [(400, false), (401, false), (404, false), (408, true), (410, false), (425, true)] {
            assert_eq!(is_transient(StatusCode::from_u16(status).unwrap()), transient, "{status}");
        }
        for (status, transient) in [(429, true), (301, false), (500, true), (503, true), (599, true)] {
            assert_eq!(is_transient(StatusCode::from_u16(status).unwrap()), transient, "{status}");
        }
    }
}
