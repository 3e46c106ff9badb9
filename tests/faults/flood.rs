//! Ten thousand jobs that are slow at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{PATIENCE, collect_with, in_own_process, ms, runtime, until};
use crate::server::Down;
use crate::sums_up;

const JOBS: usize = 10_000;
const QUEUE: usize = 20;

/// Guards: many more reports are made than may wait for a server that is down. Each job is reported, dropped or not captured,
/// and counted once as such. What waited arrives, and the reports that arrive mention every one that was lost, once.
#[test]
fn a_flood_is_delivered_or_counted() {
    in_own_process("flood::a_flood_is_delivered_or_counted", || {
        let down = Down::new();
        let (_, reports) = collect_with(|builder| builder.max_queued(QUEUE).webhook(down.hook()));
        let runtime = runtime(2);
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let threshold = ms(3_000);
        let jobs: Vec<_> = (0..JOBS)
            .map(|_| {
                let (gate, running) = (Arc::clone(&gate), Arc::clone(&running));
                let job = async move {
                    running.fetch_add(1, Ordering::Relaxed);
                    let _permit = gate.acquire().await;
                };
                runtime.spawn(heeler::watch("import", threshold, job).reports(reports.clone()))
            })
            .collect();
        until("all are running", || running.load(Ordering::Relaxed) == JOBS);
        until("the first is reported", || reports.stats().made > 0);
        // All are past their threshold soon, and none is past twice that.
        std::thread::sleep(threshold / 4);
        gate.add_permits(JOBS);
        runtime.block_on(futures::future::join_all(jobs));
        until("each is counted", || {
            let stats = reports.stats();
            stats.made + stats.dropped + stats.not_captured >= JOBS as u64
        });
        let stats = reports.stats();
        assert!(stats.made > 2 * QUEUE as u64 && stats.undelivered > 0 && stats.not_captured > 0, "{stats:?}");
        let server = down.start();
        assert!(reports.blocking_flush(PATIENCE));
        let stats = reports.stats();
        sums_up(&stats);
        let arrived = server.posts();
        assert_eq!((stats.queued, stats.delivered), (0, arrived.len() as u64));
        // One may have been under way while the others came.
        assert!((QUEUE..=QUEUE + 1).contains(&arrived.len()), "{stats:?}");
        let notes = arrived.iter().flat_map(|report| report["notes"].as_array().unwrap());
        let lost = notes.filter_map(|note| {
            let note = note.as_str().unwrap();
            note.contains("lost on the way to webhook").then(|| note.split(' ').next().unwrap().parse::<u64>().unwrap())
        });
        assert_eq!(lost.sum::<u64>(), stats.undelivered + stats.dropped);
    });
}
