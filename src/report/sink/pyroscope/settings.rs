//! Setting up a Pyroscope server.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use super::labels;
use super::pushes::Pushes;
use super::slow::SlowTraffic;
use super::target::{Api, Target};
use crate::error::{Error, Result};
use crate::report::sink::http::{Endpoint, checked_url, origin};

/// The default timeout of a whole attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the timelines of reports are sent by default. Pyroscope's own clients push as often.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many profiles may wait by default.
const MAX_QUEUED: usize = 32;

const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// How errors name its settings.
const WHOSE: &str = "Pyroscope's";

/// Pushes profiles to a [Pyroscope](https://grafana.com/docs/pyroscope/latest/) server, or to what speaks its protocol.
///
/// ```
/// use heeler::{ProfileLayer, Pyroscope, Reports, authorize};
///
/// # fn main() -> Result<(), heeler::Error> {
/// # let (user, token) = ("4711", "a token");
/// let pyroscope = Pyroscope::new("https://profiles.example.com")
///     .basic_auth(user, token)
///     .service("photos")
///     .label("region", "eu-west-1");
///
/// // Each profile that somebody asks for, when it is done.
/// let layer = ProfileLayer::new(authorize::debug_builds()).pyroscope(pyroscope.clone())?;
///
/// // Where the time of slow requests went, all the time.
/// let reports = Reports::builder().pyroscope(pyroscope).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # What is pushed
///
/// Wall-clock profiles, of the type `wall:wall:nanoseconds:wall:nanoseconds`. `wall:samples:count:wall:nanoseconds` counts
/// their samples and waits. If a profiled request had spawned work, `wall:beside:nanoseconds:wall:nanoseconds` has the time
/// in which that ran beside it. These are the labels:
///
/// | label | value |
/// |---|---|
/// | `service_name` | the [service](Self::service) |
/// | `source` | `profile`: a profile of a [`ProfileLayer`](crate::ProfileLayer); `slow_requests`: timelines of reports |
/// | `route` | the route's template, `/users/{id}`, if the router provides it (feature `axum`) |
/// | `job` | the job's name, for work that is no request |
/// | `state` | what the work did: `on_cpu`, `blocked`, `no_cpu`, `waiting`, `runnable`; in timelines `running` (inside a poll), `waiting`, `yielding`, `runnable`, `unobserved` |
/// | `trace_id`, `span_id` | of samples: the trace that the work belongs to, if it is known |
/// | your [own](Self::label) | |
///
/// 200 routes and jobs are told apart. The others have the value `other`. Pyroscope keeps `trace_id` and `span_id` beside the
/// samples, where they make no series. For `trace_id` that is so since Pyroscope 2.1: with an earlier server, call
/// [`without_trace_ids`](Self::without_trace_ids).
///
/// Nothing else leaves the process: functions, files and lines of stacks, modules with their build ids, but no URI, no
/// header and no note. Routes and names of jobs went through the [filter](crate::report#privacy) that everything goes
/// through. Everybody who may look at the server sees the profiles, whoever asked for them.
///
/// # A profile of slow traffic
///
/// A report says where its work's time went. [`ReportsBuilder::pyroscope`](crate::ReportsBuilder::pyroscope) pushes that
/// every [15 seconds](Self::interval), if there was a report, all reports in one profile. An update adds only what is new in
/// it, so each request's time counts once. A stack is that of the wait's first branch. Time that was not observed, before
/// the request was armed, is `[not observed]`. For updates, the last 1,024 pieces of work are remembered: if more are reported
/// before an update of one, all time of that one counts again.
///
/// It is a profile of what was reported: of requests beyond their threshold, up to their last report. Reports that are held
/// back are missing: see [`repeat_after`](crate::ReportsBuilder::repeat_after). A job or a timebox within a request that is
/// reported by itself counts by itself, too.
///
/// # How it is sent
///
/// As pprof, in JSON, by the push API (`/push.v1.PusherService/Push`). With [`ingest`](Self::ingest), the same pprof goes to
/// `/ingest`, whose parameter `name` has the labels in a form without escapes. Other characters than letters, digits and
/// `_.-/` in the name of the service become `_` there, and labels of your own may have neither commas nor braces.
///
/// A profile is at most what a server accepts by default: 4 MiB before compression and 16,000 samples. If it is more, the
/// stacks with the least time are `[other stacks]`, and no time is lost.
///
/// heeler's tests check all of this against the protocol as it is documented, and not against a running Pyroscope.
///
/// # What counts as delivered
///
/// A response of 2xx. After 408, 425, 429, 5xx, a broken connection or no response in [time](Self::timeout), it is sent
/// again, after a second, then with pauses that double up to five minutes. Any other response refuses it for good.
/// Redirects are not followed. If a response gets lost, a profile may be counted twice. Proxies and certificates are treated
/// as by `Webhook` (feature `webhook`).
///
/// Profiles are tried again for an hour, because a server refuses older ones by default. They wait in memory, up to
/// [`max_queued`](Self::max_queued), and [`ProfileLayer::flush`](crate::ProfileLayer::flush) waits for them.
/// [`ProfileLayer::pyroscope_stats`](crate::ProfileLayer::pyroscope_stats) counts them. For timelines,
/// [`retry_for`](crate::ReportsBuilder::retry_for), [`spool`](crate::ReportsBuilder::spool),
/// [`flush`](crate::Reports::flush) and [`sinks`](crate::Reports::sinks) of the reports hold. Failures are logged once a
/// minute at most.
///
/// # Secrets
///
/// Only the scheme, host and port of the URL are ever printed, and nothing of the credentials, the tenant, and the values of
/// labels.
#[derive(Clone)]
#[must_use = "nothing happens until it is given to `ProfileLayer::pyroscope` or `ReportsBuilder::pyroscope`"]
pub struct Pyroscope {
    url: String,
    api: Api,
    service: Option<String>,
    credentials: Option<String>,
    tenant: Option<String>,
    labels: Vec<(String, String)>,
    trace_ids: bool,
    timeout: Duration,
    interval: Duration,
    max_queued: usize,
    plaintext: bool,
}

impl Pyroscope {
    /// Pushes to the server at this URL: `https`, or `http` to this host itself. A path is kept, and the API's own is
    /// appended to it.
    ///
    /// [`ProfileLayer::pyroscope`](crate::ProfileLayer::pyroscope) and
    /// [`ReportsBuilder::build`](crate::ReportsBuilder::build) check it.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api: Api::Push,
            service: None,
            credentials: None,
            tenant: None,
            labels: Vec::new(),
            trace_ids: true,
            timeout: TIMEOUT,
            interval: INTERVAL,
            max_queued: MAX_QUEUED,
            plaintext: false,
        }
    }

    /// Sets the label `service_name`. Defaults to the [service](crate::ReportsBuilder::service) of the reports, or else to
    /// what OpenTelemetry's variables in the environment say, or else to the name of the executable.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Sends this user and password. They are never printed.
    pub fn basic_auth(mut self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let pair = format!("{}:{}", user.as_ref(), password.as_ref());
        self.credentials = Some(format!("Basic {}", STANDARD.encode(pair)));
        self
    }

    /// Sends this token. It is never printed. Replaces [`basic_auth`](Self::basic_auth).
    pub fn bearer_token(mut self, token: impl AsRef<str>) -> Self {
        self.credentials = Some(format!("Bearer {}", token.as_ref()));
        self
    }

    /// Names the tenant, in the header `X-Scope-OrgID`.
    pub fn tenant(mut self, id: impl Into<String>) -> Self {
        self.tenant = Some(id.into());
        self
    }

    /// Adds a label to everything that is pushed, for instance `region`. At most 16.
    ///
    /// Each value of each label is a series of its own on the server, so a label of the instance makes as many as there
    /// are instances.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Pushes to `/ingest` instead of the push API, for a proxy that only lets that through. Neither the service's name nor
    /// a label can then have every character: see [above](Self#how-it-is-sent).
    pub fn ingest(mut self) -> Self {
        self.api = Api::Ingest;
        self
    }

    /// Leaves out `trace_id`. A server before Pyroscope 2.1 takes it for a label of the series, and makes one for each
    /// trace.
    pub fn without_trace_ids(mut self) -> Self {
        self.trace_ids = false;
        self
    }

    /// Sets how long an attempt may take. Defaults to 10 seconds, of which connecting takes 5 at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often the timelines of reports are pushed. Defaults to 15 seconds. A
    /// [`ProfileLayer`](crate::ProfileLayer) pushes each profile when it is done.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how many profiles may wait for the server. Defaults to 32, each of which takes 4 MiB at most and usually a
    /// hundredth of it. Beyond that, the oldest is dropped and counted. Reports wait as
    /// [`ReportsBuilder::max_queued`](crate::ReportsBuilder::max_queued) says.
    pub fn max_queued(mut self, profiles: usize) -> Self {
        self.max_queued = profiles;
        self
    }

    /// Allows `http` to other hosts. Everybody on the way can then read the profiles and the credentials.
    pub fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Checks all settings, for reports.
    pub(crate) fn prepare(self) -> Result<SlowTraffic> {
        let interval = self.interval;
        if interval.is_zero() {
            return Err(Error::config("Pyroscope's interval is zero"));
        }
        Ok(SlowTraffic::new(self.target()?, interval))
    }

    /// Checks all settings, for profiles.
    pub(crate) fn prepare_for_profiles(self) -> Result<Pushes> {
        let max_queued = self.max_queued;
        if max_queued == 0 {
            return Err(Error::config("Pyroscope's queue has no place for any profile"));
        }
        Ok(Pushes::new(self.target()?, max_queued))
    }

    fn target(self) -> Result<Target> {
        let url = checked_url(WHOSE, &self.url, self.plaintext)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::config("Pyroscope's URL has a query or a fragment: it is the server's address alone"));
        }
        labels::check(&self.labels, self.api == Api::Ingest)?;
        if self.service.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return Err(Error::config("the name of the service for Pyroscope is empty"));
        }
        let endpoint = Endpoint::new(WHOSE, url, self.headers()?, self.timeout)?;
        Ok(Target::new(endpoint, self.api, self.service, self.labels, self.trace_ids))
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let settings =
            [(header::AUTHORIZATION, &self.credentials, "credentials have"), (TENANT, &self.tenant, "tenant has")];
        for (name, value, which) in settings {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| Error::config(format!("Pyroscope's {which} characters that no header has")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

impl fmt::Debug for Pyroscope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pyroscope")
            .field("url", &Url::parse(&self.url).map_or_else(|_| "not a URL".to_owned(), |url| origin(&url)))
            .field("api", &self.api)
            .field("service", &self.service)
            .field("credentials", &self.credentials.is_some())
            .field("tenant", &self.tenant.is_some())
            .field("labels", &self.labels.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("trace_ids", &self.trace_ids)
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .field("max_queued", &self.max_queued)
            .field("plaintext", &self.plaintext)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pyroscope() -> Pyroscope {
        Pyroscope::new("https://user:hunter2@profiles.example.com/T0KEN")
            .basic_auth("hunter3", "hunter4")
            .tenant("hunter5")
            .label("region", "hunter6")
    }

    /// Guards: a bad setting is an error that says what is wrong, and doesn't repeat what may be a secret.
    #[test]
    fn bad_settings_are_errors_without_secrets() {
        for good in [pyroscope(), pyroscope().ingest(), Pyroscope::new("http://localhost:4040")] {
            good.clone().prepare().unwrap();
            good.prepare_for_profiles().unwrap();
        }
        let bad = [
            Pyroscope::new("hunter2"),
            Pyroscope::new("http://hunter2.example.com"),
            Pyroscope::new("https://h/?key=hunter2"),
            Pyroscope::new("https://h/#hunter2"),
            pyroscope().timeout(Duration::ZERO),
            pyroscope().bearer_token("hunter2\n"),
            pyroscope().tenant("hunter2\n"),
            pyroscope().service(" "),
            pyroscope().label("a b", "hunter2"),
            pyroscope().ingest().label("zone", "hunter2}"),
        ];
        for pyroscope in bad {
            let error = pyroscope.clone().prepare().unwrap_err();
            assert!(error.is_config() && pyroscope.clone().prepare_for_profiles().is_err(), "{pyroscope:?}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        }
        assert!(pyroscope().interval(Duration::ZERO).prepare().is_err());
        assert!(pyroscope().max_queued(0).prepare_for_profiles().is_err());
    }

    /// Guards: no credentials, no tenant, no label's value and no path are printed.
    #[test]
    fn debug_output_contains_no_secrets() {
        let bearer = pyroscope().bearer_token("hunter7");
        let (reports, profiles) = (bearer.clone().prepare().unwrap(), pyroscope().prepare_for_profiles().unwrap());
        for text in [format!("{bearer:?}"), format!("{reports:?}"), format!("{profiles:?}")] {
            assert!(!text.contains("hunter") && !text.contains("T0KEN") && !text.contains("user"), "{text}");
            assert!(text.contains("https://profiles.example.com"), "{text}");
        }
    }
}
