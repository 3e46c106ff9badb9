//! Setting up where reports go.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

use super::reports::{Parts, Reports};
use super::trace_url::TraceUrl;
use crate::error::Error;
use crate::log::TARGET;
use crate::report::delivery::{AnySink, Limits, Spool};
#[cfg(feature = "fleet")]
use crate::report::fleet::Fleet;
use crate::report::privacy::Redactor;
use crate::report::rules::Rule;
use crate::report::sink::{AsyncSink, Boxed, Directory, Log, Sink};

/// The default bounds of a report directory: 256 MiB, and as many reports as a person looks through.
const MAX_BYTES: u64 = 256 << 20;
const MAX_REPORTS: usize = 1_000;

/// Sets up [`Reports`]. Create one with [`Reports::builder`].
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use heeler::Reports;
///
/// # let directory = tempfile::tempdir()?;
/// # let slow = directory.path();
/// // let slow = "/var/log/my-service/slow";
/// let reports = Reports::builder()
///     .directory(slow)
///     .directory_limits(64 << 20, 500)
///     .log_target("my_service::slow")
///     .repeat_after(Duration::from_secs(300))
///     .service("my-service", env!("CARGO_PKG_VERSION"))
///     .own_crates(["our-database-layer"])
///     .allow_headers(["host", "x-tenant"])
///     .secret_params(["patient"])
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing happens until `build`"]
pub struct ReportsBuilder {
    directory: Option<PathBuf>,
    max_bytes: u64,
    max_reports: usize,
    log: bool,
    log_level: Level,
    log_target: String,
    sinks: Vec<AnySink>,
    repeat_after: Duration,
    service: Option<(String, String)>,
    instance: Option<String>,
    zone: Option<String>,
    trace_url: Option<String>,
    endings: bool,
    rules: Vec<Rule>,
    own_crates: Vec<String>,
    headers: Option<Vec<String>>,
    secrets: Vec<String>,
    paths: Vec<String>,
    spool: Option<PathBuf>,
    limits: Limits,
    #[cfg(feature = "fleet")]
    fleet: Option<Fleet>,
    /// The first sink that could not be set up.
    failed: Option<Error>,
}

impl Default for ReportsBuilder {
    fn default() -> Self {
        let parts = Parts::default();
        Self {
            directory: None,
            max_bytes: MAX_BYTES,
            max_reports: MAX_REPORTS,
            log: true,
            log_level: Level::WARN,
            log_target: TARGET.to_owned(),
            sinks: parts.sinks,
            repeat_after: parts.repeat_after,
            service: parts.service,
            instance: parts.instance,
            zone: parts.zone,
            trace_url: None,
            endings: parts.endings,
            rules: parts.rules,
            own_crates: parts.own_crates,
            headers: None,
            secrets: Vec::new(),
            paths: Vec::new(),
            spool: None,
            limits: parts.limits,
            #[cfg(feature = "fleet")]
            fleet: None,
            failed: None,
        }
    }
}

impl ReportsBuilder {
    /// Also writes each report to this directory, as `slow_request_<time>_<id>.txt`, `.json` and `.svg`: the text, the
    /// JSON and the [flamegraph](crate::Report::to_svg). Creates the directory if it doesn't exist.
    ///
    /// Files appear whole or not at all, and only their owner may read them (on Unix). An update replaces the files of
    /// the report that it updates. By default there is no directory.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Keeps the report directory below this many bytes and this many reports, by removing the oldest a few at a time.
    /// Defaults to 256 MiB and 1,000 reports. Files that heeler did not write are neither counted nor removed.
    pub fn directory_limits(mut self, bytes: u64, reports: usize) -> Self {
        self.max_bytes = bytes;
        self.max_reports = reports;
        self
    }

    /// Turns off the log. By default, each report is logged as a `tracing` event: see [`log_level`](Self::log_level).
    pub fn without_log(mut self) -> Self {
        self.log = false;
        self
    }

    /// Sets the level at which reports are logged. Defaults to WARN.
    ///
    /// Each report is one `tracing` event. Its message is the report's [sentence](crate::Report::sentence). Its fields
    /// are `id`, `update`, `kind`, `verdict`, `method`, `uri`, `route`, `job`, `trace_id`, `span_id`,
    /// `elapsed_ms`, `threshold_ms`, `location`, `fingerprint`, `incident` and `suppressed`. Fields without a value are left out.
    ///
    /// The last update of a report, which says how the work has ended, is logged at INFO, or at a lower level if this is
    /// one. It also has the fields `ended` (`finished`, `dropped`, ..), `status` and `ended_after_ms`.
    ///
    /// With the feature `spans` and a [`SpanLayer`](https://docs.rs/heeler/latest/heeler/struct.SpanLayer.html), the
    /// event is made within the innermost span around everything that was captured, as long as that span is open.
    /// Formatters then print its fields, and `tracing-opentelemetry` adds the event to it.
    pub fn log_level(mut self, level: Level) -> Self {
        self.log_level = level;
        self
    }

    /// Sets the target under which reports are logged. Defaults to `heeler`.
    ///
    /// A custom target reaches `tracing` subscribers only. The `log` feature of `tracing`, which passes events on to
    /// the `log` crate where there is no subscriber, only knows targets that are fixed at compile time.
    pub fn log_target(mut self, target: impl Into<String>) -> Self {
        self.log_target = target.into();
        self
    }

    /// Also hands each report to this sink. Sinks are called in the order in which they were added, after the
    /// directory and the log.
    pub fn sink(self, sink: impl Sink) -> Self {
        self.any_sink(Ok(AnySink::Blocking(Arc::new(sink))))
    }

    /// Also hands each report to this async sink. Other sinks don't wait for it.
    pub fn async_sink(self, sink: impl AsyncSink) -> Self {
        self.any_sink(Ok(AnySink::Async(Arc::new(Boxed(sink)))))
    }

    /// Keeps each report in this directory until every sink has it: it is written before the first attempt and removed
    /// after the last. Creates the directory if it doesn't exist. By default there is no spool.
    ///
    /// Reports that wait for a sink then survive the end of the process, even by `kill -9` or a power failure. The next
    /// process with the same spool sends them, or another process that shares the spool does, within half a minute.
    /// Several processes may share a spool if they have the same sinks. A process that takes over a report sends it to
    /// its own sinks, matched by their names in the log (`email`, `email 2`), and removes it when they have it. A
    /// report may arrive twice if the process ends after it arrives and before that is recorded. A file that cannot be
    /// read as a report is moved to `unreadable` in the spool, which keeps the newest 100 files, 64 MiB at most.
    /// Reports written by a later version of heeler wait for a process of that version, until they are as old as
    /// [`retry_for`](Self::retry_for) allows, an hour at least. The newest 256 MiB of them are kept. If the disk is
    /// full, reports are kept in memory as without a spool, and counted as [`not_spooled`](crate::Stats::not_spooled).
    ///
    /// With a spool, [`build`](Self::build) starts the reporter's thread, so that reports left behind don't wait for
    /// the first layer. Only the service should be able to write to the directory: its files are taken for reports, and
    /// sent.
    pub fn spool(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spool = Some(directory.into());
        self
    }

    /// Sets how many reports may wait in memory for one sink that doesn't take them. Defaults to 1,000.
    ///
    /// Beyond that, the oldest report is dropped, counted, and mentioned in the next report that arrives there. With a
    /// [`spool`](Self::spool), up to 10,000 more wait on disk. A digest covers 10,000 reports at most, or this many if
    /// that is more. A report takes about 20 kilobytes, or 150 with the stacks of eight workers: half a kilobyte per
    /// frame. See also [`memory_bytes`](Self::memory_bytes).
    pub fn max_queued(mut self, reports: usize) -> Self {
        self.limits.queue = reports;
        self
    }

    /// Sets how many bytes of memory everything that waits may take while a sink hangs or is down. Defaults to 64 MiB.
    ///
    /// Half of it is for evidence that waits to become a report, half for reports that wait for sinks. What several
    /// sinks or several requests share counts once. Beyond that, the oldest goes first: to the [spool](Self::spool) if
    /// there is one. Otherwise it is dropped and counted, as [`dropped`](crate::Stats::dropped) or as
    /// [`undelivered`](crate::Stats::undelivered). The newest of each half stays, whatever it takes. Each `Reports` has
    /// this much; clones share it.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.limits.memory = bytes;
        self
    }

    /// Sets how long a report is tried again if a sink doesn't take it. Defaults to three days. With zero, each report
    /// is tried once.
    ///
    /// It is tried again after a second, then with pauses that double up to five minutes, each shorter or longer by up
    /// to a half. The time counts from this process's first attempt.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.limits.retry_for = time;
        self
    }

    /// Adds a sink, or remembers for [`build`](Self::build) why it cannot be set up.
    pub(in crate::report) fn any_sink(mut self, sink: Result<AnySink, Error>) -> Self {
        match sink {
            Ok(sink) => self.sinks.push(sink),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Sets how long reports with the same [`fingerprint`](crate::Report::fingerprint) are held back after one was sent.
    /// Defaults to 60 seconds. With zero, every report is sent.
    ///
    /// Such reports are about the same place on the same route. The next one that is sent says how many were held back.
    /// If none has come by the end of that time, a line in the log says it. Updates of a report that was sent are sent,
    /// too, without a count.
    pub fn repeat_after(mut self, time: Duration) -> Self {
        self.repeat_after = time;
        self
    }

    /// Sets the service's name and version, which every report shows. Defaults to what the environment says:
    /// `OTEL_SERVICE_NAME`, and `service.name` and `service.version` in `OTEL_RESOURCE_ATTRIBUTES`, as for
    /// [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    pub fn service(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.service = Some((name.into(), version.into()));
        self
    }

    /// Sets which of the service's instances this is. Defaults to what the environment says: `service.instance.id` or
    /// `k8s.pod.name` in `OTEL_RESOURCE_ATTRIBUTES`, or `POD_NAME`, which Kubernetes' downward API can set to the name of the
    /// pod.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Sets the zone that the service runs in. Defaults to what the environment says: `cloud.availability_zone` in
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.zone = Some(name.into());
        self
    }

    /// Sets where the traces of reported work can be looked at: a URL with `{trace_id}` in it, and `{span_id}` if that
    /// is of use there.
    ///
    /// ```
    /// let reports = heeler::Reports::builder().trace_url("https://tracing.example.com/trace/{trace_id}").build()?;
    /// # Ok::<(), heeler::Error>(())
    /// ```
    ///
    /// Text, HTML and mails then link to the trace, and the JSON has the link as
    /// [`trace_url`](crate::Report::trace_url). The ids are those of the OpenTelemetry span around the work (feature
    /// `otel`), or else of the request's `traceparent`, whether or not reports may
    /// [show](Self::allow_headers) that header. What isn't allowed in a URL is percent-encoded. By default, there is no
    /// link.
    pub fn trace_url(mut self, template: impl Into<String>) -> Self {
        self.trace_url = Some(template.into());
        self
    }

    /// Turns off the last update of a report, which says how the work has ended.
    ///
    /// By default, each report about work that goes on gets one when that work ends: "finished after 2.60 s with 200".
    /// It has the report's id, the next number as its [`update`](crate::Report::update), and an
    /// [`ending`](crate::Report::ending). It goes out if its report did. The log has it at level INFO, and the
    /// directory in the files of its report. Webhooks get it, messages for Slack and Sentry don't. It is mailed
    /// only if [`Email::endings`](https://docs.rs/heeler/latest/heeler/report/email/struct.Email.html#method.endings)
    /// asks for it.
    pub fn without_endings(mut self) -> Self {
        self.endings = false;
        self
    }

    /// Treats the code of these crates as the application's own, even if it comes from a registry or a git repository.
    /// Defaults to the executable's crate and those of its workspace.
    pub fn own_crates(mut self, crates: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.own_crates.extend(crates.into_iter().map(Into::into));
        self
    }

    /// Shows these request headers and no others. Defaults to `host`, `user-agent`, `x-request-id` and `traceparent`.
    ///
    /// `authorization`, `proxy-authorization`, `cookie` and `set-cookie` cannot be allowed: [`build`](Self::build) fails.
    pub fn allow_headers(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.headers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Hides the values of query parameters, span fields and other named values with these names. Names that look like
    /// secrets by themselves (`password`, `access_token`, `X-Amz-Signature`, ..) are always hidden: see
    /// [Privacy](crate::report#privacy). Case and separators don't matter.
    pub fn secret_params(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.secrets.extend(names.into_iter().map(Into::into));
        self
    }

    /// Hides secrets that are segments of a path, and so have no name. `{..}` stands for one segment.
    ///
    /// ```
    /// # use heeler::Reports;
    /// let reports = Reports::builder()
    ///     .secret_paths(["/reset/{token}", "/users/*/keys/{key}", "/bot{token}/send", "/files/{*rest}"])
    ///     .build()?;
    /// # Ok::<(), heeler::Error>(())
    /// ```
    ///
    /// `/reset/hunter2/confirm` is reported as `/reset/[redacted]/confirm`. `*` stands for any one segment, which is
    /// shown, and `{*rest}` for everything to the end. A pattern with a leading slash matches from the start of the
    /// path, one without (`reset/{token}`) matches anywhere. Case and percent-encoding don't matter. A pattern without
    /// a placeholder fails [`build`](Self::build). Defaults to none.
    pub fn secret_paths(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.paths.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Adds a rule: what happens when requests on one route keep being slow. May be called more than once. Each rule counts
    /// for itself. By default there is none.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use heeler::{Reports, Rule};
    ///
    /// let reports = Reports::builder().rule(Rule::slow(5, Duration::from_secs(60)).profile_next()).build()?;
    /// # Ok::<(), heeler::Error>(())
    /// ```
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Makes this instance a member of a fleet: people are told once of an incident that hits many instances. See
    /// [`fleet`](crate::report::fleet). By default each instance is alone.
    ///
    /// [`build`](Self::build) starts the fleet's thread. If that fails, the log says so, and this instance tells people for
    /// itself.
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fn fleet(mut self, fleet: Fleet) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Checks all settings and opens the directory.
    ///
    /// # Errors
    ///
    /// [`is_directory`](Error::is_directory) if the directory, a mail directory or the spool is not a directory, or cannot be
    /// created or written to. [`is_config`](Error::is_config) for a bound of zero, an empty log target, a header that cannot
    /// be allowed, a secret path that hides nothing, a [trace URL](Self::trace_url) without `{trace_id}` or that isn't one of
    /// `http` or `https`, a [rule](Self::rule) that does nothing, a fleet whose times or prefix cannot be used, or a sink whose settings cannot be used.
    pub fn build(self) -> Result<Reports, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.max_bytes == 0 || self.max_reports == 0 {
            return Err(Error::config("a report directory that may hold nothing: its bounds must be above zero"));
        }
        if self.limits.queue == 0 {
            return Err(Error::config("a queue that may hold nothing: its bound must be above zero"));
        }
        if self.limits.memory == 0 {
            return Err(Error::config("no memory for what waits: its bound must be above zero"));
        }
        if self.log_target.is_empty() {
            return Err(Error::config("the log target is empty"));
        }
        self.rules.iter().try_for_each(Rule::check)?;
        #[cfg(feature = "fleet")]
        self.fleet.iter().try_for_each(Fleet::check)?;
        let mut redactor = Redactor::default();
        redactor.secret_names(&self.secrets);
        redactor.secret_paths(&self.paths)?;
        if let Some(headers) = &self.headers {
            redactor.allow_headers(headers)?;
        }
        let mut sinks: Vec<AnySink> = Vec::new();
        // First, because the log may hang: at a pipe that nobody reads, for example.
        if let Some(path) = &self.directory {
            sinks.push(AnySink::Blocking(Arc::new(Directory::new(path, self.max_bytes, self.max_reports)?)));
        }
        if self.log {
            sinks.push(AnySink::Blocking(Arc::new(Log::new(self.log_level, &self.log_target))));
        }
        sinks.extend(self.sinks);
        let trace_url = self.trace_url.as_deref().map(TraceUrl::parse).transpose()?;
        let spool = self.spool.as_deref().map(Spool::open).transpose()?;
        let (limits, endings) = (self.limits, self.endings);
        let (repeat_after, own_crates, service) = (self.repeat_after, self.own_crates, self.service);
        Ok(Reports::from_parts(Parts {
            sinks,
            spool,
            limits,
            repeat_after,
            redactor,
            own_crates,
            service,
            instance: self.instance,
            zone: self.zone,
            trace_url,
            endings,
            rules: self.rules,
            #[cfg(feature = "fleet")]
            fleet: self.fleet,
        }))
    }
}

impl fmt::Debug for ReportsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sinks may hold passwords, and are asked for their names only when those are needed.
        f.debug_struct("ReportsBuilder")
            .field("directory", &self.directory)
            .field("log", &self.log)
            .field("sinks", &self.sinks.len())
            .field("repeat_after", &self.repeat_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    #[test]
    fn a_builder_applies_all_its_settings() {
        let place = tempfile::tempdir().unwrap();
        let builder = Reports::builder().directory(place.path().join("slow")).log_target("x").log_level(Level::INFO);
        assert!(format!("{builder:?}").contains("slow"));
        let reports = builder.build().unwrap();
        // The evidence is on disk before a log that may hang is called.
        assert!(format!("{reports:?}").contains(r#"["directory", "log"]"#));
        reports.deliver(report());
        assert_eq!(std::fs::read_dir(place.path().join("slow")).unwrap().count(), 3);
        assert_eq!(reports.stats().failed_deliveries, 0);
    }

    #[test]
    fn bad_settings_are_errors() {
        let place = tempfile::NamedTempFile::new().unwrap();
        assert!(Reports::builder().directory(place.path()).build().unwrap_err().is_directory());
        assert!(Reports::builder().directory_limits(0, 1).build().unwrap_err().is_config());
        assert!(Reports::builder().directory_limits(1, 0).build().unwrap_err().is_config());
        assert!(Reports::builder().memory_bytes(0).build().unwrap_err().is_config());
        assert!(Reports::builder().log_target("").build().unwrap_err().is_config());
        assert!(Reports::builder().allow_headers(["cookie"]).build().unwrap_err().is_config());
        assert!(Reports::builder().secret_paths(["/reset"]).build().unwrap_err().is_config());
        assert!(Reports::builder().trace_url("https://t.example/").build().unwrap_err().is_config());
        assert!(Reports::builder().rule(Rule::slow(1, Duration::ZERO)).build().unwrap_err().is_config());
        assert!(Reports::builder().allow_headers([""]).build().unwrap_err().is_config());
        assert!(Reports::builder().allow_headers([""; 0]).repeat_after(Duration::MAX).build().is_ok());
    }
}
