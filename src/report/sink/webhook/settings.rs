//! Setting up a webhook.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::body::Form;
use super::post::Post;
use crate::error::{Error, Result};
use crate::report::sink::http::{Endpoint, checked_url, origin};

/// The default timeout of a whole attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How errors name its settings.
const WHOSE: &str = "the webhook's";

/// The default number of messages to people per hour.
const SLACK_PER_HOUR: u32 = 20;

/// Headers that heeler or HTTP itself sets.
const OUR_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("idempotency-key"),
];

/// Posts reports to a URL: as [short JSON](crate::report::SCHEMA#the-short-form), or as a message for
/// [Slack](Self::slack) and similar services.
///
/// ```
/// use heeler::{Reports, Webhook};
///
/// let reports = Reports::builder()
///     .webhook(
///         Webhook::new("https://incidents.example.com/slow")
///             .secret("a long random text")
///             .header("authorization", "Bearer 4711"),
///     )
///     .webhook(Webhook::new("https://hooks.slack.com/services/T000/B000/XXXX").slack())
///     .build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
///
/// # What is sent
///
/// Each report that goes out is sent as a `POST`, and so is each of its [updates](crate::Report::update) (as a
/// [message](Self::slack), only those with news), with these headers:
///
/// | header | value |
/// |---|---|
/// | `Content-Type` | `application/json` |
/// | `Idempotency-Key` | `<id>.<update>` of the report, the same in every attempt |
/// | `X-Heeler-Timestamp` | with a [secret](Self::secret): when it was sent, in seconds since 1970 |
/// | `X-Heeler-Signature` | with a secret: `v1=` and a hexadecimal HMAC-SHA256 |
///
/// The body is the report in its [short form](crate::report::SCHEMA#the-short-form), a few kilobytes long: everything
/// about the request, the process and the time, and the stacks and frames that show where it is stuck.
/// [`whole_reports`](Self::whole_reports) sends all stacks with all their frames. Beyond a limit [per
/// hour](Self::per_hour) the body is a digest, which has no stacks but one line per fingerprint, the most frequent
/// first:
///
/// ```json
/// {
///   "schema": 2, "kind": "digest", "hostname": "web-1", "service": "photos",
///   "since": "2025-01-01T10:00:00.000Z", "until": "2025-01-01T10:59:12.345Z",
///   "reports": 4, "held_back": 7, "others": 0, "lost": 0,
///   "entries": [{
///     "fingerprint": "81d76b211c51e3c4", "count": 11, "verdict": "waiting",
///     "what": "GET /photos/{id}", "place": "photos::load at src/photos.rs:41",
///     "worst_ms": 9800.0, "worst_id": "5cf400b2380cbd97"
///   }]
/// }
/// ```
///
/// # What counts as delivered
///
/// A response of 2xx. After 408, 425, 429, 5xx, a broken connection or no response in [time](Self::timeout), the report
/// may be sent again. Any other response refuses it for good. So a report may arrive twice if its response got lost:
/// ignore a report whose `Idempotency-Key` you already know.
///
/// Redirects are not followed, because they could take the report and its headers to an unintended place. The proxy
/// settings of the environment are used (`HTTPS_PROXY`, `NO_PROXY`, ..), but never for this host itself. Certificates
/// are verified as the operating system would.
///
/// # Checking the signature
///
/// Take the bytes of the body before parsing them. The signature is over the timestamp, a full stop, and these bytes.
/// Refuse anything more than a few minutes old, so that nobody can replay a recorded report:
///
/// ```
/// use hmac::{Hmac, KeyInit, Mac};
/// use sha2::Sha256;
///
/// fn is_from_heeler(secret: &[u8], timestamp: &str, signature: &str, body: &[u8], now: u64) -> bool {
///     let recent = timestamp.parse::<u64>().is_ok_and(|sent| now.abs_diff(sent) < 300);
///     let hex = signature.strip_prefix("v1=").unwrap_or_default();
///     let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
///     let signature: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
///     let Some(signature) = signature else { return false };
///     let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length will do");
///     mac.update(timestamp.as_bytes());
///     mac.update(b".");
///     mac.update(body);
///     // Compares in constant time.
///     recent && mac.verify_slice(&signature).is_ok()
/// }
///
/// let signature = "v1=18a6a644b6c3e88a7eed8836c7b9b13bfa9306f949c7dde5fcaac263f0043420";
/// assert!(is_from_heeler(b"key", "1735689600", signature, b"{}", 1735689605));
/// assert!(!is_from_heeler(b"key", "1735689600", signature, b"{}", 1735699999));
/// assert!(!is_from_heeler(b"key", "1735689600", signature, b"[]", 1735689605));
/// assert!(!is_from_heeler(b"key", "1735689600", "", b"{}", 1735689605));
/// ```
///
/// # Secrets
///
/// A URL may be a secret by itself. Only its scheme, host and port are ever printed, only the names of headers, and
/// nothing of the secret.
#[derive(Clone)]
#[must_use = "nothing happens until it is given to `ReportsBuilder::webhook`"]
pub struct Webhook {
    url: String,
    form: Form,
    whole: bool,
    headers: Vec<(String, String)>,
    secret: Option<Vec<u8>>,
    timeout: Duration,
    plaintext: bool,
    per_hour: Option<u32>,
}

impl Webhook {
    /// Posts JSON to this URL: `https`, or `http` to this host itself.
    ///
    /// [`ReportsBuilder::build`](crate::ReportsBuilder::build) checks it. `https://user:password@host/` is fine, and
    /// becomes an `Authorization` header.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            form: Form::Short,
            whole: false,
            headers: Vec::new(),
            secret: None,
            timeout: TIMEOUT,
            plaintext: false,
            per_hour: None,
        }
    }

    /// Posts messages for people, in the form of Slack's incoming webhooks: what is slow, where, on which host, and the
    /// application's own frames with their source lines.
    ///
    /// Mattermost and Discord (`https://discord.com/api/webhooks/<id>/<token>/slack`) accept them, too. A service that
    /// doesn't know blocks shows the field `text`, which says the same in 1,900 characters at most. Everything from a
    /// request is put in code, where it cannot mention anybody, link or format. A backtick becomes an apostrophe there,
    /// and a service that doesn't understand `&lt;` shows it as it is. An update is posted only if its verdict or place
    /// differs from what was posted last, and not to say how the work has [ended](crate::Report::ending).
    pub fn slack(mut self) -> Self {
        self.form = Form::Slack;
        self
    }

    /// Posts each report as a whole, with all its stacks and frames, like [`Report::to_json`](crate::Report::to_json)
    /// but on one line: tens of kilobytes, or a hundred for many branches. By default it is the [short
    /// form](crate::report::SCHEMA#the-short-form). Messages for [Slack](Self::slack) have no whole form, so the two
    /// together are an error at [`build`](crate::ReportsBuilder::build).
    pub fn whole_reports(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Adds this header, for instance `authorization` with a token. The value is never printed.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Signs reports with this secret, so that the receiver can [verify](Self#checking-the-signature) who sent them,
    /// and that they were not changed. Use 32 random bytes or more.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Sets how long an attempt may take. Defaults to 10 seconds, of which connecting takes 5 at most.
    ///
    /// An attempt resolves the name, connects, sends, and waits for the response.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Allows `http` to other hosts. Everybody on the way can then read reports, headers and URL, and change what isn't
    /// signed.
    pub fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Sends at most this many reports per hour, at least one. Defaults to 20 for [Slack](Self::slack), and to no limit for
    /// JSON. Reports beyond that are gathered, and sent as one digest.
    pub fn per_hour(mut self, reports: u32) -> Self {
        self.per_hour = Some(reports);
        self
    }

    /// Checks all settings.
    pub(crate) fn prepare(self) -> Result<Post> {
        let url = checked_url(WHOSE, &self.url, self.plaintext)?;
        if self.secret.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("the webhook's secret is empty"));
        }
        if self.per_hour == Some(0) {
            return Err(Error::config("a webhook that may send no reports per hour: leave it out instead"));
        }
        let form = match (self.form, self.whole) {
            (Form::Slack, true) => {
                return Err(Error::config(
                    "the webhook's messages for Slack have no whole form: leave `whole_reports` out",
                ));
            }
            (_, true) => Form::Whole,
            (form, false) => form,
        };
        let endpoint = Endpoint::new(WHOSE, url, self.checked_headers()?, self.timeout)?;
        let per_hour = self.per_hour.or((form == Form::Slack).then_some(SLACK_PER_HOUR));
        Ok(Post::new(endpoint, form, self.secret, per_hour))
    }

    fn checked_headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // An invalid name may be a value in the wrong place, so it isn't repeated.
            let name = HeaderName::try_from(name).map_err(|_| {
                Error::config("the name of one of the webhook's headers has characters that no name has")
            })?;
            if OUR_HEADERS.contains(&name) || name.as_str().starts_with("x-heeler-") {
                return Err(Error::config(format!("the webhook's header `{name}` cannot be set: it is heeler's own")));
            }
            let mut value = HeaderValue::try_from(value).map_err(|_| {
                Error::config(format!("the value of the webhook's header `{name}` has characters that no header has"))
            })?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Webhook")
            .field("url", &Url::parse(&self.url).map_or_else(|_| "not a URL".to_owned(), |url| origin(&url)))
            .field("form", &self.form)
            .field("whole", &self.whole)
            .field("headers", &names)
            .field("signed", &self.secret.is_some())
            .field("timeout", &self.timeout)
            .field("plaintext", &self.plaintext)
            .field("per_hour", &self.per_hour)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Webhook {
        Webhook::new("https://user:hunter2@hooks.example.com/services/T000/B000/XXXX?token=hunter3")
    }

    /// Guards: `build` says what is wrong, and doesn't repeat what may be a secret.
    #[test]
    fn bad_settings_are_errors_without_secrets() {
        let here = "http://[::1]:8080/";
        for good in [hook(), Webhook::new(here), Webhook::new("http://localhost/x"), hook().timeout(Duration::MAX)] {
            good.prepare().unwrap();
        }
        assert!(Webhook::new("http://web-2/hunter2").plaintext().prepare().is_ok());
        let bad = [
            Webhook::new(""),
            Webhook::new("/hunter2"),
            Webhook::new("hunter2"),
            Webhook::new("https://"),
            Webhook::new("ftp://hunter2.example.com"),
            Webhook::new("http://web-2/hunter2"),
            Webhook::new("http://localhost.example.com/hunter2"),
            Webhook::new("http://127.0.0.1.example.com/hunter2"),
            hook().timeout(Duration::ZERO),
            hook().secret(""),
            hook().per_hour(0),
            hook().slack().whole_reports(),
            hook().whole_reports().slack(),
            hook().header("Bearer hunter2", "x"),
            hook().header("authorization", "hunter2\r\nx: y"),
            hook().header("Content-Type", "hunter2"),
            hook().header("x-heeler-signature", "hunter2"),
        ];
        for hook in bad {
            let debug = format!("{hook:?}");
            let error = hook.prepare().unwrap_err();
            assert!(error.is_config());
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?} of {debug}");
        }
    }

    /// Guards: no part of a URL that may be a secret, no value of a header, and no secret is printed.
    #[test]
    fn debug_output_contains_no_secrets() {
        let hook = hook().header("authorization", "Bearer hunter4").secret("hunter5").slack();
        let (debug, prepared) = (format!("{hook:?}"), format!("{:?}", hook.prepare().unwrap()));
        for text in [debug, prepared] {
            assert!(!text.contains("hunter") && !text.contains("T000") && !text.contains("user"), "{text}");
            assert!(text.contains("https://hooks.example.com") && text.contains("authorization"), "{text}");
        }
    }
}
