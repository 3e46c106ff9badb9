//! The metrics of the process as instruments, observed when they are collected.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry::{KeyValue, global};

use super::scope;
use crate::capture::PerProcess;
use crate::report::Verdict;
use crate::report::metrics::by_sink;
use crate::report::metrics::{Metrics, Pieces, metrics};
use crate::sync::lock_std;

/// Where instruments come from.
pub(super) enum Meters {
    /// No instruments.
    None,
    /// The global provider.
    Global,
    Of(Meter),
}

/// Makes the instruments.
pub(super) fn start(meters: &Meters) {
    // A second set of the same instruments would count everything twice.
    static GLOBAL: AtomicBool = AtomicBool::new(false);
    match meters {
        Meters::None => {}
        Meters::Global if GLOBAL.swap(true, Ordering::Relaxed) => {}
        Meters::Global => make(&global::meter_with_scope(scope())),
        Meters::Of(meter) => make(meter),
    }
}

/// Returns metrics of at most this age, so that one collection, which asks for each instrument, walks the table once.
fn recent() -> Metrics {
    const FRESH: Duration = Duration::from_millis(100);
    static RECENT: PerProcess<Mutex<Option<(Instant, Metrics)>>> = PerProcess::new(Mutex::default);
    let known = *lock_std(RECENT.get());
    match known {
        Some((at, metrics)) if at.elapsed() < FRESH => metrics,
        _ => {
            // Without the lock: it may run other people's code, when it drops the last of a fleet.
            let metrics = metrics();
            *lock_std(RECENT.get()) = Some((Instant::now(), metrics));
            metrics
        }
    }
}

/// Makes a counter of what `value` picks from the metrics.
fn counter(meter: &Meter, name: &'static str, unit: &'static str, what: &'static str, value: fn(&Metrics) -> u64) {
    counters(meter, name, unit, what, move |instrument| instrument.observe(value(&recent()), &[]));
}

fn counters(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
) {
    // The SDK keeps the callback, so the instrument itself may be dropped.
    meter.u64_observable_counter(name).with_unit(unit).with_description(what).with_callback(observe).build();
}

/// Makes an instrument for a number that goes up and down.
fn gauge(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    observe: impl Fn(&dyn AsyncInstrument<i64>) + Send + Sync + 'static,
) {
    meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(what).with_callback(observe).build();
}

/// Makes an instrument for a number that must not be added up.
fn level(meter: &Meter, name: &'static str, unit: &'static str, what: &'static str, value: fn(&Metrics) -> f64) {
    let observe = move |instrument: &dyn AsyncInstrument<f64>| instrument.observe(value(&recent()), &[]);
    meter.f64_observable_gauge(name).with_unit(unit).with_description(what).with_callback(observe).build();
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn works(pieces: Pieces) -> [(KeyValue, u64); 4] {
    let work = |name| KeyValue::new("heeler.work", name);
    [
        (work("request"), pieces.requests),
        (work("job"), pieces.jobs),
        (work("child"), pieces.children),
        (work("timebox"), pieces.timeboxes),
    ]
}

/// Of the fleet: nothing is observed without one.
#[cfg(feature = "fleet")]
fn make_fleet(meter: &Meter) {
    let what = "Incidents that people were told of, for all instances or for this one alone.";
    counters(meter, "heeler.fleet.messages", "{message}", what, |instrument| {
        let Some(fleet) = recent().fleet else { return };
        instrument.observe(fleet.messages, &[KeyValue::new("heeler.alone", false)]);
        instrument.observe(fleet.messages_alone, &[KeyValue::new("heeler.alone", true)]);
    });
    let what = "Requests to the store of the fleet, failed ones included.";
    counters(meter, "heeler.fleet.requests", "{request}", what, |instrument| {
        let Some(fleet) = recent().fleet else { return };
        let requests = [("put", fleet.puts), ("get", fleet.gets), ("list", fleet.lists), ("remove", fleet.removals)];
        for (kind, number) in requests {
            instrument.observe(number, &[KeyValue::new("heeler.kind", kind)]);
        }
    });
    let what = "Requests to the store of the fleet that failed or were not answered in time.";
    counters(meter, "heeler.fleet.failed_requests", "{request}", what, |instrument| {
        recent().fleet.iter().for_each(|fleet| instrument.observe(fleet.failed_requests, &[]));
    });
    let what = "Reports that the counts in the store of the fleet lack for good.";
    counters(meter, "heeler.fleet.uncounted", "{report}", what, |instrument| {
        recent().fleet.iter().for_each(|fleet| instrument.observe(fleet.uncounted, &[]));
    });
    let what = "Reports that are counted in memory, and not in the store of the fleet yet.";
    gauge(meter, "heeler.fleet.unwritten", "{report}", what, |instrument| {
        recent().fleet.iter().for_each(|fleet| instrument.observe(signed(fleet.unwritten), &[]));
    });
    let what = "1 if the store of the fleet heeds conditions, else 0.";
    let observe = |instrument: &dyn AsyncInstrument<f64>| {
        if let Some(heeds) = recent().fleet.and_then(|fleet| fleet.heeds_conditions) {
            instrument.observe(if heeds { 1.0 } else { 0.0 }, &[]);
        }
    };
    let instrument = meter.f64_observable_gauge("heeler.fleet.heeds_conditions").with_unit("1");
    instrument.with_description(what).with_callback(observe).build();
}

fn make(meter: &Meter) {
    counters(meter, "heeler.reports", "{report}", "Reports that were made, updates included.", |instrument| {
        let reports = recent().reports;
        for verdict in Verdict::ALL {
            let attribute = KeyValue::new("heeler.verdict", verdict.as_str());
            instrument.observe(reports.with_verdict(verdict), &[attribute]);
        }
    });
    let what = "Reports that were held back, for one about the same had just gone out.";
    counter(meter, "heeler.suppressed", "{report}", what, |metrics| metrics.reports.suppressed);
    let what = "Captures that were thrown away, for too many waited for the reporter.";
    counter(meter, "heeler.dropped", "{capture}", what, |metrics| metrics.reports.dropped);
    let what = "Reports that at least one sink has not taken and never will.";
    counter(meter, "heeler.undelivered", "{report}", what, |metrics| metrics.reports.undelivered);
    let what = "Reports that are on their way to at least one sink, or wait for another try.";
    gauge(meter, "heeler.queued", "{report}", what, |instrument| {
        instrument.observe(signed(recent().reports.queued), &[]);
    });
    let what = "Requests, jobs, child work and timeboxes that were watched.";
    counters(meter, "heeler.watched", "{piece}", what, |instrument| {
        for (work, number) in works(recent().watched) {
            instrument.observe(number, &[work]);
        }
    });
    gauge(
        meter,
        "heeler.in_flight",
        "{piece}",
        "Requests, jobs, child work and timeboxes that are in flight now.",
        |instrument| {
            for (work, number) in works(recent().in_flight) {
                instrument.observe(signed(number), &[work]);
            }
        },
    );
    gauge(meter, "heeler.armed", "{piece}", "Requests and jobs whose polls are traced now.", |instrument| {
        instrument.observe(signed(recent().armed_now), &[]);
    });
    let what = "Captures of slow work that were due; those truncated are among those taken.";
    counters(meter, "heeler.captures", "{capture}", what, |instrument| {
        let captures = recent().captures;
        let results = [
            ("taken", captures.taken),
            ("missed", captures.missed),
            ("refused", captures.refused),
            ("truncated", captures.truncated),
        ];
        for (result, number) in results {
            instrument.observe(number, &[KeyValue::new("heeler.result", result)]);
        }
    });
    let running = |metrics: &Metrics| if metrics.monitor.running { 1.0 } else { 0.0 };
    level(meter, "heeler.monitor.up", "1", "1 if the monitor's threads run, else 0.", running);
    let what = "Time since the monitor last turned, which it does every second.";
    level(meter, "heeler.monitor.heartbeat_age", "s", what, |metrics| metrics.monitor.heartbeat_age.as_secs_f64());
    let what = "The longest that the monitor was late in the last thirty to sixty seconds.";
    level(meter, "heeler.monitor.max_lag", "s", what, |metrics| metrics.monitor.max_lag.as_secs_f64());
    #[cfg(feature = "fleet")]
    make_fleet(meter);
    let what = "Reports that a sink has taken, updates included.";
    counters(meter, "heeler.deliveries", "{report}", what, |instrument| {
        for (sink, taken) in by_sink::deliveries() {
            instrument.observe(taken, &[KeyValue::new("heeler.sink", sink)]);
        }
    });
    let what = "Deliveries to a sink that failed.";
    counters(meter, "heeler.delivery.failures", "{delivery}", what, |instrument| {
        for (sink, failed) in by_sink::failures() {
            instrument.observe(failed, &[KeyValue::new("heeler.sink", sink)]);
        }
    });
}
