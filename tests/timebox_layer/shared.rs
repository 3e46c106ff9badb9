//! A box that shares the row of its request expires as any other, whatever polls its work.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use heeler::report::Kind;
use heeler::{TimeboxLayer, WatchdogLayer};
use http::{Request, Response};
use tower::{Layer as _, Service, ServiceExt as _};

use super::common::{Collected, Driven, FOREVER, collect};
use super::{LIMIT, block_on, forever, interrupted};

type Answer = Result<Response<heeler::timebox::layer::ResponseBody<String>>, Infallible>;
type Limited = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A handler that never answers, in a box of that limit.
fn limited(layer: &TimeboxLayer) -> Limited {
    let mut service = layer.layer(tower::service_fn(|_: Request<()>| async {
        forever().await;
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    Box::pin(service.call(Request::new(())))
}

/// Sends a request through a watchdog to `handle`, and returns the status of the answer.
fn in_request<F>(handle: impl Fn() -> F + Send + Sync + 'static) -> u16
where
    F: Future<Output = u16> + Send + 'static,
{
    let driven = Driven::new(2);
    let service = tower::service_fn(move |_: Request<()>| {
        let status = handle();
        async move { Ok::<_, Infallible>(Response::builder().status(status.await).body(String::new()).unwrap()) }
    });
    let watchdog = WatchdogLayer::new(FOREVER).layer(service);
    block_on(driven.spawn(watchdog.oneshot(Request::new(())))).unwrap().status().as_u16()
}

fn layer() -> (Collected, TimeboxLayer) {
    let (seen, reports) = collect();
    (seen, TimeboxLayer::new(LIMIT).reports(reports))
}

fn status(answer: Answer) -> u16 {
    answer.unwrap().status().as_u16()
}

#[track_caller]
fn assert_expires<F>(handle: impl Fn(Limited) -> F + Send + Sync + 'static)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (seen, layer) = layer();
    let handled = move || {
        let answer = handle(limited(&layer));
        async move { status(answer.await) }
    };
    assert_eq!(in_request(handled), 503);
    let report = interrupted(&seen);
    assert!(report.elapsed >= super::common::at_least(LIMIT), "{}", report.to_text());
    assert!(report.location.is_some_and(|at| at.function.unwrap().ends_with("::forever")));
    assert!(report.request.is_some());
}

#[test]
fn expires_in_its_own_task() {
    assert_expires(|work| work);
}

/// Guards: a set polls only what its own waker has woken.
#[test]
fn expires_in_a_set_of_futures() {
    assert_expires(|work| async move { FuturesUnordered::from_iter([work]).next().await.unwrap() });
}

#[test]
fn expires_in_a_task_of_its_own() {
    assert_expires(|work| async move { tokio::spawn(work).await.unwrap() });
}

/// Guards: work that was polled in the request's task first, and then in another.
#[test]
fn expires_in_another_task_than_it_began_in() {
    assert_expires(|mut work| async move {
        assert!(futures::poll!(&mut work).is_pending());
        tokio::spawn(work).await.unwrap()
    });
}

/// Guards: a queue before the service, whose worker is a task of its own.
#[test]
fn expires_behind_a_buffer() {
    let (seen, layer) = layer();
    let handled = move || {
        let (layer, answer) = (layer.clone(), tokio::sync::oneshot::channel());
        tokio::spawn(async move { drop(answer.0.send(limited(&layer))) });
        async move { status(answer.1.await.unwrap().await) }
    };
    assert_eq!(in_request(handled), 503);
    interrupted(&seen);
}

/// Guards: work that is polled with the waker of another task than the one that polls it.
#[test]
fn expires_where_another_task_is_woken() {
    assert_expires(|mut work| async move {
        let woken = Arc::new(tokio::sync::Notify::new());
        let (wakes, (tell, told)) = (woken.clone(), tokio::sync::oneshot::channel::<Waker>());
        let mut tell = Some(tell);
        let other = tokio::spawn(poll_fn(move |cx| {
            match tell.take() {
                Some(tell) => tell.send(cx.waker().clone()).unwrap(),
                None => wakes.notify_one(),
            }
            Poll::<()>::Pending
        }));
        let waker = told.await.unwrap();
        let answer = loop {
            if let Poll::Ready(answer) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                break answer;
            }
            woken.notified().await;
        };
        other.abort();
        answer
    });
}

/// Guards: the row's place is free again when the work is dropped, also for a limit of the same length.
#[test]
fn expires_when_it_is_tried_again() {
    let (seen, layer) = layer();
    let handled = move || {
        let layer = layer.clone();
        async move {
            for _ in 0..3 {
                assert!(tokio::time::timeout(LIMIT / 6, limited(&layer)).await.is_err());
            }
            assert!(futures::poll!(limited(&layer)).is_pending());
            status(limited(&layer).await)
        }
    };
    assert_eq!(in_request(handled), 503);
    let report = interrupted(&seen);
    assert!(report.elapsed >= super::common::at_least(LIMIT), "{}", report.to_text());
}

/// Guards: a client's box within a handler is not the request's.
#[test]
fn a_box_within_is_another() {
    let (seen, inner) = layer();
    let outer = TimeboxLayer::new(FOREVER).reports(heeler::Reports::builder().without_log().build().unwrap()).layer(
        tower::service_fn(move |_: Request<()>| {
            let inner = inner.clone();
            async move {
                let left = heeler::timebox::remaining().unwrap();
                assert!(left > FOREVER / 2, "{left:?}");
                Ok::<_, Infallible>(
                    Response::builder().status(status(limited(&inner).await)).body(String::new()).unwrap(),
                )
            }
        }),
    );
    let handled = move || {
        let outer = outer.clone();
        async move { status(outer.oneshot(Request::new(())).await) }
    };
    assert_eq!(in_request(handled), 503);
    interrupted(&seen);
}

/// Guards: what code asks of its box is true: what is left, a checkpoint, a child's, a box within.
#[test]
fn code_within_knows_its_limit() {
    let (_seen, layer) = layer();
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        assert!(heeler::timebox::remaining().is_some_and(|left| left <= LIMIT));
        assert!(heeler::checkpoint().is_ok());
        let child = heeler::spawn(async { heeler::timebox::interrupted().await.limit() });
        tokio::task::yield_now().await;
        let inner = heeler::timebox(LIMIT / 4, forever()).await.unwrap_err();
        assert_eq!(inner.limit(), LIMIT / 4);
        let has_no_effect = heeler::timebox(FOREVER, async { heeler::timebox::remaining() }).await.unwrap();
        assert!(has_no_effect.is_some_and(|left| left <= LIMIT));
        // The time is up in the middle of this poll.
        let began = std::time::Instant::now();
        while heeler::checkpoint().is_ok() {
            assert!(began.elapsed() < super::PATIENCE);
            std::hint::spin_loop();
        }
        assert!(heeler::timebox::remaining() == Some(Duration::ZERO));
        assert_eq!(child.await.unwrap(), LIMIT);
        Ok::<_, Infallible>(Response::new("its own answer".to_owned()))
    }));
    let handled = move || {
        let service = service.clone();
        async move { status(service.oneshot(Request::new(())).await) }
    };
    // It was polled once more when its time was up, and was ready.
    assert!(matches!(in_request(handled), 200 | 503));
}

/// Guards: a poll that does not return is reported as the box's, to where that reports.
#[test]
fn work_that_does_not_return_is_reported() {
    if super::common::PORTABLE {
        return;
    }
    let (seen, layer) = layer();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let held = held.clone();
        async move {
            blocks(&held);
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let handled = move || {
        let service = service.clone();
        async move { status(service.oneshot(Request::new(())).await) }
    };
    let request = std::thread::spawn(move || in_request(handled));
    let report = seen.wait("a poll that goes on", |report| report.kind == Kind::Interrupted);
    assert_eq!(report.verdict, heeler::report::Verdict::Blocking, "{}", report.to_text());
    assert_eq!(report.threshold, Some(LIMIT));
    assert!(report.location.as_ref().unwrap().function.as_ref().unwrap().ends_with("::blocks"), "{}", report.to_text());
    release.send(()).unwrap();
    // A ready value wins.
    assert_eq!(request.join().unwrap(), 200);
}

#[inline(never)]
fn blocks(held: &Mutex<std::sync::mpsc::Receiver<()>>) {
    held.lock().unwrap().recv().unwrap();
    std::hint::black_box(held);
}

/// Guards: a limit ends with the response. What the request does later is not limited, and neither is what its row is used
/// for then.
#[test]
fn a_limit_ends_with_the_response() {
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(LIMIT).reports(reports.clone());
    let handled = move || {
        let quick = layer.layer(tower::service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
        async move {
            let mut polls = 0;
            let quick = status(quick.oneshot(Request::new(())).await);
            let mut rest = pin!(tokio::time::sleep(LIMIT * 2));
            poll_fn(|cx| {
                polls += 1;
                rest.as_mut().poll(cx)
            })
            .await;
            assert_eq!(polls, 2, "the monitor has woken it");
            quick
        }
    };
    assert_eq!(in_request(handled), 200);
    assert_eq!(super::reports_in(&seen, &reports), 0);
}

/// Guards: a box that is dropped where its request is not, and after it has ended, leaves others alone.
#[test]
fn a_box_that_outlives_its_request_limits_nobody() {
    let (seen, layer) = layer();
    let (keep, kept) = std::sync::mpsc::channel();
    let left = layer.clone();
    let handled = move || {
        let mut work = limited(&left);
        let keep = keep.clone();
        async move {
            assert!(futures::poll!(&mut work).is_pending());
            keep.send(work).unwrap();
            200
        }
    };
    assert_eq!(in_request(handled), 200);
    let work = kept.recv().unwrap();
    let next = move || {
        let work = limited(&layer);
        async move { status(work.await) }
    };
    let next = std::thread::spawn(move || in_request(next));
    std::thread::sleep(LIMIT / 3);
    drop(work);
    assert_eq!(next.join().unwrap(), 503);
    interrupted(&seen);
}

/// Guards: a box around the request that ends sooner is the one that code within hears of.
#[test]
fn a_sooner_box_around_counts() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = Mutex::new(tell);
    let service = TimeboxLayer::new(FOREVER).layer(tower::service_fn(move |_: Request<()>| {
        let tell = tell.lock().unwrap().clone();
        async move {
            tokio::task::yield_now().await;
            let began = std::time::Instant::now();
            let left = heeler::timebox::remaining();
            while heeler::checkpoint().is_ok() && began.elapsed() < super::PATIENCE {
                std::hint::spin_loop();
            }
            tell.send((left, began.elapsed())).unwrap();
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    }));
    let mut watched = WatchdogLayer::new(FOREVER).layer(service);
    let driven = Driven::new(1);
    let limited = block_on(driven.spawn(async move {
        let answer = watched.call(Request::new(()));
        heeler::timebox(LIMIT, answer).await.is_ok()
    }));
    assert!(limited, "it was ready in the poll in which its time was up");
    let (left, until_told) = told.recv().unwrap();
    assert!(left.is_some_and(|left| left <= LIMIT) && until_told < super::PATIENCE, "{left:?} {until_told:?}");
}

/// Guards: what code within has asked for ends with a panic, too. Nothing is said later of what the thread does then.
#[test]
fn a_panic_ends_a_box_that_code_has_asked_for() {
    let (seen, reports) = collect();
    let layer = TimeboxLayer::new(LIMIT / 2).reports(reports.clone());
    let service = layer.layer(tower::service_fn(|_: Request<()>| async {
        if heeler::timebox::remaining().is_some() {
            // Without the hook: a backtrace takes longer than the box has.
            std::panic::resume_unwind(Box::new("there is a box"));
        }
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let driven = Driven::new(1);
    let watchdog = WatchdogLayer::new(FOREVER).layer(service);
    let panicked = driven.spawn(watchdog.oneshot(Request::new(())));
    assert!(futures::executor::block_on(panicked).unwrap_err().is_panic());
    // The thread polls something else when the box would have expired, for long enough to be reported for it.
    block_on(driven.spawn(heeler::watch("next", FOREVER, async { std::thread::sleep(LIMIT * 2) })));
    assert_eq!(super::reports_in(&seen, &reports), 0);
}
