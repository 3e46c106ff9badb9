//! A server that is down.

use crate::common::{Collected, collect_with, until};
use crate::server::{Down, key};
use crate::{get_stuck, sums_up};

pub(crate) fn keys(seen: &Collected) -> Vec<String> {
    let mut keys: Vec<String> = seen.all().iter().map(key).collect();
    keys.sort();
    keys
}

/// Guards: connections are refused for a few attempts, then the server is up. Every report arrives, none twice.
#[test]
fn reports_wait_for_a_server_that_is_down() {
    let down = Down::new();
    let (seen, reports) = collect_with(|builder| builder.webhook(down.hook()));
    get_stuck(&reports, 5);
    until("it was tried three times", || reports.stats().failed_deliveries >= 3);
    let stats = reports.stats();
    sums_up(&stats);
    assert_eq!((stats.queued, stats.delivered, stats.undelivered), (stats.made, 0, 0));
    let server = down.start();
    until("all have arrived", || reports.stats().queued == 0);
    assert_eq!(server.keys(), keys(&seen));
    let stats = reports.stats();
    sums_up(&stats);
    assert_eq!((stats.delivered, stats.undelivered, stats.dropped), (stats.made, 0, 0));
}
