//! Child work: its stacks hang under those of the request that handed it on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{FuturesUnordered, StreamExt as _};
use heeler::Report;
use heeler::report::{StackKind, Verdict};

use super::caught;
use super::common::{FOREVER, PORTABLE, beside_others, ms, own_functions, short};

async fn resizes() {
    tokio::time::sleep(FOREVER).await;
}

async fn waits_for_spawned() {
    heeler::spawn(resizes()).await.unwrap();
}

#[track_caller]
fn assert_parent_waits(report: &Report, function: &str) {
    assert_eq!(report.verdict, Verdict::Waiting, "{}", report.to_text());
    assert_eq!(own_functions(report, StackKind::Await, None), [function], "{}", report.to_text());
}

#[test]
fn reports_the_stack_of_a_spawned_task() {
    let _guard = beside_others();
    let report = caught(waits_for_spawned());
    assert_parent_waits(&report, "waits_for_spawned");
    assert_eq!(own_functions(&report, StackKind::Await, Some("spawn")), ["resizes"], "{}", report.to_text());
    assert!(report.to_text().contains("resizes"));
}

async fn resizes_between_long_polls() {
    let mut timer = pin!(tokio::time::sleep(FOREVER));
    poll_fn(|cx| {
        std::thread::sleep(ms(5));
        timer.as_mut().poll(cx)
    })
    .await;
}

async fn waits_for_long_polls() {
    heeler::spawn(resizes_between_long_polls()).await.unwrap();
}

/// Guards: a child whose polls take some milliseconds is waiting, too.
#[test]
fn a_child_with_long_polls_is_waiting_too() {
    let _guard = beside_others();
    let report = caught(waits_for_long_polls());
    assert_parent_waits(&report, "waits_for_long_polls");
    let functions = own_functions(&report, StackKind::Await, Some("spawn"));
    assert_eq!(functions, ["resizes_between_long_polls"], "{}", report.to_text());
}

fn resizes_on_thread(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(ms(900));
    }
}

async fn waits_for_thread(stop: Arc<AtomicBool>) {
    heeler::spawn_blocking(move || resizes_on_thread(&stop)).await.unwrap();
}

#[test]
fn reports_the_stack_of_a_blocking_thread() {
    let _guard = beside_others();
    let stop = Arc::new(AtomicBool::new(false));
    let report = caught(waits_for_thread(stop.clone()));
    stop.store(true, Ordering::Relaxed);
    assert_parent_waits(&report, "waits_for_thread");
    let text = report.to_text();
    if PORTABLE {
        assert!(report.stacks.iter().any(|stack| stack.child.as_deref() == Some("spawn_blocking")), "{text}");
        return;
    }
    let functions = own_functions(&report, StackKind::Thread, Some("spawn_blocking"));
    assert_eq!(functions, ["resizes_on_thread"], "{text}");
    let thread = report.stacks.iter().find(|stack| stack.child.is_some()).and_then(|stack| stack.thread.clone());
    assert_eq!(thread.unwrap().syscall.as_deref(), Some("clock_nanosleep"), "{text}");
}

async fn fetches_page(page: u32) {
    tokio::time::sleep(FOREVER + ms(u64::from(page))).await;
}

async fn fetches_all() {
    let mut pages: FuturesUnordered<_> = (0..3).map(|page| heeler::watch_child(fetches_page(page))).collect();
    while pages.next().await.is_some() {}
}

/// Guards: members of a `FuturesUnordered`, which are not polled with their parent, are seen.
#[test]
fn watched_children_of_an_opaque_parent_are_reported() {
    let _guard = beside_others();
    let report = caught(fetches_all());
    assert_parent_waits(&report, "fetches_all");
    let functions = own_functions(&report, StackKind::Await, Some("watch_child"));
    assert_eq!(functions, ["fetches_page"; 3], "{}", report.to_text());
}

async fn spawns_deeper() {
    heeler::spawn(waits_for_spawned()).await.unwrap();
}

#[test]
fn grandchildren_belong_to_the_same_request() {
    let _guard = beside_others();
    let report = caught(spawns_deeper());
    assert_parent_waits(&report, "spawns_deeper");
    let functions = own_functions(&report, StackKind::Await, Some("spawn"));
    assert_eq!(functions, ["resizes", "waits_for_spawned"], "{}", report.to_text());
}

/// Guards: child work that is over, and that of other requests, is not shown.
#[test]
fn only_its_own_live_children_are_shown() {
    let _guard = beside_others();
    let others = super::Driven::new(1);
    let (_seen, reports) = super::collect();
    others.spawn(heeler::watch("other", FOREVER, waits_for_spawned()).reports(reports));
    let report = caught(async {
        heeler::spawn(async {}).await.unwrap();
        waits_for_spawned().await;
    });
    let children = report.stacks.iter().filter(|stack| stack.child.is_some());
    assert_eq!(children.count(), 1, "{}", report.to_text());
}

/// Guards: outside watched work the three functions do only what the functions they stand for do.
#[test]
fn spawning_outside_watched_work_does_nothing_more() {
    let value = super::common::runtime(1).block_on(async {
        let spawned = heeler::spawn(async { 1 }).await.unwrap();
        let blocking = heeler::spawn_blocking(|| 2).await.unwrap();
        spawned + blocking + heeler::watch_child(async { 4 }).await
    });
    assert_eq!(value, 7);
    assert_eq!(short(Some("a::b")), "b");
}
