//! Work that moves on between dumps, and much that waits behind a deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heeler::report::{Dump, DumpKind};
use heeler::{Resource, WatchdogLayer, acquire};
use tokio::sync::{Barrier, Mutex, Notify, watch};

use super::common::{PORTABLE, collect, until};
use super::{Service, dump};

async fn at_the_first_place(go: &Notify) {
    go.notified().await;
}

async fn at_the_second_place(go: &Notify) {
    go.notified().await;
}

/// Returns the function where the only work is, if that is known.
fn place(dump: &Dump) -> String {
    let group = dump.work.first().and_then(|work| dump.groups.get(work.group));
    group.and_then(|group| group.location.as_ref()?.function.clone()).unwrap_or_default()
}

/// Guards: what one dump has learnt of a piece of work is not told by a later one, if it was polled in between: neither if
/// nothing else looks at it, nor if the watchdog does.
#[test]
fn work_that_has_moved_on_is_found_where_it_is() {
    let mut service = Service::new(2);
    for threshold in [super::FOREVER, Duration::from_millis(400)] {
        service.layer = WatchdogLayer::new(threshold);
        let go = Arc::new(Notify::new());
        let told = Arc::clone(&go);
        service.request("/moves", async move {
            at_the_first_place(&told).await;
            at_the_second_place(&told).await;
        });
        until("it is in flight", || heeler::metrics().in_flight.total() == 1);
        until("it waits first", || place(&heeler::blocking_dump()).ends_with("moves::at_the_first_place"));
        go.notify_one();
        // It needs a moment to get there. From then on it never seems to be elsewhere.
        until("it waits then", || place(&heeler::blocking_dump()).ends_with("moves::at_the_second_place"));
        for _ in 0..3 {
            let now = place(&heeler::blocking_dump());
            assert!(now.ends_with("moves::at_the_second_place"), "{now}");
        }
        go.notify_one();
        until("it ends", || heeler::metrics().in_flight.total() == 0);
    }
}

/// Guards: what a report has asked child work is out of date as soon as that has been polled again.
#[test]
fn child_work_that_a_report_has_asked_is_found_where_it_is() {
    let (seen, reports) = collect();
    let mut service = Service::new(2);
    service.layer = WatchdogLayer::new(Duration::from_millis(400)).reports(reports);
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = Arc::clone(&has_moved);
    service.request("/parent", async move {
        let child = heeler::spawn(async move {
            at_the_first_place(&told).await;
            moved.store(true, Ordering::Relaxed);
            at_the_second_place(&told).await;
        });
        let _ = child.await;
    });
    let report = seen.first();
    assert!(PORTABLE || report.to_text().contains("moves::at_the_first_place"), "{}", report.to_text());
    go.notify_one();
    until("it has moved on", || has_moved.load(Ordering::Relaxed));
    service.until_at_rest(2, 2);
    let dump = dump();
    let child = dump.work.iter().find(|work| work.kind == DumpKind::Child).unwrap();
    let location = dump.groups[child.group].location.as_ref().unwrap();
    assert!(location.function.as_ref().unwrap().ends_with("moves::at_the_second_place"), "{dump}");
    go.notify_one();
}

type Locks = Arc<[(Mutex<()>, Resource); 2]>;

async fn transfer(locks: Locks, both: Arc<Barrier>, first: usize, second: usize) {
    let _first = acquire(&locks[first].1, locks[first].0.lock()).await;
    both.wait().await;
    let _second = acquire(&locks[second].1, locks[second].0.lock()).await;
}

async fn pay(locks: Locks, mut open: watch::Receiver<bool>) {
    let _ = open.wait_for(|open| *open).await;
    let _account = acquire(&locks[0].1, locks[0].0.lock()).await;
}

/// Guards: a deadlock is those who wait for each other, however many queue behind them, and each of these is said to wait.
#[test]
fn a_deadlock_is_found_behind_a_long_queue() {
    let service = Service::new(2);
    let locks: Locks =
        Arc::new([(Mutex::new(()), Resource::new("accounts")), (Mutex::new(()), Resource::new("ledger"))]);
    // Those that queue come first, and are asked first.
    let (open, opened) = watch::channel(false);
    for number in 0..600 {
        service.request(&format!("/pay/{number}"), pay(Arc::clone(&locks), opened.clone()));
    }
    until("all are in flight", || heeler::metrics().in_flight.total() == 600);
    let both = Arc::new(Barrier::new(2));
    service.request("/transfer", transfer(Arc::clone(&locks), Arc::clone(&both), 0, 1));
    service.request("/audit", transfer(Arc::clone(&locks), both, 1, 0));
    until("two hold their locks", || locks.iter().all(|(lock, _)| lock.try_lock().is_err()));
    open.send(true).unwrap();
    let mut dump = heeler::blocking_dump();
    until("all wait", || {
        dump = heeler::blocking_dump();
        let waits = |name: &str| dump.work.iter().filter(|work| work.awaits == [name]).count();
        (waits("accounts"), waits("ledger")) == (601, 1)
    });
    let mut names: Vec<&str> = dump
        .deadlocks
        .iter()
        .flatten()
        .filter_map(|id| dump.work.iter().find(|work| work.id == *id))
        .map(|work| &*work.name)
        .collect();
    names.sort_unstable();
    assert_eq!((dump.deadlocks.len(), names), (1, vec!["GET /audit", "GET /transfer"]));
    for (name, waiters) in [("accounts", 601), ("ledger", 1)] {
        let resource = dump.resources.iter().find(|resource| resource.name == name).unwrap();
        assert!(resource.deadlock, "{name}");
        assert_eq!(resource.waiters.len() as u64 + resource.more_waiters, waiters, "{name}");
    }
}
