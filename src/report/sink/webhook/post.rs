//! Posts reports.

use std::fmt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::body::Form;
use super::sign::{digits_of, signature};
use crate::capture::PerProcess;
use crate::report::sink::http::Endpoint;
use crate::report::sink::news::News;
use crate::report::sink::{Delivery, DynAsyncSink, SinkError};
use crate::report::{Digest, Report};
use crate::sync::lock_std;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-heeler-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-heeler-signature");

/// A webhook whose settings were checked.
pub(crate) struct Post {
    /// `webhook hooks.example.com`, because there may be several.
    name: String,
    endpoint: Endpoint,
    form: Form,
    secret: Option<Vec<u8>>,
    per_hour: Option<u32>,
    /// What was already sent, for people. Programs get every update.
    news: Option<PerProcess<Mutex<News>>>,
}

impl Post {
    pub(super) fn new(endpoint: Endpoint, form: Form, secret: Option<Vec<u8>>, per_hour: Option<u32>) -> Self {
        let kind = match form {
            Form::Short | Form::Whole => "webhook",
            Form::Slack => "slack",
        };
        let name = format!("{kind} {}", endpoint.host());
        let news = matches!(form, Form::Slack).then(|| PerProcess::new((|| Mutex::new(News::new())) as fn() -> _));
        Self { name, endpoint, form, secret, per_hour, news }
    }

    async fn post(&self, key: &str, body: serde_json::Result<Vec<u8>>) -> Result<(), SinkError> {
        let body = body.map_err(SinkError::permanent)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Ids of reports that were read back from a file may contain anything.
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(SinkError::permanent)?);
        if let Some(secret) = &self.secret {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
            let signature = signature(secret, &now, &body);
            headers.insert(SIGNATURE, HeaderValue::try_from(signature).map_err(SinkError::permanent)?);
            headers.insert(TIMESTAMP, HeaderValue::try_from(now).map_err(SinkError::permanent)?);
        }
        self.endpoint.post(self.endpoint.url().clone(), headers, body).await
    }
}

impl DynAsyncSink for Post {
    fn name(&self) -> &str {
        &self.name
    }

    fn tells_people(&self) -> bool {
        true
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
        f.debug_struct("Post").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
