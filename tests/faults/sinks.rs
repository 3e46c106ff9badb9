//! A sink that panics, and a runtime without a worker to spare.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use heeler::{Report, Sink};

use crate::common::{Driven, PATIENCE, PORTABLE, collect_with, ms, until};
use crate::down::keys;
use crate::server::Server;
use crate::{get_stuck, sums_up};

struct Panics;

impl Sink for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn deliver(&self, _: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        panic!("on purpose")
    }
}

/// Guards: the others get every report. Those that the panicking sink did not take are counted.
#[test]
fn a_panicking_sink_leaves_the_others_unharmed() {
    let server = Server::start();
    let (seen, reports) = collect_with(|builder| builder.sink(Panics).webhook(server.hook()));
    get_stuck(&reports, 3);
    assert!(reports.flush(PATIENCE));
    assert_eq!(server.keys(), keys(&seen));
    let stats = reports.stats();
    sums_up(&stats);
    assert!(stats.made >= 3);
    assert_eq!((stats.undelivered, stats.delivered, stats.failed_deliveries), (stats.made, 0, stats.made));
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
