//! The handle that all reports go through.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use http::HeaderName;

use super::builder::ReportsBuilder;
#[cfg(feature = "console")]
use super::history::{History, Incident};
use super::progress::Progress;
use super::reporter;
use super::throttle::{Overdue, Throttle};
use super::trace_url::TraceUrl;
use super::unended::Unended;
use crate::capture::PerProcess;
#[cfg(feature = "fleet")]
use crate::disabled::is_disabled;
use crate::inflight::{ReportTarget, Target};
use crate::log::TARGET;
use crate::log::log_safely;
#[cfg(feature = "console")]
use crate::report::Report;
use crate::report::delivery::{AnySink, Dispatch, Gate, Inherited, Limits, Spool};
#[cfg(feature = "fleet")]
use crate::report::fleet::{Fleet, FleetSink, FleetStats, Member};
use crate::report::metrics::stats::{Counters, SinkStats, Stats, count};
use crate::report::privacy::{Redactor, TRACEPARENT};
#[cfg(feature = "console")]
use crate::report::rules::RuleBudget;
use crate::report::rules::{Rule, Rules};
use crate::report::sink::Log;
#[cfg(feature = "fleet")]
use crate::report::{ProcessInfo, complete};
use crate::sync::lock_std;

/// Decides where reports go, and what they contain. Build it once and clone it freely: clones share everything.
///
/// [`Reports::default`] writes to the log alone.
///
/// # Example
///
/// ```
/// use heeler::Reports;
///
/// # let directory = tempfile::tempdir()?;
/// # let slow = directory.path();
/// // let slow = "/var/log/my-service/slow";
/// let reports = Reports::builder().directory(slow).service("my-service", env!("CARGO_PKG_VERSION")).build()?;
/// assert_eq!(reports.stats().delivered, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Reports {
    pub(super) inner: Arc<Inner>,
}

// The contents are valid after every single statement, also for code that runs after a panic.
impl std::panic::UnwindSafe for Reports {}
impl std::panic::RefUnwindSafe for Reports {}

/// A weak reference to [`Reports`].
pub(in crate::report) struct WeakReports(Weak<Inner>);

impl WeakReports {
    pub(in crate::report) fn upgrade(&self) -> Option<Reports> {
        self.0.upgrade().map(|inner| Reports { inner })
    }

    pub(in crate::report) fn is(&self, reports: &Reports) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&reports.inner))
    }
}

pub(super) struct Inner {
    pub(super) state: PerProcess<State, MakeState>,
    pub(super) redactor: Redactor,
    pub(super) own_crates: Vec<String>,
    pub(super) service: Option<(String, String)>,
    pub(super) instance: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) trace_url: Option<TraceUrl>,
}

pub(super) type MakeState = Box<dyn Fn() -> State + Send + Sync>;

/// The mutable part. A child of `fork` has its own, because the parent still delivers what is on its way to the sinks.
pub(super) struct State {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) throttle: Mutex<Throttle>,
    pub(super) progress: Mutex<Progress>,
    /// `None` if endings are not reported.
    pub(super) unended: Option<Mutex<Unended>>,
    /// What follows from many slow requests.
    pub(super) rules: Rules,
    pub(super) counters: Arc<Counters>,
    /// `None` if there is no fleet, or if its thread could not be started.
    #[cfg(feature = "fleet")]
    pub(super) member: Option<Arc<Member>>,
    #[cfg(feature = "console")]
    pub(super) history: OnceLock<Mutex<History>>,
}

/// What the builder makes [`Reports`] from.
pub(in crate::report) struct Parts {
    pub(in crate::report) sinks: Vec<AnySink>,
    pub(in crate::report) spool: Option<Spool>,
    pub(in crate::report) limits: Limits,
    pub(in crate::report) repeat_after: Duration,
    pub(in crate::report) redactor: Redactor,
    pub(in crate::report) own_crates: Vec<String>,
    pub(in crate::report) service: Option<(String, String)>,
    pub(in crate::report) instance: Option<String>,
    pub(in crate::report) zone: Option<String>,
    pub(in crate::report) trace_url: Option<TraceUrl>,
    pub(in crate::report) endings: bool,
    pub(in crate::report) rules: Vec<Rule>,
    #[cfg(feature = "fleet")]
    pub(in crate::report) fleet: Option<Fleet>,
}

impl Target for Inner {
    fn count_not_captured(&self) {
        count(&self.state.get().counters.not_captured);
    }

    fn count_captured_after_all(&self) {
        self.state.get().counters.not_captured.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_not_captured(&self) -> u64 {
        let counters = &self.state.get().counters;
        let all = counters.not_captured.load(Ordering::Relaxed);
        all.saturating_sub(counters.not_captured_before.swap(all, Ordering::Relaxed))
    }
}

impl Reports {
    /// Returns a builder that sets where reports go. By default they go to the log alone.
    pub fn builder() -> ReportsBuilder {
        ReportsBuilder::default()
    }

    pub(in crate::report) fn from_parts(parts: Parts) -> Self {
        let inherited = parts.spool.as_ref().map(Spool::held);
        let first = Mutex::new(parts.spool);
        #[cfg(feature = "fleet")]
        let process = {
            let (service, version) = parts.service.clone().unzip();
            let (instance, zone) = (parts.instance.clone(), parts.zone.clone());
            ProcessInfo { service, version, instance, zone, ..ProcessInfo::default() }
        };
        #[cfg(feature = "fleet")]
        let is_member = parts.fleet.is_some();
        let state = move || {
            // The builder has already opened the first one.
            let opened = first.try_lock().ok().and_then(|mut first| first.take());
            let spool = opened.or_else(|| open_in_child(inherited.as_ref()?));
            let counters = Counters::registered();
            #[cfg_attr(not(feature = "fleet"), allow(unused_mut, reason = "a fleet is a sink, too"))]
            let (mut sinks, mut gate): (_, Option<Arc<dyn Gate>>) = (parts.sinks.clone(), None);
            #[cfg(feature = "fleet")]
            let member = parts.fleet.as_ref().and_then(|fleet| join(fleet, process.clone()));
            #[cfg(feature = "fleet")]
            if let Some(member) = &member {
                sinks.push(AnySink::Async(Arc::new(FleetSink(Arc::clone(member)))));
                gate = Some(Arc::new(Arc::clone(member)));
            }
            let dispatch = Arc::new(Dispatch::new(sinks, spool, parts.limits, Arc::clone(&counters), gate));
            #[cfg(feature = "fleet")]
            if let Some(member) = &member {
                member.start(&dispatch);
            }
            State {
                dispatch,
                #[cfg(feature = "fleet")]
                member,
                throttle: Mutex::new(Throttle::new(parts.repeat_after)),
                progress: Mutex::default(),
                unended: parts.endings.then(Mutex::default),
                rules: Rules::new(&parts.rules),
                counters,
                #[cfg(feature = "console")]
                history: OnceLock::new(),
            }
        };
        let inner = Inner {
            state: PerProcess::new(Box::new(state) as MakeState),
            redactor: parts.redactor,
            own_crates: parts.own_crates,
            service: parts.service,
            instance: parts.instance,
            zone: parts.zone,
            trace_url: parts.trace_url,
        };
        let reports = Self { inner: Arc::new(inner) };
        #[cfg(feature = "fleet")]
        let is_known = is_member || reports.dispatch().has_spool();
        #[cfg(not(feature = "fleet"))]
        let is_known = reports.dispatch().has_spool();
        if is_known {
            // Reports left by an earlier process go out even if this one never has anything to report.
            reporter::start();
            reporter::know(&reports);
        }
        reports
    }

    /// Returns how many reports there were, and what happened to them.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.state.get().counters.read()
    }

    /// Returns the state of each sink, in the order in which sinks are called: the directory, the log, then the others.
    /// It shows which sink is down while the others go on.
    ///
    /// ```
    /// for sink in heeler::Reports::default().sinks() {
    ///     println!("{}: {} delivered, {} queued, {} failures", sink.name, sink.delivered, sink.queued, sink.failed_deliveries);
    /// }
    /// ```
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStats> {
        self.inner.state.get().dispatch.sinks().collect()
    }

    /// Returns what this instance has done as a member of its fleet, if it is one.
    ///
    /// ```
    /// assert_eq!(heeler::Reports::default().fleet(), None);
    /// ```
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    #[must_use]
    pub fn fleet(&self) -> Option<FleetStats> {
        self.inner.state.get().member.as_ref().map(|member| member.stats())
    }

    /// Returns this instance as a member of its fleet, if it is one.
    #[cfg(all(feature = "fleet", feature = "console"))]
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.inner.state.get().member.as_ref()
    }

    /// Returns the reports used where nothing else is set: they go to the log alone.
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Reports> = OnceLock::new();
        SHARED.get_or_init(Self::default).clone()
    }

    /// Returns a weak reference, for the reporter, which must not keep sinks alive.
    pub(in crate::report) fn downgrade(&self) -> WeakReports {
        WeakReports(Arc::downgrade(&self.inner))
    }

    /// Returns an address that identifies these reports and their clones while they exist.
    pub(in crate::report) fn address(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// Returns how many bytes of evidence may wait to become reports.
    pub(in crate::report) fn evidence_bytes(&self) -> usize {
        self.inner.state.get().dispatch.evidence_bytes()
    }

    /// Returns the service's name, if it is set.
    #[cfg(feature = "console")]
    pub(crate) fn service_name(&self) -> Option<&str> {
        self.inner.service.as_ref().map(|(name, _)| &**name)
    }

    /// Remembers from now on what reports are about.
    #[cfg(feature = "console")]
    pub(crate) fn keep_history(&self) {
        self.inner.state.get().history.get_or_init(Mutex::default);
    }

    /// Returns what reports were about, the last one first.
    #[cfg(feature = "console")]
    pub(crate) fn history(&self) -> Vec<Incident> {
        let history = self.inner.state.get().history.get();
        history.map(|history| lock_std(history).list(std::time::SystemTime::now())).unwrap_or_default()
    }

    /// Returns how often each rule may fire.
    #[cfg(feature = "console")]
    pub(crate) fn budgets(&self) -> Vec<Arc<RuleBudget>> {
        self.inner.state.get().rules.budgets()
    }

    /// Returns the last report with that fingerprint that was sent.
    #[cfg(feature = "console")]
    pub(crate) fn remembered(&self, fingerprint: &str) -> Option<Report> {
        lock_std(self.inner.state.get().history.get()?).report(fingerprint)
    }

    /// Returns what decides what may be shown.
    pub(in crate::report) fn redactor(&self) -> &Redactor {
        &self.inner.redactor
    }

    /// Returns the headers that a report may show.
    pub(crate) fn allowed_headers(&self) -> &[HeaderName] {
        self.inner.redactor.allowed_headers()
    }

    /// Returns the headers that a row keeps of its request: those, and the one with the ids of the trace. A report has
    /// the ids in any case, and comparing one more name costs less than to look the header up in each request.
    pub(crate) fn kept_headers(&self) -> Vec<HeaderName> {
        let mut kept = self.allowed_headers().to_vec();
        if !kept.contains(&TRACEPARENT) {
            kept.push(TRACEPARENT.clone());
        }
        kept
    }

    /// Counts a capture that was dropped because too many waited for the reporter.
    pub(crate) fn count_dropped(&self) {
        count(&self.inner.state.get().counters.dropped);
        self.inner.state.get().dispatch.lost();
    }

    /// Returns the reference that the floors below keep.
    pub(crate) fn target(&self) -> ReportTarget {
        ReportTarget::new(Arc::clone(&self.inner))
    }

    /// Returns the reports that such a target refers to.
    pub(in crate::report) fn of(target: &ReportTarget) -> Self {
        let inner = target.downcast();
        debug_assert!(inner.is_some(), "targets are made of reports alone");
        inner.map_or_else(Self::shared, |inner| Self { inner })
    }

    /// Returns the sinks, and what is on its way to them.
    pub(in crate::report) fn dispatch(&self) -> &Arc<Dispatch> {
        &self.inner.state.get().dispatch
    }

    /// Logs the counts of held-back reports that no later report will mention. To be called every now and then.
    pub(crate) fn tick(&self) {
        self.tick_at(Instant::now());
    }

    fn tick_at(&self, now: Instant) {
        let overdue = lock_std(&self.inner.state.get().throttle).overdue(now);
        say(&overdue);
    }

    /// Logs all counts of held-back reports that are still to be logged, without waiting for anything.
    pub(crate) fn say_held_back(&self) {
        self.inner.flush();
    }
}

impl Default for Reports {
    /// Reports to the log alone: one `tracing` event per report, at level WARN.
    fn default() -> Self {
        let log = AnySink::Blocking(Arc::new(Log::new(tracing::Level::WARN, TARGET)));
        Self::from_parts(Parts { sinks: vec![log], ..Parts::default() })
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            sinks: Vec::new(),
            spool: None,
            limits: Limits::default(),
            repeat_after: Duration::from_secs(60),
            redactor: Redactor::default(),
            own_crates: Vec::new(),
            service: None,
            instance: None,
            zone: None,
            trace_url: None,
            endings: true,
            rules: Vec::new(),
            #[cfg(feature = "fleet")]
            fleet: None,
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sinks are printed by name only, because one may hold a password.
        let sinks: Vec<&str> = self.inner.state.get().dispatch.names().collect();
        f.debug_struct("Reports").field("sinks", &sinks).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Makes this process a member of a fleet.
#[cfg(feature = "fleet")]
fn join(fleet: &Fleet, mut process: ProcessInfo) -> Option<Arc<Member>> {
    if is_disabled() {
        return None;
    }
    complete(&mut process, &[]);
    let joined = Member::new(fleet, process);
    if let Err(error) = &joined {
        log_safely(|| {
            tracing::error!(target: TARGET, %error, "the thread of the fleet did not start: this instance tells people for itself");
        });
    }
    joined.ok()
}

fn open_in_child(inherited: &Inherited) -> Option<Spool> {
    let opened = inherited.open();
    if let Err(error) = &opened {
        log_safely(|| {
            tracing::error!(target: TARGET, %error, "the spool could not be opened after a fork: reports are kept in memory alone");
        });
    }
    opened.ok()
}

impl Inner {
    fn flush(&self) {
        // Without a state, nothing was held back yet.
        if let Some(state) = self.state.existing() {
            say(&lock_std(&state.throttle).flush());
        }
    }
}

impl Drop for Inner {
    /// Logs the last counts even if nobody flushed.
    fn drop(&mut self) {
        self.flush();
    }
}

/// Logs what was held back. A panic of a subscriber is caught, because this also runs on drop.
fn say(overdue: &[Overdue]) {
    for Overdue { fingerprint, count, sentence } in overdue {
        log_safely(
            || tracing::info!(target: TARGET, fingerprint, held_back = count, "held back {count} more like: {sentence}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::report::Report;
    use crate::report::Sink;
    use crate::report::delivery::LOG_FAILURES_EVERY;
    use crate::report::testing::{await_stack, library, logged, own, report};

    /// Guards: a directory that others can write to is still used, and the log says what to do about it.
    #[cfg(unix)]
    #[test]
    fn warns_of_directories_open_to_others() {
        use std::os::unix::fs::PermissionsExt as _;

        let place = tempfile::tempdir().unwrap();
        let set_mode = |mode| {
            for name in ["slow", "spool"] {
                let path = place.path().join(name);
                std::fs::create_dir_all(&path).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        let build = || {
            let (slow, spool) = (place.path().join("slow"), place.path().join("spool"));
            logged(|| drop(Reports::builder().without_log().directory(slow).spool(spool).build().unwrap()))
        };
        for (mode, problem) in [(0o777, "can be written to by other users"), (0o755, "can be entered by other users")] {
            set_mode(mode);
            let text = build();
            assert_eq!(text.matches(problem).count(), 2, "{text}");
            for (what, name) in [("the report directory `", "slow"), ("the spool `", "spool")] {
                let remedy = format!("`chmod 700 '{}'`", place.path().join(name).display());
                assert!(text.contains(what) && text.contains(&remedy), "{text}");
            }
        }
        set_mode(0o700);
        assert_eq!(build(), "");
    }

    #[derive(Default)]
    struct Collect(Mutex<Vec<Report>>);

    impl Sink for Collect {
        fn name(&self) -> &str {
            "collect"
        }

        fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
            self.0.lock().unwrap().push(report.clone());
            Ok(())
        }
    }

    struct Broken(&'static str);

    impl Sink for Broken {
        fn name(&self) -> &str {
            self.0
        }

        fn deliver(&self, _: &Report) -> Result<(), crate::SinkError> {
            match self.0 {
                "panics" => panic!("out of paper"),
                _ => Err(io::Error::other("no\nroute").into()),
            }
        }
    }

    fn collecting() -> (Arc<Collect>, ReportsBuilder) {
        let collect = Arc::new(Collect::default());
        (Arc::clone(&collect), Reports::builder().without_log().sink(collect))
    }

    fn with_id(id: u32) -> Report {
        Report { id: id.to_string(), ..report() }
    }

    #[test]
    fn fills_in_and_redacts_a_report() {
        let (collect, builder) = collecting();
        let reports =
            builder.service("photos", "1.2.0").own_crates(["house-lib"]).secret_params(["patient"]).build().unwrap();
        let mut bare = report();
        bare.process = crate::report::ProcessInfo::default();
        bare.spans[0].fields =
            vec![("patient".to_owned(), "hunter2".to_owned()), ("page".to_owned(), "1\n".to_owned())];
        bare.stacks = vec![await_stack(&[library("house_lib::lock"), own("photos::page", 3)])];
        reports.deliver(bare);
        let got = collect.0.lock().unwrap().remove(0);
        assert_eq!(got.location.unwrap().function.unwrap(), "house_lib::lock");
        assert_eq!(got.fingerprint.len(), 16);
        assert_eq!(got.process.service.as_deref(), Some("photos"));
        assert_eq!(got.process.pid, std::process::id());
        assert_eq!(got.spans[0].fields[0].1, "[redacted]");
        assert_eq!(got.spans[0].fields[1].1, "1\\n");
        assert_eq!(reports.stats().totals(), Stats { made: 1, delivered: 1, deliveries: 1, ..Stats::default() });
    }

    /// Guards: a sink that panics or fails doesn't affect the others, and logs one line per minute.
    #[test]
    fn a_broken_sink_does_not_disturb_others() {
        let (collect, builder) = collecting();
        let reports = Reports::builder()
            .without_log()
            .sink(Broken("panics"))
            .sink(Broken("fails"))
            .sink(Arc::clone(&collect))
            .repeat_after(Duration::ZERO)
            .build()
            .unwrap();
        drop(builder);
        let start = Instant::now();
        let log = logged(|| {
            for number in 0..100 {
                reports.deliver_at(with_id(number), start + Duration::from_millis(599) * number);
            }
        });
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("a report did not arrive: panics: it panicked: out of paper"), "{log}");
        assert!(log.contains("fails: no\\nroute"), "{log}");
        assert_eq!(collect.0.lock().unwrap().len(), 100);
        // Two longest pauses later, so that the failing sink's pause is over.
        let log = logged(|| reports.deliver_at(with_id(100), start + LOG_FAILURES_EVERY + Duration::from_secs(600)));
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("panics: it panicked: out of paper") && log.contains("unlogged_failures=99"), "{log}");
        let stats = reports.stats();
        assert_eq!((stats.made, stats.delivered, stats.undelivered + stats.queued), (101, 0, 101));
        assert!(
            (101 + 5..101 + 20).contains(&stats.failed_deliveries),
            "a few tries for the one that fails: {stats:?}"
        );
    }

    #[test]
    fn repeats_are_held_back_and_counted() {
        let (collect, builder) = collecting();
        let reports = builder.build().unwrap();
        let start = Instant::now();
        let log = logged(|| {
            for number in 0..10 {
                reports.deliver_at(with_id(number), start);
            }
            reports.deliver_at(Report { update: 1, ..with_id(3) }, start);
            reports.deliver_at(with_id(11), start + Duration::from_secs(60));
            reports.deliver_at(with_id(12), start + Duration::from_secs(61));
            reports.tick_at(start + Duration::from_secs(119));
            assert_eq!(collect.0.lock().unwrap().len(), 2);
            assert_eq!(collect.0.lock().unwrap()[1].suppressed, 9);
            reports.tick_at(start + Duration::from_secs(120));
            reports.tick_at(start + Duration::from_secs(500));
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("INFO heeler: held back 1 more like: GET /slow/lock is waiting"), "{log}");
        assert_eq!(
            reports.stats().totals(),
            Stats { made: 13, delivered: 2, deliveries: 2, suppressed: 11, ..Stats::default() }
        );
    }

    #[test]
    fn the_last_counts_are_logged_on_drop() {
        let log = logged(|| {
            let reports = Reports::builder().without_log().build().unwrap();
            reports.deliver(with_id(1));
            reports.deliver(with_id(2));
            let clone = reports.clone();
            drop(reports);
            clone.deliver(with_id(3));
            clone.count_dropped();
            let target = clone.target();
            target.count_not_captured();
            assert_eq!((target.take_not_captured(), target.take_not_captured()), (1, 0));
            assert_eq!((clone.stats().dropped, clone.stats().not_captured), (1, 1));
        });
        assert!(log.contains("held back 2 more like"), "{log}");
        assert_eq!(log.lines().count(), 1);
    }

    #[test]
    fn reports_go_to_the_log_by_default() {
        let log = logged(|| Reports::default().deliver(report()));
        assert!(log.contains("WARN heeler: GET /slow/lock is waiting for a lock: 2.51 s so far"), "{log}");
        assert!(log.contains("verdict=\"waiting\"") && log.contains("threshold_ms=2500"), "{log}");
    }

    #[test]
    fn debug_output_shows_only_names_of_sinks() {
        let reports = Reports::builder().secret_params(["patient"]).sink(Broken("mail")).build().unwrap();
        let text = format!("{reports:?}");
        assert!(
            text.starts_with("Reports { sinks: [\"log\", \"mail\"], stats: Stats {") && !text.contains("patient"),
            "{text}"
        );
        fn check<T: Send + Sync + Clone + 'static>() {}
        check::<Reports>();
    }
}
