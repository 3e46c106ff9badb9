//! One `tracing` event per report.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::callsite::{Identifier, register};
use tracing::field::{FieldSet, Value};
use tracing::level_filters::LevelFilter;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Callsite, Event, Id, Level, Metadata, dispatcher};

use super::Sink;
use crate::capture::PerProcess;
use crate::log::TARGET;
use crate::report::Report;
use crate::text::time::in_millis;

/// The fields of an event, in order. Fields that a report has no value for are left out.
const FIELDS: &[&str] = &[
    "message",
    "id",
    "update",
    "kind",
    "verdict",
    "method",
    "uri",
    "route",
    "job",
    "trace_id",
    "span_id",
    "elapsed_ms",
    "threshold_ms",
    "location",
    "fingerprint",
    "incident",
    "suppressed",
    "ended",
    "status",
    "ended_after_ms",
];

/// The level of the last update, which says how the work has ended: there is nothing left to do.
const ENDING: Level = Level::INFO;

/// Logs reports, each as one event with a sentence and fields.
#[derive(Debug)]
pub(crate) struct Log {
    level: Level,
    /// `None` for [`TARGET`].
    sites: Option<Sites>,
}

/// For reports, and for endings.
#[derive(Debug, Clone, Copy)]
struct Sites {
    report: &'static Site,
    ending: &'static Site,
}

impl Log {
    /// Creates a sink that logs at `level` to `target`. Each different pair takes a little memory for the rest of the
    /// process, because `tracing` requires targets that live forever.
    pub(crate) fn new(level: Level, target: &str) -> Self {
        let sites = || Sites { report: Site::of(level, target), ending: Site::of(level.max(ENDING), target) };
        Self { level, sites: (target != TARGET).then(sites) }
    }
}

impl Sink for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        let request = report.request.as_ref();
        let sentence = report.sentence();
        let method = request.map(|request| request.method.as_str());
        let uri = request.map(|request| request.uri.as_str());
        let route = request.and_then(|request| request.route.as_deref());
        let job = report.job.as_deref();
        let (trace_id, span_id) = (report.trace_id.as_deref(), report.span_id.as_deref());
        let location = report.location.as_ref().map(ToString::to_string);
        let location = location.as_deref();
        let (elapsed_ms, threshold_ms) = (in_millis(report.elapsed), report.threshold.map(in_millis));
        // Logs it as if from within the work: `tracing-opentelemetry` adds it to the span, and others print the spans.
        let parent = report.around.open_parent();
        let incident = Some(report.incident.as_str()).filter(|incident| !incident.is_empty());
        let ending = report.ending.as_ref();
        let (ended, status) = (ending.map(|ending| ending.how.as_str()), ending.and_then(|ending| ending.status));
        let ended_after_ms = ending.map(|ending| in_millis(ending.after));
        if let Some(sites) = self.sites {
            let site = if ending.is_some() { sites.ending } else { sites.report };
            let values: [&dyn Value; FIELDS.len()] = [
                &sentence,
                &report.id,
                &report.update,
                &report.kind.as_str(),
                &report.verdict.as_str(),
                &method,
                &uri,
                &route,
                &job,
                &trace_id,
                &span_id,
                &elapsed_ms,
                &threshold_ms,
                &location,
                &report.fingerprint,
                &incident,
                &report.suppressed,
                &ended,
                &status,
                &ended_after_ms,
            ];
            site.event(parent, &values);
            return Ok(());
        }
        // The macro also reaches the `log` crate, if the application enabled that in `tracing`.
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    parent: parent,
                    $level,
                    id = report.id,
                    update = report.update,
                    kind = report.kind.as_str(),
                    verdict = report.verdict.as_str(),
                    method,
                    uri,
                    route,
                    job,
                    trace_id,
                    span_id,
                    elapsed_ms,
                    threshold_ms,
                    location,
                    fingerprint = report.fingerprint,
                    incident,
                    suppressed = report.suppressed,
                    ended,
                    status,
                    ended_after_ms,
                    "{sentence}"
                )
            };
        }
        match if ending.is_some() { self.level.max(ENDING) } else { self.level } {
            Level::ERROR => event!(Level::ERROR),
            Level::WARN => event!(Level::WARN),
            Level::INFO => event!(Level::INFO),
            Level::DEBUG => event!(Level::DEBUG),
            Level::TRACE => event!(Level::TRACE),
        }
        Ok(())
    }
}

/// What `tracing`'s macros would create as a `static`, for a target that is known only at run time.
#[derive(Debug)]
struct Site {
    // Set right after the site has an address, which the metadata refer to, and before anything else sees it.
    metadata: OnceLock<Metadata<'static>>,
}

impl Site {
    /// Returns the site of this level and target. It is made once and leaked.
    fn of(level: Level, target: &str) -> &'static Self {
        static SITES: PerProcess<Mutex<Vec<&'static Site>>> = PerProcess::new(Mutex::default);
        let mut sites = SITES.get().lock().unwrap_or_else(PoisonError::into_inner);
        let known = sites.iter().find(|site| *site.metadata().level() == level && site.metadata().target() == target);
        if let Some(site) = known {
            return site;
        }
        let site: &'static Self = Box::leak(Box::new(Self { metadata: OnceLock::new() }));
        let target: &'static str = String::leak(target.to_owned());
        let fields = FieldSet::new(FIELDS, Identifier(site));
        let module = Some(module_path!());
        site.metadata.get_or_init(|| {
            Metadata::new("report", target, level, Some(file!()), Some(line!()), module, fields, Kind::EVENT)
        });
        register(site);
        sites.push(site);
        site
    }

    fn event(&'static self, parent: Option<Id>, values: &[&dyn Value; FIELDS.len()]) {
        let Some(metadata) = self.metadata.get() else { return };
        // The interest isn't cached: reports are rare, and asking each time cannot be out of date.
        if *metadata.level() > LevelFilter::current()
            || !dispatcher::get_default(|subscriber| subscriber.enabled(metadata))
        {
            return;
        }
        let fields: Vec<_> = metadata.fields().iter().collect();
        let pairs: [_; FIELDS.len()] = std::array::from_fn(|at| (&fields[at], Some(values[at])));
        Event::child_of(parent, metadata, &metadata.fields().value_set(&pairs));
    }
}

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().expect("set before the site is handed out")
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
    use tracing_subscriber::registry;

    use super::*;
    use crate::report::testing::report;
    use crate::report::{Ended, Ending};

    /// The level, target and fields of an event.
    type Logged = (Level, String, Vec<(String, String)>);
    type Seen = Arc<Mutex<Vec<Logged>>>;

    #[derive(Default, Clone)]
    struct Collect(Seen);

    struct Fields<'a>(&'a mut Vec<(String, String)>);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.push((field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned()));
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Collect {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Vec::new();
            event.record(&mut Fields(&mut fields));
            let metadata = event.metadata();
            self.0.lock().unwrap().push((*metadata.level(), metadata.target().to_owned(), fields));
        }
    }

    fn logged(log: &Log, report: &Report) -> Vec<Logged> {
        let collect = Collect::default();
        let seen = Arc::clone(&collect.0);
        tracing::subscriber::with_default(registry().with(collect), || log.deliver(report).unwrap());
        seen.lock().unwrap().clone()
    }

    /// Guards: a custom target gets exactly the event that the default one gets.
    #[test]
    fn both_targets_log_the_same_event() {
        let mut report = report();
        report.location = crate::report::assemble::location::locate(&report);
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            let default = logged(&Log::new(level, TARGET), &report);
            let custom = logged(&Log::new(level, "my_service::slow"), &report);
            assert_eq!((default.len(), custom.len()), (1, 1));
            assert_eq!((default[0].0, &*default[0].1), (level, "heeler"));
            assert_eq!((custom[0].0, &*custom[0].1), (level, "my_service::slow"));
            let sorted = |mut fields: Vec<_>| {
                fields.sort();
                fields
            };
            assert_eq!(sorted(default[0].2.clone()), sorted(custom[0].2.clone()));
            let field = |name: &str| custom[0].2.iter().find(|field| field.0 == name).map(|field| &*field.1);
            assert_eq!(field("message"), Some(&*report.sentence()));
            assert_eq!(field("uri"), Some("/slow/lock"));
            assert_eq!(field("elapsed_ms"), Some("2510.0"));
            assert_eq!(field("location"), Some("photos::wait_for_import examples/photos/slow.rs:88"));
            assert_eq!(field("job"), None);
            // Neither a job nor a trace, nor an incident, nor an ending.
            assert_eq!(custom[0].2.len(), FIELDS.len() - 7);
        }
    }

    /// Guards: an ending is logged as such, and wakes nobody.
    #[test]
    fn an_ending_is_logged_at_info() {
        let ending = Ending { how: Ended::Finished, status: Some(200), after: Duration::from_millis(2_600) };
        let report = Report { ending: Some(ending), update: 1, ..report() };
        for target in [TARGET, "my_service::slow"] {
            let of = |level| logged(&Log::new(level, target), &report);
            let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(|level| of(level)[0].0);
            assert_eq!(levels, [Level::INFO, Level::INFO, Level::INFO, Level::DEBUG]);
            let (_, _, fields) = &of(Level::WARN)[0];
            let field = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| &*field.1);
            assert!(field("message").unwrap().starts_with("GET /slow/lock finished after 2.60 s with 200: "));
            assert_eq!((field("ended"), field("status")), (Some("finished"), Some("200")));
            assert_eq!(field("ended_after_ms"), Some("2600.0"));
        }
    }

    #[test]
    fn equal_targets_share_a_call_site() {
        let site = |level, target: &str| Log::new(level, target).sites.unwrap().report;
        assert!(std::ptr::eq(site(Level::INFO, "one"), site(Level::INFO, "one")));
        assert!(!std::ptr::eq(site(Level::INFO, "one"), site(Level::WARN, "one")));
    }

    #[test]
    fn the_subscribers_filters_apply() {
        let collect = Collect::default();
        let seen = Arc::clone(&collect.0);
        let filtered = registry().with(collect).with(LevelFilter::ERROR);
        tracing::subscriber::with_default(filtered, || {
            for target in [TARGET, "filtered"] {
                Log::new(Level::WARN, target).deliver(&report()).unwrap();
                Log::new(Level::ERROR, target).deliver(&report()).unwrap();
            }
        });
        assert_eq!(seen.lock().unwrap().len(), 2);
        // Nothing listens.
        Log::new(Level::ERROR, "filtered").deliver(&report()).unwrap();
    }
}
