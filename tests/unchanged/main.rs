//! Watching changes nothing: what is captured at random moments ends as it does unwatched, and nothing hangs.
#![cfg(feature = "watchdog")]

#[path = "../common/mod.rs"]
mod common;

mod outcome;
mod tree;

use std::convert::Infallible;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use heeler::{Reports, WatchdogLayer};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tower::{Layer as _, ServiceExt as _};

use common::{PATIENCE, ms, runtime};
use tree::{Tree, trees};

/// A run that takes longer than this hangs. The longest tree takes a twentieth of it on a busy machine.
const HANGS: Duration = Duration::from_secs(20);

/// Runs a few trees beside each other, watched or not, and returns what they came to.
fn run(workers: usize, forest: Vec<Tree>, threshold: Option<Duration>) -> Result<Vec<u64>, RecvTimeoutError> {
    let (done, outcome) = channel();
    // Not joined: if it hangs, this test fails, and ends the process.
    std::thread::spawn(move || {
        let runtime = runtime(workers);
        let values = runtime.block_on(async {
            let tasks: Vec<_> = forest.iter().map(|tree| tokio::spawn(watched(tree, threshold))).collect();
            let mut values = Vec::new();
            for task in tasks {
                values.push(task.await.unwrap());
            }
            values
        });
        let _ = done.send(values);
    });
    outcome.recv_timeout(HANGS)
}

fn watched(tree: &Tree, threshold: Option<Duration>) -> BoxFuture<'static, u64> {
    let future = tree.run();
    let Some(threshold) = threshold else { return future };
    if tree.value().is_multiple_of(2) {
        return heeler::watch("tree", threshold, future).reports(reports()).boxed();
    }
    let future = Mutex::new(Some(future));
    let service = layer().layer(tower::service_fn(move |_: Request<()>| {
        let future = future.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(future.await.to_string())) }
    }));
    let mut request = Request::new(());
    request.extensions_mut().insert(threshold);
    async { service.oneshot(request).await.unwrap().into_body().collect().await.unwrap() }
        .map(|body| std::str::from_utf8(&body.to_bytes()).unwrap().parse().unwrap())
        .boxed()
}

fn reports() -> Reports {
    static REPORTS: OnceLock<Reports> = OnceLock::new();
    REPORTS.get_or_init(|| Reports::builder().without_log().build().unwrap()).clone()
}

/// A layer that takes the threshold of each request from it.
fn layer() -> &'static WatchdogLayer {
    static LAYER: OnceLock<WatchdogLayer> = OnceLock::new();
    LAYER.get_or_init(|| {
        let layer = WatchdogLayer::new(ms(60_000)).blocking_after(ms(1)).watch_bodies().reports(reports());
        layer.threshold_for(|parts| parts.extensions.get().copied())
    })
}

fn unchanged(workers: usize) {
    let config = Config { max_shrink_iters: 20, failure_persistence: None, ..Config::default() };
    let forests = (prop::collection::vec(trees(), 1..8), 1_000..3_000_u64);
    let outcome = TestRunner::new(config).run(&forests, |(forest, threshold)| {
        let expected: Vec<u64> = forest.iter().map(Tree::value).collect();
        let threshold = Duration::from_micros(threshold);
        prop_assert_eq!(run(workers, forest.clone(), None), Ok(expected.clone()), "unwatched");
        for round in 0..3 {
            prop_assert_eq!(run(workers, forest.clone(), Some(threshold)), Ok(expected.clone()), "round {}", round);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Most of that is reading the debug information of a debug build.
    assert!(reports().blocking_flush(PATIENCE * 3));
    let stats = reports().stats();
    assert!(stats.made + stats.dropped >= 100, "hardly anything was captured: {stats:?}");
}

/// Guards: the same values as without heeler, on one thread.
#[test]
fn results_are_unchanged_on_one_thread() {
    unchanged(0);
}

/// Guards: the same values as without heeler, on several threads.
#[test]
fn results_are_unchanged_on_several_workers() {
    unchanged(3);
}
