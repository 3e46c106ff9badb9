//! Posts reports.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, Url};

use super::body::Form;
use super::settings::origin;
use super::sign::{digits_of, signature};
use crate::capture::PerProcess;
use crate::report::privacy::{REDACTED, decode};
use crate::report::sink::news::News;
use crate::report::sink::{Delivery, DynAsyncSink, SinkError};
use crate::report::{Digest, Report};
use crate::sync::lock_std;
use crate::text::escape::escape;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-heeler-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-heeler-signature");

/// How much of a refusal is read, in bytes, and how much of that is quoted, in characters.
const READ: usize = 4096;
const QUOTED: usize = 200;

/// How long to wait for the rest of a refusal.
const REFUSAL: Duration = Duration::from_secs(1);

/// A part of the URL or of a header this long or longer may be a secret. Anything shorter is more likely a word.
const SECRET: usize = 6;

/// A webhook whose settings were checked.
pub(crate) struct Post {
    /// `webhook hooks.example.com`, because there may be several.
    name: String,
    client: Client,
    url: Url,
    form: Form,
    headers: HeaderMap,
    secret: Option<Vec<u8>>,
    timeout: Duration,
    per_hour: Option<u32>,
    /// What a response may repeat and an error must not, longest first.
    secrets: Vec<String>,
    /// What was already sent, for people. Programs get every update.
    news: Option<PerProcess<Mutex<News>>>,
}

impl Post {
    pub(super) fn new(
        client: Client,
        url: Url,
        form: Form,
        headers: HeaderMap,
        secret: Option<Vec<u8>>,
        timeout: Duration,
        per_hour: Option<u32>,
    ) -> Self {
        let secrets = secrets(&url, &headers);
        let kind = match form {
            Form::Short | Form::Whole => "webhook",
            Form::Slack => "slack",
        };
        let name = format!("{kind} {}", url.host_str().unwrap_or_default());
        let news = matches!(form, Form::Slack).then(|| PerProcess::new((|| Mutex::new(News::new())) as fn() -> _));
        Self { name, client, url, form, headers, secret, timeout, per_hour, secrets, news }
    }

    async fn post(&self, key: &str, body: serde_json::Result<Vec<u8>>) -> Result<(), SinkError> {
        let body = body.map_err(SinkError::permanent)?;
        // The timeout covers every step of an attempt, whatever the other side and the name server do.
        let began = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.attempt(key, body)).await;
        let answer = answer.map_err(|_| SinkError::transient(format!("no answer within {:?}", self.timeout)))??;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let left = self.timeout.saturating_sub(began.elapsed()).min(REFUSAL);
        let refusal = format!("the server answered {status}{}", self.quote(answer, left).await);
        Err(if is_transient(status) { SinkError::transient(refusal) } else { SinkError::permanent(refusal) })
    }

    async fn attempt(&self, key: &str, body: Vec<u8>) -> Result<Response, SinkError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(header::CONTENT_TYPE, "application/json")
            // Ids of reports that were read back from a file may contain anything.
            .header(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(SinkError::permanent)?);
        if let Some(secret) = &self.secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
            let signature = signature(secret, &now, &body);
            request = request.header(TIMESTAMP, now).header(SIGNATURE, signature);
        }
        request.body(body).send().await.map_err(|error| SinkError::transient(error.without_url()))
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
    let values = headers.values().filter_map(|value| value.to_str().ok());
    let mut secrets: Vec<String> = [url.path(), url.username()].map(str::to_owned).into();
    secrets.extend(
        url.path_segments().into_iter().flatten().flat_map(|part| [part.to_owned(), decode(part).into_owned()]),
    );
    secrets.extend(url.password().map(str::to_owned));
    secrets.extend(url.query().map(str::to_owned));
    secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    // `Bearer <token>`, too.
    secrets.extend(values.flat_map(|value| value.split(' ').chain([value])).map(str::to_owned));
    secrets.retain(|secret| secret.len() >= SECRET);
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    secrets.dedup();
    secrets
}

impl DynAsyncSink for Post {
    fn name(&self) -> &str {
        &self.name
    }

    fn has_news(&self, report: &Report) -> bool {
        self.news.as_ref().is_none_or(|news| lock_std(news.get()).are_in(report))
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(async move {
            let key = format!("{}.{}", report.id, report.update);
            self.post(&key, self.form.report(report)).await?;
            if let Some(news) = &self.news {
                lock_std(news.get()).told(report);
            }
            Ok(())
        })
    }

    fn per_hour(&self) -> Option<u32> {
        self.per_hour
    }

    fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
        Box::pin(async move {
            let body = self.form.digest(digest);
            let key = format!("digest.{}", digits_of(body.as_deref().unwrap_or_default()));
            self.post(&key, body).await
        })
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Post").field("url", &origin(&self.url)).field("headers", &headers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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
