//! Setting a webhook up.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::body::Form;
use super::post::Post;
use crate::error::{Error, Result};

/// The whole of an attempt, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most that waiting for a connection takes of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages an hour to people, unless told otherwise.
const SLACK_PER_HOUR: u32 = 20;

/// What heeler or HTTP itself says.
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

/// Posts reports to a URL: as [short JSON](crate::report::SCHEMA#the-short-form), or as a message for [Slack](Self::slack) and its
/// like.
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
/// A `POST` for each report that goes out, and for each of its [updates](crate::Report::update) (of which
/// [messages](Self::slack) tell the news alone), with these headers:
///
/// | header | value |
/// |---|---|
/// | `Content-Type` | `application/json` |
/// | `Idempotency-Key` | `<id>.<update>` of the report; the same in every attempt |
/// | `X-Heeler-Timestamp` | with a [secret](Self::secret): when it was sent, in seconds since 1970 |
/// | `X-Heeler-Signature` | with a secret: `v1=` and a hexadecimal HMAC-SHA256 |
///
/// The body is the report in its [short form](crate::report::SCHEMA#the-short-form): all that is said of the request, the process
/// and the time, and the stacks and frames that tell where it is stuck, in a few kilobytes.
/// [`whole_reports`](Self::whole_reports) has all stacks sent with all their frames. Beyond a limit [an hour](Self::per_hour) it is a digest, which has no stacks but a line a fingerprint, the most frequent first:
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
/// An answer of 2xx. After 408, 425, 429, 5xx, a broken connection or no answer in [time](Self::timeout) the report may be
/// sent again; any other answer refuses it for good. So a report may arrive twice, when its answer got lost: drop what has
/// an `Idempotency-Key` that is known already.
///
/// Redirects are not followed, for they would take the report and its headers to where nobody meant to send them. A proxy
/// is used as the environment says (`HTTPS_PROXY`, `NO_PROXY`, ..), but never to this host itself. Certificates are
/// verified as the operating system would.
///
/// # Checking the signature
///
/// Take the bytes of the body before parsing them; the signature is over the timestamp, a full stop, and these bytes. Refuse
/// what is more than some minutes old, so that nobody can play a recorded report again:
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
/// A URL may be one by itself. Of it, only scheme, host and port are ever printed; of headers, the names; of the secret,
/// nothing.
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
    /// It is checked by [`ReportsBuilder::build`](crate::ReportsBuilder::build). `https://user:password@host/` is fine, and
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

    /// Posts messages for people, as incoming webhooks of Slack take them: what is slow, where, on which host, and the
    /// application's own frames with their source lines.
    ///
    /// Those of Mattermost and Discord (`https://discord.com/api/webhooks/<id>/<token>/slack`) take them, too: who knows no
    /// blocks shows the field `text`, which says the same in 1,900 characters at most. Everything from a request stands in
    /// code, where it cannot mention anybody, link or format; a backtick becomes an apostrophe there, and where `&lt;` is not
    /// understood, it is shown so. Of a report's updates, those are posted whose verdict or place is another than what was
    /// posted last.
    pub fn slack(mut self) -> Self {
        self.form = Form::Slack;
        self
    }

    /// Posts each report as a whole, with all its stacks and frames, as [`Report::to_json`](crate::Report::to_json) has it but on
    /// one line: tens of kilobytes, or a hundred for many branches. By default it is the
    /// [short form](crate::report::SCHEMA#the-short-form). Messages for [Slack](Self::slack) have no whole form, so the two together
    /// are an error at [`build`](crate::ReportsBuilder::build).
    pub fn whole_reports(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Sends this header along, for instance `authorization` with a token. The value is never printed.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Signs what is sent with this secret, so that the receiver can [verify](Self#checking-the-signature) who sent it, and that
    /// it was not changed. Use 32 random bytes or more.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Sets how long an attempt may take. Defaults to 10 seconds, of which connecting takes 5 at most.
    ///
    /// An attempt is to resolve the name, to connect, to send, and to wait for the response.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Allows `http` to other hosts: everybody on the way can read reports, headers and URL, and change what has no
    /// signature.
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

    /// Checks everything.
    pub(crate) fn prepare(self) -> Result<Post> {
        let url = self.checked_url()?;
        if self.timeout.is_zero() {
            return Err(Error::config("the webhook's timeout is zero: nothing would ever arrive"));
        }
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
        let headers = self.checked_headers()?;
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.timeout.min(CONNECT_TIMEOUT))
            // Reports are rare: a connection kept since the last one is most likely dead by now.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("heeler/", env!("CARGO_PKG_VERSION")));
        if is_here(&url) {
            client = client.no_proxy();
        }
        // Fails if there is no way to verify certificates; its text has no URL, for none is known to it.
        let client =
            client.build().map_err(|error| Error::config(format!("no HTTP client for the webhook: {error}")))?;
        let per_hour = self.per_hour.or((form == Form::Slack).then_some(SLACK_PER_HOUR));
        Ok(Post::new(client, url, form, headers, self.secret, self.timeout, per_hour))
    }

    fn checked_url(&self) -> Result<Url> {
        let url = Url::parse(&self.url)
            .map_err(|error| Error::config(format!("the webhook's URL, `https://..`, cannot be read: {error}")))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.plaintext || is_here(&url) => Ok(url),
            "http" => Err(Error::config(
                "the webhook's URL is not encrypted: use https, or allow `http` to other hosts with `plaintext()`",
            )),
            _ => Err(Error::config("the webhook's URL is neither https nor http")),
        }
    }

    fn checked_headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // What is no name may be a value in the wrong place: it is not repeated.
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

/// Whether the host is the one we are on, whatever a name server or a proxy says.
fn is_here(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Of a URL, what is no secret: `https://hooks.example.com:8443`.
pub(super) fn origin(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
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

    /// Guards: `build` says what is wrong, and does not repeat what may be a secret.
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
