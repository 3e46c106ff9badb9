//! Yielding, and no waker: futures that return `Pending` in other ways than by waiting.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use heeler::Report;
use heeler::report::{Activity, Verdict};

use super::caught;
use super::common::{PORTABLE, alone, beside_others, line_of, place, short};

const SOURCE: &str = include_str!("silent.rs");

#[track_caller]
fn assert_is(report: &Report, verdict: Verdict, function: &str) {
    let text = report.to_text();
    assert_eq!(report.verdict, verdict, "{text}");
    assert_eq!(place(report), function, "{text}");
}

/// The report of a future that is polled all the time. On a busy machine, a poll that is interrupted for a millisecond at
/// just that moment looks like one that does not return: then once more.
fn caught_between_polls<F: Future<Output = ()> + Send + 'static>(future: impl Fn() -> F) -> Report {
    let mut reports = (0..4).map(|_| caught(future()));
    reports.find(|report| report.verdict != Verdict::Blocking).expect("never seen between two polls")
}

async fn wakes_itself() {
    poll_fn::<(), _>(|cx| {
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_future_that_wakes_itself_yields() {
    let _guard = alone();
    let report = caught_between_polls(wakes_itself);
    assert_is(&report, Verdict::Yielding, "wakes_itself");
    assert!(report.timeline.iter().any(|interval| interval.activity == Activity::Yielding), "{}", report.to_text());
    assert!(report.polls > 100, "{}", report.polls);
}

async fn gives_way() {
    loop {
        tokio::task::yield_now().await;
    }
}

#[test]
fn yield_now_yields() {
    let _guard = alone();
    assert_is(&caught_between_polls(gives_way), Verdict::Yielding, "gives_way");
}

async fn drains_budget(permits: Arc<tokio::sync::Semaphore>) {
    loop {
        drop(permits.acquire().await);
    }
}

/// Guards: tokio makes a future that never waits yield now and then. That is not a wait for a permit.
#[test]
fn an_exhausted_budget_yields() {
    let _guard = alone();
    let report = caught_between_polls(|| drains_budget(Arc::new(tokio::sync::Semaphore::new(1))));
    assert_is(&report, Verdict::Yielding, "drains_budget");
}

async fn drains_budget_beside_a_timer(permits: Arc<tokio::sync::Semaphore>) {
    tokio::select! {
        () = drains_budget(permits) => {}
        () = tokio::time::sleep(super::common::FOREVER) => {}
    }
}

/// Guards: a branch that waits does not hide one that has work to do, nor the other way round. The report is about one of the
/// two, and nothing hangs.
#[test]
fn an_exhausted_budget_beside_a_timer_is_reported() {
    let _guard = alone();
    let report = caught_between_polls(|| drains_budget_beside_a_timer(Arc::new(tokio::sync::Semaphore::new(1))));
    assert!(matches!(report.verdict, Verdict::Yielding | Verdict::Waiting), "{}", report.to_text());
    let function = place(&report);
    assert!(function.starts_with("drains_budget"), "{}", report.to_text());
}

async fn always_has_more(permits: &tokio::sync::Semaphore) {
    drop(permits.acquire().await);
}

async fn starves_a_branch(permits: Arc<tokio::sync::Semaphore>) {
    let stop = tokio::sync::Notify::new();
    loop {
        tokio::select! {
            biased;
            () = always_has_more(&permits) => {}
            () = stop.notified() => break,
        }
    }
}

async fn gives_way_beside(permits: Arc<tokio::sync::Semaphore>) {
    tokio::select! {
        biased;
        () = gives_way() => {}
        _ = permits.acquire() => {}
    }
}

/// Guards: in a `select!` with an order of its own, the branch that never stops is shown, and not the one that it starves.
#[test]
fn a_busy_branch_is_shown_rather_than_the_one_it_starves() {
    let _guard = alone();
    let report = caught_between_polls(|| starves_a_branch(Arc::new(tokio::sync::Semaphore::new(1))));
    assert!(["starves_a_branch", "always_has_more"].contains(&&*place(&report)), "{}", report.to_text());
    assert_eq!(report.verdict, Verdict::Yielding, "{}", report.to_text());
    let report = caught_between_polls(|| gives_way_beside(Arc::new(tokio::sync::Semaphore::new(0))));
    // Where stacks are walked, that takes most of the time, so that what is between the polls does not stand out.
    assert!(report.verdict == Verdict::Yielding || PORTABLE, "{}", report.to_text());
    assert_eq!(place(&report), "gives_way", "{}", report.to_text());
}

async fn forgets_waker(done: bool) {
    let mut polls = 0_u32;
    poll_fn(|_| {
        polls += 1;
        // This is a call in a release build, too. A poll that makes no call leaves nothing behind.
        std::hint::black_box(std::time::Instant::now());
        if done { Poll::Ready(()) } else { Poll::Pending } // stuck: no waker
    })
    .await;
}

/// Guards: nobody will wake this task, and what the finished poll left on the stack says which future forgot the waker.
#[test]
fn a_future_that_keeps_no_waker_is_reported() {
    let _guard = beside_others();
    let report = caught(forgets_waker(false));
    assert_eq!(report.verdict, Verdict::NoWaker, "{}", report.to_text());
    if !PORTABLE {
        assert_is(&report, Verdict::NoWaker, "forgets_waker");
        let stack = report.stacks.iter().find(|stack| stack.current).unwrap();
        assert!(stack.reconstructed, "{}", report.to_text());
        let line = report.location.as_ref().unwrap().line.unwrap();
        assert!(line.abs_diff(line_of(SOURCE, "stuck: no waker")) <= 5, "{}", report.to_text());
    }
}

/// Guards: a timebox around it runs after the poll on the same stack, and so does what it traces. Neither replaces the future
/// that forgot the waker.
#[test]
fn a_forgotten_waker_is_found_inside_timeboxes() {
    let _guard = beside_others();
    let limit = super::common::FOREVER;
    let one = caught(async move {
        let _ = heeler::timebox(limit, forgets_waker(false)).await;
    });
    let two = caught(async move {
        let _ = heeler::timebox(limit, heeler::timebox(limit, forgets_waker(false))).await;
    });
    for report in [one, two] {
        assert_eq!(report.verdict, Verdict::NoWaker, "{}", report.to_text());
        if !PORTABLE {
            assert_is(&report, Verdict::NoWaker, "forgets_waker");
        }
    }
}

/// Guards: what moves the outcome of the poll on its way out does not hide what the poll has left behind.
#[test]
fn a_forgotten_waker_is_found_behind_a_router() {
    let _guard = beside_others();
    let handler = || async {
        let mut polls = 0_u32;
        poll_fn(|_| {
            polls += 1;
            if looks_it_up(polls) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        "found"
    };
    let report = caught(async move {
        let router = axum::Router::<()>::new().route("/", axum::routing::get(handler));
        let request = http::Request::new(axum::body::Body::empty());
        let _ = tower::ServiceExt::oneshot(router, request).await;
    });
    assert_eq!(report.verdict, Verdict::NoWaker, "{}", report.to_text());
    if !PORTABLE {
        assert_eq!(place(&report), "looks_it_up", "{}", report.to_text());
    }
}

/// In a release build this is a jump.
#[inline(never)]
fn passes_it_on(polls: u32) -> bool {
    looks_it_up(polls)
}

/// Guards: a function that a tail call has put in the place of its caller is where the work is.
#[test]
fn a_forgotten_waker_is_found_behind_a_tail_call() {
    let _guard = beside_others();
    let report = caught(async {
        let mut polls = 0_u32;
        poll_fn(|_| {
            polls += 1;
            if passes_it_on(polls) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    });
    assert_eq!(report.verdict, Verdict::NoWaker, "{}", report.to_text());
    if !PORTABLE {
        assert_eq!(place(&report), "looks_it_up", "{}", report.to_text());
    }
}

#[inline(never)]
fn looks_it_up(polls: u32) -> bool {
    // The deepest call of both does not tell them apart.
    std::hint::black_box(format!("import-{polls}")).is_empty()
}

async fn forgets_one() {
    let mut polls = 0_u32;
    poll_fn(|_| {
        polls += 1;
        if looks_it_up(polls) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn forgets_another() {
    let mut polls = 0_u32;
    poll_fn(|_| {
        polls += 1;
        if looks_it_up(polls) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Guards: the report names what the work waits for now, and no timebox that was dropped, or whose time was up.
#[test]
fn an_ended_timebox_is_not_blamed_for_a_waker() {
    let _guard = beside_others();
    let interrupted = caught(async {
        let _ = heeler::timebox(super::THRESHOLD / 2, forgets_one()).await;
        forgets_another().await;
    });
    let dropped = caught(async {
        let mut another = pin!(forgets_another());
        poll_fn(|cx| {
            let boxed = heeler::timebox(super::common::FOREVER, forgets_one());
            assert!(pin!(boxed).poll(cx).is_pending());
            another.as_mut().poll(cx)
        })
        .await;
    });
    for report in [interrupted, dropped] {
        assert_eq!(report.verdict, Verdict::NoWaker, "{}", report.to_text());
        if !PORTABLE {
            let stack = report.stacks.iter().find(|stack| stack.current).unwrap();
            let goes_through = |name| stack.frames.iter().any(|frame| short(frame.function.as_deref()) == name);
            let (one, another) = (goes_through("forgets_one"), goes_through("forgets_another"));
            assert_eq!((one, another), (false, true), "{}", report.to_text());
        }
    }
}

/// Guards: what a timebox's poll left behind does not matter once another branch has kept the waker.
#[test]
fn a_timer_hides_a_timebox_without_a_waker() {
    let _guard = beside_others();
    let forever = super::common::FOREVER;
    let report = caught(async move {
        let _ = tokio::join!(heeler::timebox(forever, forgets_waker(false)), tokio::time::sleep(forever));
    });
    assert_eq!(report.verdict, Verdict::Waiting, "{}", report.to_text());
    assert!(report.stacks.iter().all(|stack| !stack.reconstructed), "{}", report.to_text());
}

/// Guards: with one branch that can be woken, the whole can.
#[test]
fn one_waker_is_enough() {
    let _guard = beside_others();
    let report = caught(async {
        tokio::join!(forgets_waker(false), tokio::time::sleep(super::common::FOREVER));
    });
    assert_eq!(report.verdict, Verdict::Waiting, "{}", report.to_text());
}
