//! Posting.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, Url};

use super::body::Form;
use super::settings::origin;
use super::sign::{digits_of, signature};
use crate::report::escape::escape;
use crate::report::redact::REDACTED;
use crate::report::secrets::decode;
use crate::report::sink::{Delivery, Failure, Remote};
use crate::report::{Digest, Report};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-heeler-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-heeler-signature");

/// How much of a refusal is read, in bytes, and how much of that is quoted, in characters.
const READ: usize = 4096;
const QUOTED: usize = 200;

/// A part of the URL or of a header this long or longer may be a secret; what is shorter is too likely a word.
const SECRET: usize = 6;

/// A webhook that is ready.
pub(crate) struct Post {
    client: Client,
    url: Url,
    form: Form,
    headers: HeaderMap,
    secret: Option<Vec<u8>>,
    timeout: Duration,
    per_hour: Option<u32>,
    /// What an answer may repeat and an error must not, longest first.
    secrets: Vec<String>,
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
        Self { client, url, form, headers, secret, timeout, per_hour, secrets }
    }

    async fn post(&self, key: &str, body: serde_json::Result<Vec<u8>>) -> Result<(), Failure> {
        let body = body.map_err(Failure::permanent)?;
        // No step of an attempt is without an end, whatever the other side and the name server do.
        match tokio::time::timeout(self.timeout, self.attempt(key, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::transient(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn attempt(&self, key: &str, body: Vec<u8>) -> Result<(), Failure> {
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(header::CONTENT_TYPE, "application/json")
            // Ids of reports that were read back from a file may be anything.
            .header(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(Failure::permanent)?);
        if let Some(secret) = &self.secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
            let signature = signature(secret, &now, &body);
            request = request.header(TIMESTAMP, now).header(SIGNATURE, signature);
        }
        let answer = request.body(body).send().await.map_err(|error| Failure::transient(error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = self.quote(answer).await;
        let refusal = format!("the server answered {status}{said}");
        Err(if is_transient(status) { Failure::transient(refusal) } else { Failure::permanent(refusal) })
    }

    /// The beginning of an answer, without what it repeats of the request's secrets.
    async fn quote(&self, mut answer: Response) -> String {
        let mut bytes = Vec::new();
        while bytes.len() < READ
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(READ);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in &self.secrets {
            text = text.replace(secret, REDACTED);
        }
        if bytes.len() == READ {
            // A secret that was cut would not be recognised.
            let longest = self.secrets.first().map_or(0, String::len);
            let mut end = text.len().saturating_sub(longest);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        match text.trim() {
            "" => String::new(),
            text => format!(": {}", escape(text, QUOTED)),
        }
    }
}

/// Whether trying again may help.
fn is_transient(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || passing.contains(&status)
}

/// Everything of a request that an answer must not bring into a log.
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

impl Remote for Post {
    fn name(&self) -> &str {
        match self.form {
            Form::Json => "webhook",
            Form::Slack => "slack",
        }
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(async move {
            let key = format!("{}.{}", report.id, report.update);
            self.post(&key, self.form.report(report)).await
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
