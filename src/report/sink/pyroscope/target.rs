//! One Pyroscope server, and what a push to it consists of.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pprof::protos;
use reqwest::Url;
use serde_json::json;

use super::labels::Values;
use crate::report::ProcessInfo;
use crate::report::pprof::gzipped;
use crate::report::sink::SinkError;
use crate::report::sink::http::Endpoint;
use crate::text::escape;

/// The most characters of a service's name.
const MAX_SERVICE: usize = 200;

/// What the server takes a profile's type from: `wall:wall:nanoseconds:wall:nanoseconds`, with the values' own names.
const PROFILE: &str = "wall";
/// Who has made it.
const SPY: &str = "heeler";

const CONNECT: HeaderName = HeaderName::from_static("connect-protocol-version");

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// `/push.v1.PusherService/Push`, in JSON.
    Push,
    /// `/ingest`, of all versions.
    Ingest,
}

/// What a profile is of, as the label `source` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// One request or job that was profiled.
    Profile,
    /// The timelines of reports.
    SlowRequests,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::SlowRequests => "slow_requests",
        }
    }
}

/// A server whose settings were checked.
pub(crate) struct Target {
    endpoint: Endpoint,
    /// Where its API is.
    url: Url,
    api: Api,
    service: Option<String>,
    labels: Vec<(String, String)>,
    trace_ids: bool,
    values: Values,
}

/// What is pushed at once.
#[derive(Debug)]
pub(crate) struct Push {
    service: String,
    source: Source,
    since: SystemTime,
    until: SystemTime,
    /// A UUID, the same in every attempt.
    id: String,
    /// The message, gzipped.
    message: Vec<u8>,
}

impl Target {
    pub(super) fn new(
        endpoint: Endpoint,
        api: Api,
        service: Option<String>,
        labels: Vec<(String, String)>,
        trace_ids: bool,
    ) -> Self {
        let mut url = endpoint.url().clone();
        let path = match api {
            Api::Push => "push.v1.PusherService/Push",
            Api::Ingest => "ingest",
        };
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        Self { endpoint, url, api, service, labels, trace_ids, values: Values::new() }
    }

    /// Returns the server's host.
    pub(super) fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// Returns the labels of samples that belong to this work, besides their state.
    pub(crate) fn labels_of(
        &self,
        route: Option<&str>,
        job: Option<&str>,
        trace_id: Option<&str>,
        span_id: Option<&str>,
    ) -> [(&'static str, String); 4] {
        let bounded = |value: Option<&str>| value.map(|value| self.values.bounded(value)).unwrap_or_default();
        let id = |id: Option<&str>| id.map(str::to_owned).unwrap_or_default();
        let trace = id(trace_id.filter(|_| self.trace_ids));
        [("route", bounded(route)), ("job", bounded(job)), ("trace_id", trace), ("span_id", id(span_id))]
    }

    /// Makes a push of a message about this process.
    pub(crate) fn push(
        &self,
        source: Source,
        process: &ProcessInfo,
        message: &protos::Profile,
        since: SystemTime,
        until: SystemTime,
    ) -> Result<Push, SinkError> {
        let program = process.executable.rsplit(['/', '\\']).next();
        let known = [self.service.as_deref(), process.service.as_deref(), program, Some("unknown_service")];
        let service = known.into_iter().flatten().find(|name| !name.trim().is_empty()).unwrap_or_default();
        Ok(Push {
            service: escape(service, MAX_SERVICE).into_owned(),
            source,
            since,
            until,
            id: uuid(fastrand::u128(..)),
            message: gzipped(message).map_err(SinkError::permanent)?,
        })
    }

    /// Sends it.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::post`].
    pub(crate) async fn send(&self, push: &Push) -> Result<(), SinkError> {
        let (mut url, mut headers) = (self.url.clone(), HeaderMap::new());
        let body = match self.api {
            Api::Push => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(CONNECT, HeaderValue::from_static("1"));
                serde_json::to_vec(&self.json(push)).map_err(SinkError::permanent)?
            }
            Api::Ingest => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                url.query_pairs_mut()
                    .append_pair("name", &self.name(push))
                    .append_pair("from", &seconds(push.since).to_string())
                    .append_pair("until", &seconds(push.until).max(seconds(push.since) + 1).to_string())
                    .append_pair("format", "pprof")
                    .append_pair("spyName", SPY);
                push.message.clone()
            }
        };
        self.endpoint.post(url, headers, body).await
    }

    /// Returns the labels of the series, besides those of its samples.
    fn series<'a>(&'a self, push: &'a Push) -> impl Iterator<Item = (&'a str, &'a str)> {
        let own = self.labels.iter().map(|(name, value)| (&**name, &**value));
        [("source", push.source.as_str())].into_iter().chain(own)
    }

    /// Returns a `PushRequest`.
    fn json(&self, push: &Push) -> serde_json::Value {
        let fixed = [("__name__", PROFILE), ("service_name", &*push.service), ("pyroscope_spy", SPY)];
        let labels = fixed.into_iter().chain(self.series(push));
        let labels: Vec<_> = labels.map(|(name, value)| json!({"name": name, "value": value})).collect();
        let samples = json!([{"ID": push.id, "rawProfile": STANDARD.encode(&push.message)}]);
        json!({"series": [{"labels": labels, "samples": samples}]})
    }

    /// Returns the parameter `name`: `photos{source=profile}`. Nothing can be escaped in it.
    fn name(&self, push: &Push) -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
        let service = push.service.replace(|c| !allowed(c), "_");
        let labels: Vec<String> = self.series(push).map(|(name, value)| format!("{name}={value}")).collect();
        format!("{service}{{{}}}", labels.join(","))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("endpoint", &self.endpoint).field("api", &self.api).finish_non_exhaustive()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Returns random bits as a UUID (version 4).
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let digits = format!("{bits:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_pushes_are_uuids() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
