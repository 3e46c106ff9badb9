//! A request as it lies in the store, before it is sealed.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use crate::profile::flag::Start;
use crate::text::time::rfc3339;

/// The headers of one connection, which mean nothing on another one (RFC 9110, section 7.6.1), and the body's length, which
/// is set again.
const NOT_SENT: [HeaderName; 7] = [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Marks a request on its way through a worker's service. One that still has the mark when it is to be sent has lost what says
/// so, and would be sent for ever.
pub(super) const SENT: HeaderName = HeaderName::from_static("x-geordi-sent");

/// Everything that a worker needs to run a request. It has the sender's credentials in it.
#[derive(Serialize, Deserialize)]
pub(super) struct SentRequest {
    /// Who has asked. The worker's service must come to the same conclusion.
    pub(super) principal: Option<String>,
    #[serde(with = "rfc3339")]
    pub(super) asked_at: SystemTime,
    runs: Option<u32>,
    process: bool,
    inline: bool,
    method: String,
    uri: String,
    version: u8,
    /// The values in Base64, because they need not be UTF-8.
    headers: Vec<(String, String)>,
    body: String,
}

impl SentRequest {
    pub(super) fn new(head: &Parts, body: &[u8], principal: Option<&str>, start: Start) -> Self {
        let named = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
        let is_sent = |name: &HeaderName| {
            !NOT_SENT.contains(name) && !named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
        };
        let headers = head.headers.iter().filter(|(name, _)| is_sent(name));
        Self {
            principal: principal.map(str::to_owned),
            asked_at: SystemTime::now(),
            runs: start.runs,
            process: start.process,
            inline: start.inline,
            method: head.method.as_str().to_owned(),
            uri: uri(head).to_string(),
            version: number(head.version),
            headers: headers.map(|(name, value)| (name.as_str().to_owned(), STANDARD.encode(value))).collect(),
            body: STANDARD.encode(body),
        }
    }

    /// Returns how it is to be profiled.
    pub(super) const fn start(&self) -> Start {
        Start { form: None, runs: self.runs, process: self.process, inline: self.inline }
    }

    /// Returns whether it may run twice: RFC 9110, section 9.2.2, but of what is idempotent by its method, only what also reads.
    pub(super) fn may_run_again(&self) -> bool {
        may_run_again(&self.method)
    }

    /// Returns the request as it was, or `None` if it is none.
    pub(super) fn request(&self) -> Option<Request<Full<Bytes>>> {
        let body = STANDARD.decode(&self.body).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(&STANDARD.decode(value).ok()?).ok()?;
            headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        headers.insert(SENT, HeaderValue::from_static("1"));
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).ok()?;
        *request.uri_mut() = self.uri.parse().ok()?;
        *request.version_mut() = version(self.version);
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// Returns whether a request with this method may run twice.
pub(super) fn may_run_again(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Returns the URI as the outermost router saw it: the worker's request goes through all routers again.
fn uri(head: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = head.extensions.get() {
        return uri;
    }
    &head.uri
}

fn number(version: Version) -> u8 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}

const fn version(number: u8) -> Version {
    match number {
        9 => Version::HTTP_09,
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        30 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}
