//! The metrics of the whole process: alone in it, so that every number is known.
#![cfg(all(feature = "watchdog", feature = "timebox"))]

mod common;

use common::{Driven, FOREVER, PORTABLE, collect, ms, traces_every_poll, until};
use heeler::report::Verdict;
use heeler::report::metrics::Pieces;
use heeler::{WatchdogLayer, metrics};
use tower::{Layer as _, ServiceExt as _};

type Answer = Result<http::Response<String>, std::convert::Infallible>;

fn pieces(pieces: Pieces) -> [u64; 4] {
    [pieces.requests, pieces.jobs, pieces.children, pieces.timeboxes]
}

async fn request(layer: &WatchdogLayer, answer: impl Future<Output = ()>) {
    let answer = std::cell::Cell::new(Some(answer));
    let service = tower::service_fn(move |_: http::Request<()>| {
        let answer = answer.take();
        async move {
            answer.unwrap().await;
            Answer::Ok(http::Response::new(String::new()))
        }
    });
    layer.layer(service).oneshot(http::Request::new(())).await.unwrap();
}

/// Guards: each piece of work is counted once, in its kind, while it is in flight and forever after. What is late is armed,
/// captured and reported, and counted so.
#[test]
fn everything_is_counted_once() {
    let (seen, reports) = collect();
    let quick = WatchdogLayer::new(FOREVER).without_blocking_reports().reports(reports.clone());
    let slow = WatchdogLayer::new(ms(200)).without_blocking_reports().reports(reports.clone());
    let driven = Driven::new(2);
    assert_eq!((pieces(metrics().watched), pieces(metrics().in_flight)), ([0; 4], [0; 4]));

    // Work that ends in time, also on several threads: their rows are used again and again.
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let quick = quick.clone();
            driven.spawn(async move {
                for _ in 0..250 {
                    request(&quick, async { heeler::spawn(async {}).await.unwrap() }).await;
                }
                heeler::watch("job", FOREVER, async {}).await;
                for _ in 0..100 {
                    heeler::timebox(FOREVER, async {}).await.unwrap();
                }
            })
        })
        .collect();
    driven.handle.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    until("the children have ended", || metrics().in_flight.total() == 0);
    assert_eq!(pieces(metrics().watched), [1_000, 4, 1_000, 400]);
    assert_eq!(reports.stats().made, 0);
    if !traces_every_poll() {
        assert_eq!(metrics().armed, 0);
    }

    // Requests that wait, and one that is in no hurry.
    let (stop, stopped) = tokio::sync::watch::channel(());
    let wait = |mut stopped: tokio::sync::watch::Receiver<()>| async move {
        let _ = stopped.changed().await;
    };
    let waiting: Vec<_> = [&quick, &slow, &slow]
        .map(|layer| {
            let (layer, wait) = (layer.clone(), wait(stopped.clone()));
            driven.spawn(async move { request(&layer, wait).await })
        })
        .into();
    until("both are reported", || reports.stats().with_verdict(Verdict::Waiting) >= 2);
    until("three are in flight", || pieces(metrics().in_flight) == [3, 0, 0, 0]);
    let now = metrics();
    assert_eq!(pieces(now.watched), [1_003, 4, 1_000, 400]);
    if !traces_every_poll() {
        assert_eq!((now.armed, now.armed_now), (2, 2));
    }
    assert!(now.captures.taken >= 2, "{now:?}");
    assert_eq!((now.captures.missed, now.captures.refused), (0, 0));

    // A timebox counts once, whether it is inside a job or by itself.
    driven.handle.block_on(async {
        let nested = heeler::timebox(FOREVER, async { pieces(metrics().in_flight) });
        assert_eq!(heeler::watch("job", FOREVER, nested).await.unwrap(), [3, 1, 0, 1]);
    });
    assert_eq!(pieces(metrics().watched), [1_003, 5, 1_000, 401]);

    // One that blocks its thread.
    let blocked = driven.spawn({
        let (slow, seen) = (slow.clone(), seen.clone());
        let blocks = async move {
            if !PORTABLE {
                seen.wait("itself", |report| report.verdict == Verdict::Blocking);
            }
        };
        async move { request(&slow, blocks).await }
    });
    if !PORTABLE {
        seen.wait("the blocking work", |report| report.verdict == Verdict::Blocking);
        assert!(metrics().thread_stacks.taken >= 1);
        assert!(metrics().reports.with_verdict(Verdict::Blocking) >= 1);
    }
    stop.send(()).unwrap();
    driven.handle.block_on(async {
        for task in waiting.into_iter().chain([blocked]) {
            task.await.unwrap();
        }
    });
    assert_eq!((pieces(metrics().in_flight), metrics().armed_now), ([0; 4], 0));
    assert_eq!(pieces(metrics().watched), [1_004, 5, 1_000, 401]);
    assert!(reports.blocking_flush(common::PATIENCE));
    until("all reports in the process are counted here", || metrics().reports == reports.stats());
    let own = reports.stats();
    let verdicts = [Verdict::Waiting, Verdict::Blocking, Verdict::Starved, Verdict::Yielding, Verdict::NoWaker];
    let others = [Verdict::Churning, Verdict::Throttled, Verdict::Abandoned, Verdict::Interrupted, Verdict::Unknown];
    let sum: u64 = verdicts.iter().chain(&others).map(|verdict| own.with_verdict(*verdict)).sum();
    assert_eq!(sum, own.made);
}
