//! One monitor for the process, whatever runtimes there are.

use heeler::WatchdogLayer;
use heeler::report::Verdict;
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, beside_others, collect, ms, place, runtime, until};
use super::{Driven, THRESHOLD, get, service_of};

async fn stuck() {
    tokio::time::sleep(FOREVER).await;
}

/// Guards: several runtimes of both kinds at the same time.
#[test]
fn several_runtimes_are_watched_at_once() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(THRESHOLD).reports(reports);
    let paths = ["/a", "/b", "/c", "/d"];
    let driven: Vec<Driven> = [0, 1, 2, 0].map(Driven::new).into();
    for (driven, path) in driven.iter().zip(paths) {
        driven.spawn(layer.layer(service_of(stuck())).oneshot(get(path)));
    }
    for path in paths {
        let report = seen.wait(path, |report| report.request.as_ref().unwrap().uri == path);
        assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "stuck"), "{}", report.to_text());
    }
}

/// Guards: runtimes come and go, with their threads. Nothing is left, and the next one is watched like the first.
#[test]
fn runtimes_are_watched_one_after_the_other() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(100)).reports(reports);
    for round in 0..40 {
        let runtime = runtime(round % 3);
        let answer = layer.layer(service_of(async { tokio::time::sleep(ms(1)).await })).oneshot(get("/fast"));
        runtime.block_on(async { tokio::spawn(answer).await.unwrap() }).unwrap();
        if round % 10 == 9 {
            let path: String = format!("/{round}");
            let stuck = layer.layer(service_of(stuck())).oneshot(get(&path));
            let uri = path.clone();
            let reported = seen.reported(move |report| report.request.as_ref().unwrap().uri == uri);
            runtime.block_on(async {
                tokio::select! {
                    _ = stuck => unreachable!("it is stuck"),
                    () = reported => {}
                }
            });
            let report = seen.wait(&path, |report| report.request.as_ref().unwrap().uri == path);
            assert_eq!(place(&report), "stuck", "{}", report.to_text());
        }
        runtime.shutdown_background();
    }
    until("all rows are free", || layer.handle().in_flight() == 0);
}

/// Guards: a runtime may be dropped while its work is slow, and while heeler keeps its wakers.
#[test]
fn a_runtime_can_be_dropped_while_slow() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(20)).reports(reports);
    for _ in 0..20 {
        let runtime = runtime(2);
        let before = seen.all().len();
        for _ in 0..4 {
            runtime.spawn(layer.layer(service_of(stuck())).oneshot(get("/")));
        }
        until("one of them is reported", || seen.all().len() > before);
        drop(runtime);
        assert_eq!(layer.handle().in_flight(), 0);
    }
}

async fn waits_without_tokio(answer: futures::channel::oneshot::Receiver<u32>) -> u32 {
    answer.await.unwrap()
}

#[test]
fn work_without_a_runtime_is_watched() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (send, receive) = futures::channel::oneshot::channel();
    let job = heeler::watch("job", THRESHOLD, waits_without_tokio(receive)).reports(reports);
    let thread = std::thread::spawn(move || futures::executor::block_on(job));
    let report = seen.first();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "waits_without_tokio"), "{}", report.to_text());
    send.send(7).unwrap();
    assert_eq!(thread.join().unwrap(), 7);
}

/// Guards: a future may move from runtime to runtime, and from thread to thread, between two polls.
#[test]
fn a_future_can_move_between_runtimes() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let (send, receive) = futures::channel::oneshot::channel();
    let mut job = Box::pin(heeler::watch("nomad", THRESHOLD, waits_without_tokio(receive)).reports(reports));
    for _ in 0..3 {
        let threads = std::thread::spawn(move || {
            runtime(0).block_on(async {
                let _ = tokio::time::timeout(ms(20), &mut job).await;
            });
            job
        });
        job = threads.join().unwrap();
    }
    let driven = Driven::new(1);
    let last = driven.spawn(job);
    let report = seen.first();
    assert_eq!((report.verdict, &*place(&report)), (Verdict::Waiting, "waits_without_tokio"), "{}", report.to_text());
    send.send(7).unwrap();
    assert_eq!(futures::executor::block_on(last).unwrap(), 7);
}
