//! Waiting: the report names the await point, whatever future it is that waits.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;

use heeler::Report;
use heeler::report::{Kind, StackKind, Verdict};

use super::common::{FOREVER, beside_others, goes_through, line_of, ms, own_functions, place};
use super::{THRESHOLD, caught};

const SOURCE: &str = include_str!("waiting.rs");

/// The report is about this await, and about nothing else.
#[track_caller]
fn assert_waits(report: &Report, function: &str, mark: &str) {
    let text = report.to_text();
    assert_eq!(report.verdict, Verdict::Waiting, "{text}");
    assert_eq!(place(report), function, "{text}");
    let location = report.location.as_ref().unwrap();
    assert!(location.file.as_deref().is_some_and(|file| file.ends_with("tests/verdicts/waiting.rs")), "{text}");
    assert_eq!(location.line, Some(line_of(SOURCE, mark)), "{text}");
    for stack in report.stacks.iter().filter(|stack| stack.current) {
        assert_eq!((stack.kind, stack.truncated), (StackKind::Await, false), "{text}");
    }
}

async fn sleeps() {
    tokio::time::sleep(FOREVER).await; // stuck: sleep
}

/// Guards: everything that a report says about a request, with the simplest of all waits.
#[test]
fn reports_everything_about_a_sleeping_request() {
    let _guard = beside_others();
    let report = caught(sleeps());
    assert_waits(&report, "sleeps", "stuck: sleep");
    assert_eq!((report.kind, report.update, report.schema), (Kind::SlowRequest, 0, heeler::report::SCHEMA));
    let request = report.request.as_ref().unwrap();
    assert_eq!((&*request.method, &*request.uri, &*request.version), ("GET", "/stuck?photo=7", "HTTP/1.1"));
    assert_eq!(request.headers, [("host".to_owned(), "photos.example".to_owned())]);
    assert_eq!(report.threshold, Some(THRESHOLD));
    assert!(report.elapsed >= THRESHOLD, "{:?}", report.elapsed);
    assert!(report.polls >= 1 && report.job.is_none());
    assert!(report.sentence().starts_with("GET /stuck?photo=7 is waiting"), "{}", report.sentence());
    assert!(goes_through(&report, StackKind::Await, "sleeps"));
    let source = report.stacks[0].frames.iter().find(|frame| frame.own).and_then(|frame| frame.source.clone());
    assert!(source.is_some_and(|line| line.contains("sleep(FOREVER).await")));
}

async fn waits_for_lock(lock: Arc<tokio::sync::Mutex<u32>>) {
    let mut value = lock.lock().await; // stuck: mutex
    *value += 1;
}

#[test]
fn names_the_wait_for_a_mutex() {
    let _guard = beside_others();
    let lock = Arc::new(tokio::sync::Mutex::new(1));
    let held = lock.clone().try_lock_owned().unwrap();
    assert_waits(&caught(waits_for_lock(lock)), "waits_for_lock", "stuck: mutex");
    drop(held);
}

async fn waits_for_permit(permits: Arc<tokio::sync::Semaphore>) {
    let _permits = permits.acquire_many(2).await; // stuck: semaphore
}

#[test]
fn names_the_wait_for_a_semaphore() {
    let _guard = beside_others();
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    assert_waits(&caught(waits_for_permit(permits)), "waits_for_permit", "stuck: semaphore");
}

async fn waits_for_task() {
    let task = tokio::spawn(std::future::pending::<u32>());
    let _ = task.await; // stuck: join handle
}

#[test]
fn names_the_wait_for_a_join_handle() {
    let _guard = beside_others();
    assert_waits(&caught(waits_for_task()), "waits_for_task", "stuck: join handle");
}

async fn waits_between_long_polls(answer: tokio::sync::oneshot::Receiver<u32>) {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        thread::sleep(ms(5));
        answer.as_mut().poll(cx) // stuck: long polls
    })
    .await
    .ok();
}

/// Guards: a poll of a few milliseconds, caused by tracing the wait, is not what holds a request up.
#[test]
fn long_polls_between_waits_are_not_blocking() {
    let _guard = beside_others();
    let (send, receive) = tokio::sync::oneshot::channel();
    assert_waits(&caught(waits_between_long_polls(receive)), "waits_between_long_polls", "stuck: long polls");
    drop(send);
}

async fn waits_for_answer(answer: tokio::sync::oneshot::Receiver<u32>) {
    let _ = answer.await; // stuck: oneshot
}

#[test]
fn names_the_wait_for_a_oneshot() {
    let _guard = beside_others();
    let (send, receive) = tokio::sync::oneshot::channel();
    assert_waits(&caught(waits_for_answer(receive)), "waits_for_answer", "stuck: oneshot");
    drop(send);
}

async fn waits_for_message(mut messages: tokio::sync::mpsc::Receiver<u32>) {
    while messages.recv().await.is_some() {} // stuck: channel
}

#[test]
fn names_the_wait_for_a_channel() {
    let _guard = beside_others();
    let (send, receive) = tokio::sync::mpsc::channel(1);
    send.try_send(1).unwrap();
    assert_waits(&caught(waits_for_message(receive)), "waits_for_message", "stuck: channel");
    drop(send);
}

trait Store {
    fn get<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

struct Slow;

impl Store for Slow {
    fn get<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            tokio::time::sleep(FOREVER).await; // stuck: trait object
        })
    }
}

async fn asks_store(store: Box<dyn Store + Send + Sync>) {
    store.get().await;
}

#[test]
fn names_the_wait_behind_a_trait_object() {
    let _guard = beside_others();
    let report = caught(asks_store(Box::new(Slow)));
    assert_eq!(report.verdict, Verdict::Waiting);
    let location = report.location.as_ref().unwrap();
    assert_eq!(location.line, Some(line_of(SOURCE, "stuck: trait object")), "{}", report.to_text());
    let function = location.function.as_deref().unwrap();
    assert!(function.contains("Slow") && function.ends_with("::get"), "{function}");
    assert!(goes_through(&report, StackKind::Await, "asks_store"), "{}", report.to_text());
}

async fn left_of_join() {
    tokio::time::sleep(FOREVER).await;
}

async fn right_of_join(permits: Arc<tokio::sync::Semaphore>) {
    let _permit = permits.acquire().await;
}

async fn middle_of_join() {
    tokio::time::sleep(ms(1)).await;
}

/// Guards: each waiting branch of `join!` has one stack with its own function. A branch that is done has none.
#[test]
fn every_waiting_branch_of_join_has_a_stack() {
    let _guard = beside_others();
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let report = caught(async move {
        tokio::join!(left_of_join(), middle_of_join(), right_of_join(permits));
    });
    assert_eq!(report.verdict, Verdict::Waiting);
    assert_eq!(own_functions(&report, StackKind::Await, None), ["left_of_join", "right_of_join"]);
    // A timer explains less than a permit that nobody gives back.
    assert_eq!(place(&report), "right_of_join", "{}", report.to_text());
    let mut branches: Vec<u32> = report.stacks.iter().filter(|s| s.current).map(|s| s.branch).collect();
    branches.sort_unstable();
    assert_eq!(branches, [0, 1]);
}

async fn waits_for_either(mut messages: tokio::sync::mpsc::Receiver<u32>) {
    tokio::select! {
        () = left_of_join() => {}
        _ = waits_for_notice() => {}
        _ = messages.recv() => {}
    }
}

async fn waits_for_notice() {
    tokio::sync::Notify::new().notified().await;
}

/// Guards: each branch of `select!` has one stack, in an order that does not change with the order of its polls.
#[test]
fn branches_of_select_keep_their_order() {
    let _guard = beside_others();
    let fingerprints: Vec<String> = (0..4)
        .map(|_| {
            let (send, receive) = tokio::sync::mpsc::channel(1);
            let report = caught(waits_for_either(receive));
            drop(send);
            assert_eq!(report.verdict, Verdict::Waiting);
            let functions = own_functions(&report, StackKind::Await, None);
            assert_eq!(functions, ["left_of_join", "waits_for_either", "waits_for_notice"], "{}", report.to_text());
            report.fingerprint
        })
        .collect();
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]), "{fingerprints:?}");
}

/// Guards: `heeler::watch` reports as the layer does, by the name of the job, on a current-thread runtime, too.
#[test]
fn a_watched_job_is_reported_by_name() {
    let _guard = beside_others();
    let (seen, reports) = super::collect();
    let driven = super::Driven::new(0);
    driven.spawn(heeler::watch("rebuild index", THRESHOLD, sleeps()).reports(reports));
    let report = seen.first();
    assert_waits(&report, "sleeps", "stuck: sleep");
    assert_eq!((report.kind, report.job.as_deref()), (Kind::SlowJob, Some("rebuild index")));
    assert!(report.request.is_none());
}
