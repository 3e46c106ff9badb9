//! What goes wrong on the way to a sink, a row of the table "What happens when" of `heeler::report` each: with real slow
//! jobs, real files, real processes, and a webhook's server on this host.
#![cfg(feature = "watchdog")]
#![cfg(feature = "webhook")]

#[path = "../common/mod.rs"]
mod common;

mod disk;
mod down;
mod flood;
mod killed;
mod server;
mod shutdown;
mod sinks;
mod spool;

use heeler::Reports;
use heeler::report::Stats;

/// So many jobs that get stuck at the same moment, and end once there are that many reports. When this returns, all that
/// was seen of them waits for the sinks, or is with them.
fn get_stuck(reports: &Reports, jobs: u64) {
    let enough = reports.stats().made + jobs;
    let stuck = (0..jobs).map(|_| {
        let seen = reports.clone();
        let job = async move {
            while seen.stats().made < enough {
                tokio::time::sleep(common::ms(10)).await;
            }
        };
        heeler::watch("nightly import", common::ms(300), job).reports(reports.clone())
    });
    common::runtime(0).block_on(futures::future::join_all(stuck));
    // Updates may have been on their way to the reporter. Flushing `reports` would end the pauses of its sinks.
    let nobody = Reports::builder().without_log().build().unwrap();
    assert!(nobody.blocking_flush(common::PATIENCE));
}

/// Nothing is counted twice or not at all.
#[track_caller]
fn sums_up(stats: &Stats) {
    let became = stats.delivered + stats.undelivered + stats.suppressed + stats.queued;
    assert_eq!(stats.made + stats.recovered, became, "{stats:?}");
}
