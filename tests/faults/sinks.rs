//! Sinks that panic, fail for now or refuse for good, and a runtime without a worker to spare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use heeler::{AsyncSink, Report, Sink, SinkError};

use crate::common::{Driven, PATIENCE, PORTABLE, collect_with, ms, until};
use crate::down::keys;
use crate::server::Server;
use crate::{get_stuck, sums_up};

struct Panics;

impl Sink for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn deliver(&self, _: &Report) -> Result<(), SinkError> {
        panic!("on purpose")
    }
}

/// Guards: the others get every report. Those that the panicking sink did not take are counted.
#[test]
fn a_panicking_sink_leaves_the_others_unharmed() {
    let server = Server::start();
    let (seen, reports) = collect_with(|builder| builder.sink(Panics).webhook(server.hook()));
    get_stuck(&reports, 3);
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!(server.keys(), keys(&seen));
    let stats = reports.stats();
    sums_up(&stats);
    assert!(stats.made >= 3);
    assert_eq!((stats.undelivered, stats.delivered, stats.failed_deliveries), (stats.made, 0, stats.made));
}

/// Counts how often it is called, and fails the first two times. As a sink that blocks, and as an async one.
#[derive(Clone)]
struct Fails {
    error: fn(&'static str) -> SinkError,
    attempts: Arc<AtomicU64>,
}

impl Fails {
    fn new(error: fn(&'static str) -> SinkError) -> Self {
        Self { error, attempts: Arc::default() }
    }

    fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    fn attempt(&self) -> Result<(), SinkError> {
        let before = self.attempts.fetch_add(1, Ordering::Relaxed);
        if before >= 2 { Ok(()) } else { Err((self.error)("no paper")) }
    }
}

impl Sink for Fails {
    fn name(&self) -> &str {
        "fails"
    }

    fn deliver(&self, _: &Report) -> Result<(), SinkError> {
        self.attempt()
    }
}

impl AsyncSink for Fails {
    fn name(&self) -> &str {
        "fails later"
    }

    async fn deliver(&self, _: &Report) -> Result<(), SinkError> {
        tokio::time::sleep(ms(5)).await;
        self.attempt()
    }
}

/// Guards: both kinds of sinks say which errors are worth trying again.
#[test]
fn only_transient_errors_are_tried_again() {
    let [now, later] = [Fails::new(|text| text.into()), Fails::new(SinkError::transient)];
    let [never, never_later] = std::array::from_fn(|_| Fails::new(SinkError::permanent));
    let (_, transient) = collect_with(|builder| builder.sink(now.clone()).async_sink(Arc::new(later.clone())));
    let (_, permanent) = collect_with(|builder| builder.sink(never.clone()).async_sink(never_later.clone()));
    get_stuck(&transient, 1);
    get_stuck(&permanent, 1);
    let made = permanent.stats().made;
    // A flush ends each pause once.
    until("those that may be tried again have arrived", || transient.blocking_flush(ms(50)));
    assert!(permanent.blocking_flush(PATIENCE));
    assert_eq!((transient.stats().undelivered, permanent.stats().delivered), (0, 0));
    assert_eq!((transient.stats().delivered, permanent.stats().undelivered), (transient.stats().made, made));
    assert!(now.attempts() > 2 && later.attempts() > 2);
    assert_eq!((never.attempts(), never_later.attempts()), (made, made));
    let failed: Vec<_> = permanent.sinks().into_iter().map(|sink| (sink.name, sink.undelivered)).collect();
    assert_eq!(failed[1..], [("fails".to_owned(), made), ("fails later".to_owned(), made)]);
}

/// Guards: reports are sent while every worker of the application's runtime is blocked inside a poll, one of them in the very
/// work that is reported.
#[test]
fn blocked_workers_do_not_stop_reports() {
    let server = Server::start();
    let (_, reports) = collect_with(|builder| builder.webhook(server.hook()));
    let application = Driven::new(2);
    let (release, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let (entered, has_entered) = channel();
    for _ in 0..2 {
        let (wait, entered) = (Arc::clone(&wait), entered.clone());
        let job = async move {
            entered.send(()).unwrap();
            // One waits in here, the other for the lock.
            let _ = wait.lock().unwrap().recv();
        };
        application.spawn(heeler::watch("holds a worker", ms(50), job).reports(reports.clone()));
    }
    for _ in 0..2 {
        has_entered.recv_timeout(PATIENCE).unwrap();
    }
    until("both are posted", || {
        let ids: std::collections::BTreeSet<String> =
            server.posts().iter().map(|report| report["id"].as_str().unwrap().to_owned()).collect();
        ids.len() == 2
    });
    assert!(PORTABLE || server.posts().iter().any(|report| report["verdict"] == "blocking"));
    drop(release);
}
