//! Polls on stacks that are not the thread's own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use heeler::report::{StackKind, Verdict};
use heeler::{Report, Reports};

use super::ALL;
use super::common::{Collected, Driven, PORTABLE, alone, beside_others, collect, goes_through, in_own_process, ms};
use super::fiber::on_fiber;
use super::seccomp::{ALLOW, REFUSE, filter};

const THRESHOLD: Duration = ms(40);
const NOTE: &str = "it runs on a stack of its own";

/// Sleeps in `poll(2)` again and again, until it has been looked at for the last time; says how often a call was ended by a signal.
#[inline(never)]
fn sleeps(is_over: impl Fn() -> bool) -> usize {
    let (began, mut interrupted) = (Instant::now(), 0);
    while !is_over() && began.elapsed() < super::common::PATIENCE {
        // SAFETY: no descriptors.
        let result = unsafe { libc::poll(std::ptr::null_mut(), 0, 700) };
        interrupted += usize::from(result < 0);
    }
    interrupted
}

fn has_last(seen: &Collected) -> bool {
    seen.all().iter().any(|report| report.update == 3)
}

#[inline(never)]
fn computes(seen: &Collected) {
    let began = Instant::now();
    while !seen.all().iter().any(|report| report.update == 3 || goes_through(report, StackKind::Thread, "computes"))
        && began.elapsed() < super::common::PATIENCE
    {
        (0..100_000).for_each(|number| {
            std::hint::black_box(number);
        });
    }
}

fn watched<T>(reports: Reports, body: impl FnOnce() -> T) -> T {
    futures::executor::block_on(heeler::watch("job", THRESHOLD, async move { body() }).reports(reports))
}

#[track_caller]
fn assert_shown(report: &Report, kind: StackKind, function: &str) {
    let text = report.to_text();
    if PORTABLE {
        return;
    }
    assert!(goes_through(report, kind, function), "{text}");
    assert!(report.stacks.iter().all(|stack| !stack.truncated), "{text}");
    assert!(report.notes.iter().any(|note| note.contains(NOTE)), "{text}");
}

/// Guards: a thread asleep on a fiber is reported with the fiber's stack, up to the last capture, and at most one signal is
/// sent.
#[test]
fn a_sleeping_fiber_is_reported_with_its_stack() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let interrupted = watched(reports, || on_fiber(|| sleeps(|| has_last(&seen))));
    assert!(interrupted <= 1, "{interrupted} calls were interrupted");
    seen.wait("the last capture", |report| report.update == 3);
    for report in seen.all() {
        assert_eq!(report.verdict, Verdict::Blocking, "{}", report.to_text());
    }
    assert_shown(&seen.with_thread_in("sleeps").unwrap(), StackKind::Thread, "sleeps");
}

/// Guards: the same for one that computes there. It may be signalled again.
#[test]
fn a_computing_fiber_is_reported_with_its_stack() {
    let _alone = alone();
    let (seen, reports) = collect();
    watched(reports, || on_fiber(|| computes(&seen)));
    let report = seen.with_thread_in("computes").unwrap();
    assert_eq!(report.verdict, Verdict::Blocking, "{}", report.to_text());
    assert_shown(&report, StackKind::Thread, "computes");
}

/// Guards: a poll on a fiber is captured up to its own frame, as on any stack.
#[test]
fn polls_on_fibers_are_captured_up_to_their_frame() {
    let _alone = alone();
    let (seen, reports) = collect();
    on_fiber(|| watched(reports, || computes(&seen)));
    let report = seen.with_thread_in("computes").unwrap();
    let text = report.to_text();
    assert_eq!(report.verdict, Verdict::Blocking, "{text}");
    if !PORTABLE {
        assert!(goes_through(&report, StackKind::Thread, "computes"), "{text}");
        assert!(report.stacks.iter().all(|stack| !stack.truncated), "{text}");
        assert!(!report.notes.iter().any(|note| note.contains(NOTE)), "{text}");
    }
}

/// Polls what it is around on a fiber, as wasmtime does for asynchronous host calls.
struct OnFiber<F>(F);

impl<F: Future + Unpin> Future for OnFiber<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        on_fiber(|| Pin::new(&mut self.0).poll(cx))
    }
}

async fn waits(receiver: tokio::sync::oneshot::Receiver<()>) {
    let _ = receiver.await;
}

/// Guards: a future that waits on a fiber shows its await stack as far as the fiber goes.
#[test]
fn an_await_on_a_fiber_is_shown() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (release, receiver) = tokio::sync::oneshot::channel();
    let work = async move { OnFiber(Box::pin(waits(receiver))).await };
    let driven = Driven::new(1);
    let task = driven.spawn(heeler::watch("job", THRESHOLD, work).reports(reports));
    // On a machine with other things to do, it may not get to a poll at the first look.
    let report = seen.wait("its await", |report| report.verdict == Verdict::Waiting);
    drop(release);
    futures::executor::block_on(task).unwrap();
    assert_shown(&report, StackKind::Await, "waits");
}

/// Guards: where a fiber's stack cannot be read, that is final for the poll: a report with everything else, one signal at
/// most; and a starved neighbour is not told that nobody holds the worker.
#[test]
fn an_unreadable_fiber_is_reported_once() {
    let test = "polls::an_unreadable_fiber_is_reported_once";
    in_own_process(test, || {
        filter(&[libc::SYS_pread64], REFUSE, ALLOW, ALL);
        let ((seen, reports), (starved, starved_reports)) = (collect(), collect());
        let driven = Driven::new(0);
        let (wake, woken) = tokio::sync::oneshot::channel();
        let innocent = heeler::watch("innocent", ms(100), waits(woken)).reports(starved_reports);
        let innocent = driven.spawn(innocent);
        let (sleeper, neighbour) = (seen.clone(), starved.clone());
        let job = async move {
            tokio::task::yield_now().await;
            drop(wake);
            on_fiber(|| sleeps(|| has_last(&sleeper) && !neighbour.all().is_empty()))
        };
        let task = driven.spawn(heeler::watch("job", THRESHOLD, job).reports(reports));
        let interrupted = futures::executor::block_on(task).unwrap();
        futures::executor::block_on(innocent).unwrap();
        assert!(interrupted <= 1, "{interrupted} calls were interrupted");
        seen.wait("the last capture", |report| report.update == 3);
        for report in seen.all() {
            let text = report.to_text();
            assert_eq!(report.verdict, Verdict::Blocking, "{text}");
            assert!(report.thread.is_some(), "{text}");
            let why = if PORTABLE { "no thread stacks" } else { "which could not be read" };
            assert!(report.notes.iter().any(|note| note.contains(why)), "{text}");
        }
        let report = starved.first();
        let text = report.to_text();
        assert_eq!(report.verdict, Verdict::Starved, "{text}");
        assert!(!report.notes.iter().any(|note| note.contains("no poll that heeler watches")), "{text}");
        assert!(report.stacks.iter().any(|stack| stack.kind == StackKind::Culprit && stack.thread.is_some()), "{text}");
    });
}
