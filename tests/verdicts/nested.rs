//! Rows within rows: what a report says is the same with one layer of heeler's around the work and with several.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use heeler::report::{Frame, Verdict};
use heeler::{Report, TimeboxLayer, WatchdogLayer};
use tower::{Layer as _, ServiceExt as _};

use super::common::{Collected, Driven, FOREVER, PORTABLE, alone, beside_others, collect, ms, place};
use super::{get, service_of};

async fn gives_way() {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn waits() {
    tokio::time::sleep(FOREVER).await;
}

fn is_heelers(frame: &Frame) -> bool {
    frame.function.as_deref().is_some_and(|function| function.trim_start_matches(['<', '&']).starts_with("heeler::"))
}

/// Every await stack begins with the leaf: heeler stands above none.
#[track_caller]
fn assert_leaf_first(report: &Report) {
    for stack in
        report.stacks.iter().filter(|stack| stack.kind == heeler::report::StackKind::Await && !stack.reconstructed)
    {
        let leaf = stack
            .frames
            .iter()
            .position(|frame| frame.function.as_deref().is_some_and(|name| name.contains("tokio::")));
        let above = &stack.frames[..leaf.expect("a leaf of tokio's")];
        assert!(!above.iter().any(is_heelers), "{:#?}", above.iter().map(|frame| &frame.function).collect::<Vec<_>>());
    }
    let location = report.location.as_ref().and_then(|location| location.function.as_deref()).unwrap_or_default();
    assert!(!location.trim_start_matches(['<', '&']).starts_with("heeler::"), "{location}");
}

/// The first report that is not of a poll that was interrupted for long.
#[track_caller]
fn first(seen: &Collected) -> Report {
    let report = seen.first();
    seen.all().into_iter().find(|report| report.verdict != Verdict::Blocking).unwrap_or(report)
}

/// The reports of work whose polls are short. On a busy machine a poll that is interrupted for long, at just that moment, looks
/// like one that does not return: then once more.
#[track_caller]
fn between_polls(look: impl Fn() -> Vec<Report>) -> Vec<Report> {
    let mut looks = (0..6).map(|_| look());
    let is_between = |reports: &Vec<Report>| reports.iter().all(|report| report.verdict != Verdict::Blocking);
    looks.find(is_between).expect("never seen between two polls")
}

/// What two watches around one another say of the same future: the inner one's report and the outer one's.
fn two_watches(future: impl Future<Output = ()> + Send + 'static) -> [Report; 2] {
    let (outer_seen, outer_reports) = collect();
    let (inner_seen, inner_reports) = collect();
    let driven = Driven::new(1);
    let inner = heeler::watch("inner", ms(150), future).reports(inner_reports);
    driven.spawn(heeler::watch("outer", ms(150), inner).reports(outer_reports));
    [first(&inner_seen), first(&outer_seen)]
}

/// Guards: heeler's own functions on top of a nested stack do not turn a yield into a wait.
#[test]
fn a_watch_within_a_watch_yields_like_one_alone() {
    let _guard = alone();
    for report in between_polls(|| two_watches(gives_way()).into()) {
        assert_eq!((report.verdict, &*place(&report)), (Verdict::Yielding, "gives_way"), "{}", report.to_text());
        assert_leaf_first(&report);
    }
}

#[test]
fn a_watch_within_a_watch_waits_like_one_alone() {
    let _guard = alone();
    for report in between_polls(|| two_watches(waits()).into()) {
        assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "waits"), "{}", report.to_text());
        assert_leaf_first(&report);
    }
}

/// Guards: the order of layers that the documentation recommends.
#[test]
fn a_timebox_inside_a_watchdog_is_reported_as_usual() {
    let _guard = alone();
    for (verdict, function) in [(Verdict::Yielding, "gives_way"), (Verdict::Waiting, "waits")] {
        let reports = between_polls(|| {
            let (seen, reports) = collect();
            let future = async move { if function == "waits" { waits().await } else { gives_way().await } };
            let timebox = TimeboxLayer::new(FOREVER).reports(reports.clone());
            let watchdog = WatchdogLayer::new(ms(150)).reports(reports);
            let driven = Driven::new(1);
            driven.spawn(watchdog.layer(timebox.layer(service_of(future))).oneshot(get("/nested")));
            vec![first(&seen)]
        });
        let report = &reports[0];
        assert_eq!((report.verdict, &*place(report)), (verdict, function), "{}", report.to_text());
        assert_leaf_first(report);
    }
}

/// Guards: a timer around it waits, too, but says nothing about what the work does.
#[test]
fn a_yield_within_a_timeout_is_a_yield() {
    let _guard = alone();
    let reports = between_polls(|| {
        let (seen, reports) = collect();
        let driven = Driven::new(1);
        let limited = async { drop(tokio::time::timeout(FOREVER, gives_way()).await) };
        driven.spawn(heeler::watch("limited", ms(150), limited).reports(reports));
        vec![first(&seen)]
    });
    let (report, text) = (&reports[0], reports[0].to_text());
    assert_eq!((report.verdict, &*place(report)), (Verdict::Yielding, "gives_way"), "{text}");
    assert!(text.contains(" yielding in verdicts::nested::gives_way at "), "{text}");
}

/// Guards: a lock beside it is waited for, whichever other branch yields. Work that is watched by itself is judged by what it
/// does itself.
#[test]
fn a_wait_beside_a_yield_is_a_wait() {
    let _guard = alone();
    let reports = between_polls(|| {
        let seen = [(); 3].map(|()| collect());
        let [outer, yielding, waiting] = seen.each_ref().map(|(_, reports)| reports.clone());
        let gives_way = heeler::watch("gives way", ms(150), gives_way()).reports(yielding);
        let locks = heeler::watch("locks", ms(150), locks()).reports(waiting);
        let both = async move { _ = tokio::join!(gives_way, locks) };
        let driven = Driven::new(1);
        driven.spawn(heeler::watch("both", ms(150), both).reports(outer));
        seen.iter().map(|(seen, _)| first(seen)).collect()
    });
    let expected = [(Verdict::Waiting, "locks"), (Verdict::Yielding, "gives_way"), (Verdict::Waiting, "locks")];
    for (report, (verdict, function)) in reports.iter().zip(expected) {
        // Where stacks are walked, each poll that comes with a sibling's looks like a wait of its own.
        let may_churn = PORTABLE && verdict == Verdict::Waiting && report.verdict == Verdict::Churning;
        // If the polls take less time than what is between them, the outer one is said to do that all the time, and it is
        // the busy branch that it does. Which of the two takes longer is up to the machine.
        let is_busy = verdict == Verdict::Waiting && report.verdict == Verdict::Yielding && report.repeats.is_some();
        assert!(report.verdict == verdict || may_churn || is_busy, "{}", report.to_text());
        if is_busy {
            assert_eq!(place(report), "gives_way", "{}", report.to_text());
            continue;
        }
        let is_in = |stack: &heeler::report::Stack| {
            stack.current
                && stack.frames.iter().any(|frame| super::common::short(frame.function.as_deref()) == function)
        };
        assert!(report.stacks.iter().any(is_in), "{}", report.to_text());
    }
}

async fn locks() {
    let mutex = tokio::sync::Mutex::new(());
    let _held = mutex.lock().await;
    let _never = mutex.lock().await;
}

/// Registers with a timer at its first poll, and looks elsewhere from then on, as tokio's test `accept_many` does.
async fn registers_once() {
    let mut sleep = std::pin::pin!(tokio::time::sleep(FOREVER));
    let mut polled = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut polled, true) {
            assert!(sleep.as_mut().poll(cx).is_pending());
        }
        std::task::Poll::<()>::Pending
    })
    .await;
}

/// Guards: if an earlier poll's waker is still registered, no future is said to have forgotten its waker.
#[test]
fn an_earlier_waker_is_not_forgotten() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let driven = Driven::new(1);
    let work = async {
        // Traced from an eighth of the threshold on: so the poll that registers is.
        tokio::time::sleep(ms(150)).await;
        registers_once().await;
    };
    driven.spawn(heeler::watch("registers", ms(400), work).reports(reports));
    let report = seen.first();
    let text = report.to_text();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "registers_once"), "{text}");
    assert!(report.notes.iter().any(|note| note.contains("an earlier one did")), "{text}");
    assert_leaf_first(&report);
}

/// Guards: the same if the poll that registered was not observed.
#[test]
fn a_waker_from_before_is_not_ruled_out() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let driven = Driven::new(1);
    driven.spawn(heeler::watch("registers", ms(300), registers_once()).reports(reports));
    let report = seen.first();
    let text = report.to_text();
    assert!(!text.contains("nobody will wake it"), "{text}");
}

/// Guards: a report claims no more time than has passed, on a machine that is too busy to read clocks in order.
#[test]
fn reports_claim_no_more_time_than_has_passed() {
    let _guard = alone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let spin = |time: Duration| {
        let began = Instant::now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    };
    let others: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    spin(ms(5))
                }
            })
        })
        .collect();
    let (seen, reports) = collect();
    let runtime = super::common::runtime(0);
    let began = Instant::now();
    while began.elapsed() < ms(3_000) {
        let job = async {
            for millis in [1, 7, 3, 11] {
                spin(ms(millis));
                tokio::task::yield_now().await;
            }
        };
        runtime.block_on(heeler::watch("job", ms(5), job).reports(reports.clone()));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
    assert!(reports.blocking_flush(super::common::PATIENCE));
    let all = seen.all();
    assert!(!all.is_empty());
    for report in all {
        let shares = report.timeline.iter().map(|interval| interval.time).sum();
        for sum in [report.busy + report.waiting + report.unobserved, shares] {
            assert_eq!(sum, report.elapsed, "{}", report.to_text());
        }
    }
}
