//! The end of a process.

use std::time::{Duration, Instant};

use crate::common::{PATIENCE, collect_with, ms};
use crate::down::keys;
use crate::server::{Down, Server};
use crate::{get_stuck, sums_up};

#[test]
fn flush_waits_until_everything_has_arrived() {
    let server = Server::start();
    let (seen, reports) = collect_with(|builder| builder.webhook(server.hook()));
    get_stuck(&reports, 3);
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!(server.keys(), keys(&seen));
    let stats = reports.stats();
    sums_up(&stats);
    assert_eq!((stats.delivered, stats.queued), (stats.made, 0));
}

/// Guards: an application on any executor, or one that does nothing but wait, can flush.
#[test]
fn flush_waits_on_any_executor() {
    let (server, other) = (Server::start(), Server::start());
    let (seen, reports) = collect_with(|builder| builder.webhook(server.hook()));
    get_stuck(&reports, 2);
    assert!(futures::executor::block_on(reports.flush(PATIENCE)));
    assert_eq!(server.keys(), keys(&seen));
    let (seen, reports) = collect_with(|builder| builder.webhook(other.hook()));
    get_stuck(&reports, 2);
    assert!(crate::common::runtime(0).block_on(reports.flush(PATIENCE)));
    assert_eq!(other.keys(), keys(&seen));
}

/// Guards: a flush that is dropped leaves no thread behind that waits for a dead server, and reports go on.
#[cfg(target_os = "linux")]
#[test]
fn a_dropped_flush_leaves_no_thread() {
    let down = Down::new();
    let (_, reports) = collect_with(|builder| builder.webhook(down.hook()));
    let server = down.hang();
    get_stuck(&reports, 1);
    let is_there = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        threads.into_iter().any(|thread| {
            std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "heeler-flush")
        })
    };
    let flush = reports.flush(Duration::MAX);
    let gave_up = crate::common::runtime(0).block_on(async { tokio::time::timeout(ms(300), flush).await.is_err() });
    assert!(gave_up, "the server never responds");
    crate::common::until("its thread is gone", || !is_there());
    assert_eq!(reports.stats().queued, reports.stats().made);
    crate::common::until("the server was contacted", || !server.keys().is_empty());
}

/// Guards: a server that accepts and never responds does not stop a process from ending.
#[test]
fn flush_gives_up_in_time() {
    let down = Down::new();
    let (_, reports) = collect_with(|builder| builder.webhook(down.hook()));
    let server = down.hang();
    get_stuck(&reports, 1);
    let began = Instant::now();
    assert!(!reports.blocking_flush(ms(700)));
    assert!((ms(700)..Duration::from_secs(10)).contains(&began.elapsed()));
    let stats = reports.stats();
    sums_up(&stats);
    assert_eq!((stats.queued, stats.delivered), (stats.made, 0));
    crate::common::until("the server was contacted", || !server.keys().is_empty());
}
