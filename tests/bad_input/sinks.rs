//! Sinks that misbehave.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heeler::{Report, Reports, Sink, WatchdogLayer};

use super::common::{Collected, PATIENCE, collect, ms};
use super::{ask, get};

struct Panics;

impl Sink for Panics {
    fn name(&self) -> &str {
        "panics\n\u{1b}[31m"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        panic!("on purpose")
    }
}

struct Fails;

impl Sink for Fails {
    fn name(&self) -> &str {
        "fails"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        Err("no paper".into())
    }
}

/// Guards: neither disturbs other sinks, other reports, or the request.
#[test]
fn panicking_and_failing_sinks_disturb_nothing() {
    let seen = Collected::default();
    let builder = Reports::builder().without_log().repeat_after(Duration::ZERO);
    let reports = builder.sink(Panics).sink(Fails).sink(seen.clone()).build().unwrap();
    let layer = WatchdogLayer::new(ms(20)).reports(reports.clone());
    for round in 0..3 {
        assert_eq!(ask(&layer, get(&format!("/{round}")), ms(300)), "answered");
        seen.wait("the request", |report| report.request.as_ref().unwrap().uri == format!("/{round}"));
    }
    assert!(!reports.blocking_flush(ms(50)), "one will be tried again");
    let stats = reports.stats();
    assert!(stats.failed_deliveries > stats.made, "panics and failures count: {stats:?}");
    assert_eq!((stats.queued, stats.delivered, stats.dropped), (stats.made, 0, 0));
}

struct Stuck {
    entered: Sender<()>,
    release: Mutex<Receiver<()>>,
}

impl Sink for Stuck {
    fn name(&self) -> &str {
        "stuck"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        let _ = self.entered.send(());
        let _ = self.release.lock().unwrap().recv();
        Ok(())
    }
}

/// Guards: a sink that hangs delays reports, and nothing else: requests are answered, `flush` gives up in time, and all
/// reports arrive once it goes on.
#[test]
fn a_hanging_sink_only_delays_reports() {
    super::common::in_own_process("sinks::a_hanging_sink_only_delays_reports", || {
        let (entered, has_entered) = channel();
        let (release, wait) = channel();
        let stuck = Arc::new(Stuck { entered, release: Mutex::new(wait) });
        let (seen, others) = collect();
        let reports = Reports::builder().without_log().sink(stuck).build().unwrap();
        assert_eq!(ask(&WatchdogLayer::new(ms(20)).reports(reports.clone()), get("/stuck"), ms(300)), "answered");
        has_entered.recv_timeout(PATIENCE).unwrap();
        let layer = WatchdogLayer::new(ms(20)).reports(others.clone());
        for _ in 0..3 {
            assert_eq!(ask(&layer, get("/other"), ms(300)), "answered");
        }
        assert!(!others.blocking_flush(ms(50)));
        assert!(seen.all().is_empty());
        drop(release);
        assert!(others.blocking_flush(PATIENCE));
        assert_eq!(seen.all().iter().filter(|report| report.update == 0).count(), 3);
    });
}
