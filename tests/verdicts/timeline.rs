//! Where the time went, and the later looks at what is still slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heeler::report::{Activity, Verdict};
use heeler::{Report, WatchdogLayer};
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, at_least, at_most, beside_others, collect, ms, place, short, traces_every_poll, until};
use super::{Driven, caught, get, service_of};

#[track_caller]
fn assert_sums(report: &Report) {
    let sum: Duration = report.timeline.iter().map(|interval| interval.time).sum();
    assert_eq!(sum, report.elapsed, "{}", report.to_text());
    assert_eq!(report.busy + report.waiting + report.unobserved, report.elapsed, "{}", report.to_text());
    assert!(report.timeline.windows(2).all(|pair| pair[0].time >= pair[1].time), "{:?}", report.timeline);
}

/// The time of an activity whose stack's innermost own function is that one.
fn share(report: &Report, activity: Activity, function: Option<&str>) -> Duration {
    let is_there = |stack: Option<usize>| {
        let frame = stack.and_then(|stack| report.stacks[stack].frames.iter().find(|frame| frame.own));
        function.is_none_or(|function| frame.is_some_and(|frame| short(frame.function.as_deref()) == function))
    };
    let of = report.timeline.iter().filter(|interval| interval.activity == activity && is_there(interval.stack));
    of.map(|interval| interval.time).sum()
}

async fn first_wait() {
    tokio::time::sleep(ms(150)).await;
}

async fn second_wait() {
    tokio::time::sleep(FOREVER).await;
}

fn works() {
    std::thread::sleep(ms(60));
}

/// Guards: work that computes past an eighth of its threshold and then waits is traced as soon as it waits, and not only when
/// it is late.
#[test]
fn a_wait_after_a_long_poll_is_traced() {
    let _guard = beside_others();
    let report = caught(async {
        std::thread::sleep(super::THRESHOLD / 2);
        second_wait().await;
    });
    assert_sums(&report);
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "second_wait"), "{}", report.to_text());
    let waited = share(&report, Activity::Waiting, Some("second_wait"));
    assert!(waited > super::THRESHOLD / 4, "{}", report.to_text());
}

/// Guards: waits by place, work, and what was not observed, each as long as it took.
#[test]
fn the_timeline_has_true_shares() {
    let _guard = beside_others();
    let report = caught(async {
        first_wait().await;
        works();
        second_wait().await;
    });
    assert_sums(&report);
    let text = report.to_text();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "second_wait"), "{text}");
    let eighth = if traces_every_poll() { Duration::ZERO } else { super::THRESHOLD / 8 };
    // Watched from an eighth of the threshold on, and not much later.
    assert!(report.unobserved + ms(1) >= eighth && report.unobserved < super::THRESHOLD / 2, "{text}");
    let first = share(&report, Activity::Waiting, Some("first_wait"));
    assert!(first > ms(40) && first < super::THRESHOLD - eighth, "{text}");
    assert!(share(&report, Activity::Waiting, Some("second_wait")) > ms(10), "{text}");
    let worked = at_least(ms(60));
    assert!((worked..super::THRESHOLD).contains(&report.busy), "{text}");
    assert!((worked..super::THRESHOLD).contains(&report.longest_poll), "{text}");
    assert_eq!(share(&report, Activity::Running, None), report.busy, "{text}");
}

async fn limited(time: Duration) {
    let _ = tokio::time::timeout(FOREVER, waits_for_an_answer(time)).await;
}

async fn waits_for_an_answer(time: Duration) {
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        drop(answer);
    });
    let _ = answered.await;
}

/// Guards: the timeline names what waits, and not the function around it that limits it, now and for earlier waits.
#[test]
fn a_time_limit_is_not_blamed_in_the_timeline() {
    let _guard = beside_others();
    let report = caught(async {
        limited(ms(180)).await;
        limited(FOREVER).await;
    });
    assert_sums(&report);
    let text = report.to_text();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "waits_for_an_answer"), "{text}");
    assert_eq!(share(&report, Activity::Waiting, Some("limited")), Duration::ZERO, "{text}");
    assert!(share(&report, Activity::Waiting, Some("waits_for_an_answer")) > ms(150), "{text}");
}

async fn polls_a_queue() {
    // By time, not by number: on a busy machine each takes longer than it should.
    let began = std::time::Instant::now();
    while began.elapsed() < ms(150) {
        tokio::time::sleep(ms(5)).await;
    }
    second_wait().await;
}

/// Guards: many waits at one place are one line of the timeline, and are counted.
#[test]
fn waits_at_one_place_are_counted() {
    let _guard = beside_others();
    let report = caught(polls_a_queue());
    assert_sums(&report);
    let text = report.to_text();
    let at_queue: Vec<_> = report
        .timeline
        .iter()
        .filter(|interval| interval.stack.is_some_and(|stack| !report.stacks[stack].current))
        .collect();
    assert_eq!(at_queue.len(), 1, "{text}");
    assert!((2..=31).contains(&at_queue[0].waits), "{text}");
}

async fn moves_on(go: Arc<Notify>, moved: Arc<AtomicBool>) {
    go.notified().await;
    moved.store(true, Ordering::Relaxed);
    elsewhere().await;
}

async fn elsewhere() {
    tokio::time::sleep(FOREVER).await;
}

/// Guards: work that is still slow at 2, 4 and 8 times its threshold is captured again, under the id of its report. The later
/// report says where it is then.
#[test]
fn updates_keep_the_id() {
    let _guard = beside_others();
    // The first report of a process takes long: then the next one comes before it has moved.
    caught(elsewhere());
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(200)).reports(reports.clone());
    let driven = Driven::new(1);
    let (go, has_moved) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let began = std::time::Instant::now();
    driven.spawn(layer.layer(service_of(moves_on(go.clone(), has_moved.clone()))).oneshot(get("/moves")));
    seen.first();
    go.notify_one();
    until("it has moved", || has_moved.load(Ordering::Relaxed));
    let moved = at_most(began.elapsed());
    let last = seen.wait("the capture at eight times the threshold", |report| report.update == 3);
    let all = seen.all();
    assert_eq!(all.iter().map(|report| report.update).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (report, factor) in all.iter().zip([1, 2, 4, 8]) {
        assert_eq!(report.id, last.id);
        assert_eq!(report.threshold, Some(ms(200)));
        assert!(report.elapsed >= ms(200 * factor), "{:?}", report.elapsed);
        assert_sums(report);
    }
    assert_eq!(place(&all[0]), "moves_on");
    assert_eq!(place(&last), "elsewhere");
    assert!(all.iter().filter(|report| report.elapsed > moved).all(|report| place(report) == "elsewhere"));
    // Eight is the last; the row is still there.
    assert_eq!(layer.handle().in_flight(), 1);
}

/// Guards: an update is sent although its place was reported a moment ago. Another request there is held back.
#[test]
fn updates_pass_the_throttle() {
    let _guard = beside_others();
    let (seen, reports) = super::common::collect_with(|builder| builder.repeat_after(FOREVER));
    let layer = WatchdogLayer::new(ms(100)).reports(reports.clone());
    let driven = Driven::new(1);
    for _ in 0..3 {
        driven.spawn(layer.layer(service_of(elsewhere())).oneshot(get("/same")));
    }
    seen.wait("the last capture", |report| report.update == 3);
    super::until("all captures are over", || reports.stats().made == 12);
    assert!(reports.blocking_flush(super::common::PATIENCE), "a delivery is counted a moment later");
    let all = seen.all();
    assert_eq!(all.len(), 4, "the four captures of one request");
    assert!(all.iter().all(|report| report.id == all[0].id));
    let stats = reports.stats();
    assert_eq!((stats.delivered, stats.suppressed, stats.dropped), (4, 8, 0));
}
