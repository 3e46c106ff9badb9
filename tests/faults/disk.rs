//! A disk that is full.
#![cfg(unix)]

use std::process::Command;

use heeler::Reports;

use crate::common::log::Log;
use crate::common::{Collected, in_process_of, ms, until};
use crate::down::keys;
use crate::server::Server;
use crate::{get_stuck, sums_up};

/// Guards: neither the spool nor the report directory accepts a report. It is sent all the same, the failures are counted and
/// logged, and no partial file is left. A limit on the size of files stands in for the full disk: the operating system
/// refuses the rest of a file in the middle of it.
#[test]
fn a_full_disk_does_not_stop_delivery() {
    let mut command = Command::new("sh");
    // In blocks of 512 or 1,024 bytes: shorter than any report.
    command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    in_process_of(command, "disk::a_full_disk_does_not_stop_delivery", || {
        let log = Log::start();
        let place = tempfile::tempdir().unwrap();
        let (spool, slow) = (place.path().join("spool"), place.path().join("slow"));
        let (seen, server) = (Collected::default(), Server::start());
        let builder = Reports::builder().without_log().spool(&spool).directory(&slow).webhook(server.hook());
        let reports = builder.sink(seen.clone()).build().unwrap();
        get_stuck(&reports, 1);
        until("it has arrived", || !server.keys().is_empty());
        assert!(!reports.blocking_flush(ms(100)), "the directory may accept it later");
        assert_eq!(server.keys(), keys(&seen));
        let stats = reports.stats();
        sums_up(&stats);
        assert_eq!((stats.not_spooled, stats.queued, stats.delivered), (stats.made, stats.made, 0));
        assert!(stats.failed_deliveries > 0);
        let log = log.text();
        assert!(log.contains("a report was not spooled, and is kept in memory alone"), "{log}");
        assert!(log.contains("a report did not arrive: directory: "), "{log}");
        assert_eq!(std::fs::read_dir(&slow).unwrap().count(), 0);
        let own = std::fs::read_dir(&spool).unwrap().next().unwrap().unwrap().path();
        let left: Vec<_> = std::fs::read_dir(own).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    });
}
