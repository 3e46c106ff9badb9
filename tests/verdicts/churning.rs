//! Churning: many short waits at one place, which together make the request slow.

use std::time::{Duration, Instant};

use heeler::report::{Activity, Verdict};
use heeler::{Report, WatchdogLayer};
use tokio::sync::{mpsc, oneshot};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, alone, beside_others, collect, ms, place};
use super::{Driven, caught, get, service_of};

/// A database that answers one question at a time, from a task of its own.
#[derive(Clone)]
struct Store(mpsc::Sender<oneshot::Sender<u32>>);

impl Store {
    fn new(driven: &Driven) -> Self {
        let (ask, mut questions) = mpsc::channel::<oneshot::Sender<u32>>(16);
        driven.spawn(async move {
            while let Some(answer) = questions.recv().await {
                // Longer than a poll of the request takes, also where stacks are walked on a busy machine.
                let began = Instant::now();
                while began.elapsed() < Duration::from_micros(40) {
                    std::hint::spin_loop();
                }
                let _ = answer.send(7);
            }
        });
        Self(ask)
    }

    async fn query(&self) -> u32 {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(answer).await;
        answered.await.unwrap_or_default()
    }
}

/// Asks four questions per photo, so it waits at four places.
async fn load_photos_one_by_one(store: Store) {
    let mut photos = 0_u32;
    loop {
        let photo = store.query().await;
        let owner = store.query().await;
        let tags = store.query().await;
        let comments = store.query().await;
        photos = photos.wrapping_add(photo ^ owner ^ tags ^ comments);
        std::hint::black_box(photos);
    }
}

/// The reports of a request until eight times its threshold, the last of which has the number 3.
fn reports_of(threshold: Duration) -> Vec<Report> {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(threshold).reports(reports);
    let driven = Driven::new(2);
    let store = Store::new(&driven);
    driven.spawn(layer.layer(service_of(load_photos_one_by_one(store))).oneshot(get("/photos")));
    seen.wait("the capture at eight times the threshold", |report| report.update == 3);
    seen.all()
}

/// Guards: a loop of short waits is told as such, with their number, in the function that loops. Nearly all of the time is
/// observed: stale words on the stack don't make new places of it. The report stays small.
#[test]
fn a_loop_of_short_waits_churns() {
    let _guard = alone();
    let all = reports_of(ms(200));
    let last = all.last().unwrap();
    let text = last.to_text();
    let per_second = f64::from(last.polls) / last.elapsed.as_secs_f64();
    let missing = last.unobserved.div_duration_f64(last.elapsed) * 100.0;
    println!("{per_second:.0} polls/s, {missing:.1} % not observed, {} bytes of JSON", last.to_json().len());
    println!("{}", last.sentence());
    assert_eq!(all.iter().filter(|report| report.verdict == Verdict::Churning).count(), all.len(), "{text}");
    assert!(all.iter().all(|report| place(report) == "load_photos_one_by_one"), "{text}");
    let repeats = last.repeats.unwrap();
    assert!(repeats.waits > 1_000 && repeats.time > last.elapsed / 2, "{text}");
    assert!(last.sentence().contains(" churns: ") && last.sentence().contains(" waits of "), "{text}");
    let stacks = last.timeline.iter().filter(|interval| interval.activity == Activity::Waiting).count();
    assert!(stacks <= 16, "{stacks} places: {text}");
    if !super::common::PORTABLE {
        // The time before it was armed is an eighth of the threshold.
        assert!(missing <= 5.0, "{missing:.1} % not observed: {text}");
    }
    assert!(last.to_json().len() <= 60_000, "{}", last.to_json().len());
}

async fn retries_with_a_pause() {
    loop {
        tokio::time::sleep(ms(15)).await;
    }
}

/// Guards: a loop with few long pauses waits, and the sentence says how often.
#[test]
fn a_loop_of_pauses_says_how_often() {
    let _guard = beside_others();
    let report = caught(retries_with_a_pause());
    let text = report.to_text();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "retries_with_a_pause"), "{text}");
    let waits = report.repeats.unwrap().waits;
    assert!((3..30).contains(&waits), "{text}");
    assert!(report.sentence().ends_with(&format!(", {waits} waits there")), "{text}");
}

async fn waits_once_after_many(store: Store) {
    let began = Instant::now();
    while began.elapsed() < ms(60) {
        store.query().await;
    }
    tokio::time::sleep(FOREVER).await;
}

/// Guards: one long wait is the cause, even after a thousand short ones.
#[test]
fn one_long_wait_after_short_ones_is_waiting() {
    let _guard = beside_others();
    let driven = Driven::new(1);
    let report = caught(waits_once_after_many(Store::new(&driven)));
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "waits_once_after_many"), "{}", report.to_text());
}
