//! Every verdict, from work that really is in that state: on real runtimes and threads, through the public API alone.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

#[path = "../common/mod.rs"]
mod common;

mod abandoned;
mod blocking;
mod children;
mod churning;
mod controls;
mod current;
mod endings;
mod layers;
mod nested;
mod rows;
mod runtimes;
mod silent;
mod starved;
mod throttled;
mod timeline;
mod traces;
mod upgraded;
mod waiting;

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use heeler::{Report, WatchdogLayer};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use common::{Collected, Driven, collect, ms, until};

/// Long enough that a busy machine polls what was woken within a quarter of it.
const THRESHOLD: Duration = ms(300);

type Answer = Result<Response<String>, Infallible>;

fn get(path: &str) -> Request<()> {
    Request::get(path).header("host", "photos.example").body(()).unwrap()
}

/// A service that answers its one request after the future.
fn service_of<F>(
    future: F,
) -> impl tower::Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Send
where
    F: Future<Output = ()> + Send + 'static,
{
    let future = Mutex::new(Some(future));
    tower::service_fn(move |_: Request<()>| {
        let future = future.lock().unwrap().take().expect("one request");
        async move {
            future.await;
            Ok(Response::new("done".to_owned()))
        }
    })
}

/// Sends a request to a service that is stuck in `future`, and returns the first report about it. Its row is free then.
fn caught(future: impl Future<Output = ()> + Send + 'static) -> Report {
    caught_on(2, future)
}

fn caught_on(workers: usize, future: impl Future<Output = ()> + Send + 'static) -> Report {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(THRESHOLD).reports(reports);
    let driven = Driven::new(workers);
    driven.spawn(layer.layer(service_of(future)).oneshot(get("/stuck?photo=7")));
    let report = seen.first();
    drop(driven);
    until("the dropped request has freed its row", || layer.handle().in_flight() == 0);
    report
}

/// Nothing has been reported, nor will be of what has happened until now.
#[track_caller]
fn nothing_in(seen: &Collected, reports: &heeler::Reports) {
    assert!(reports.blocking_flush(common::PATIENCE));
    let texts: Vec<String> = seen.all().iter().map(Report::to_text).collect();
    assert!(texts.is_empty(), "{}", texts.join("\n\n"));
}
