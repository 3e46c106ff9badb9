//! A process that is killed, and what it leaves behind.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use heeler::Reports;

use crate::common::{Collected, until};
use crate::down::keys;
use crate::server::Down;
use crate::{get_stuck, sums_up};

const SPOOL: &str = "HEELER_TEST_SPOOL";
const SERVER: &str = "HEELER_TEST_SERVER";

/// Has a process with this spool make so many reports or more for a server that is down, and kills it after the second
/// attempt. Returns the keys of the reports, sorted. To be called first by the test of this name, for the process runs it.
pub(crate) fn kill_a_process(test: &str, jobs: u64) -> (tempfile::TempDir, Down, Vec<String>) {
    if let (Some(spool), Ok(server)) = (std::env::var_os(SPOOL), std::env::var(SERVER)) {
        be_killed(&PathBuf::from(spool), server.parse().unwrap(), jobs);
    }
    let (spool, down) = (tempfile::tempdir().unwrap(), Down::new());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(SPOOL, spool.path()).env(SERVER, down.address().to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("made: "));
    child.kill().unwrap();
    child.wait().unwrap();
    let line = line.expect("the process ended by itself");
    let keys: Vec<String> = line.split("made: ").nth(1).unwrap().split(' ').map(str::to_owned).collect();
    assert!(keys.len() as u64 >= jobs);
    assert_eq!(left_in(spool.path()).len(), keys.len(), "one file per report");
    (spool, down, keys)
}

fn be_killed(spool: &Path, server: SocketAddr, jobs: u64) -> ! {
    let seen = Collected::default();
    let builder = Reports::builder().without_log().repeat_after(Duration::ZERO).spool(spool);
    let reports = builder.webhook(crate::server::hook(server)).sink(seen.clone()).build().unwrap();
    get_stuck(&reports, jobs);
    until("it was tried twice", || reports.stats().failed_deliveries >= 2);
    // The end of a line that the test harness has begun.
    println!("\nmade: {}", keys(&seen).join(" "));
    std::thread::sleep(Duration::from_secs(60));
    std::process::exit(1);
}

/// The reports in a spool, oldest first.
pub(crate) fn left_in(spool: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(spool).unwrap().map(|folder| folder.unwrap().path());
    let folders = folders.filter(|folder| !folder.ends_with("unreadable"));
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|kind| kind == "json")).collect();
    files.sort();
    files
}

/// The process that comes after one that was killed.
pub(crate) fn successor(spool: &Path, server: &Down) -> Reports {
    Reports::builder().without_log().spool(spool).webhook(server.hook()).build().unwrap()
}

/// Guards: nothing is lost between two attempts. The next process sends every report, once, and nothing is left.
#[test]
fn a_kill_between_two_attempts_loses_nothing() {
    let (spool, down, made) = kill_a_process("killed::a_kill_between_two_attempts_loses_nothing", 5);
    let next = successor(spool.path(), &down);
    until("the next process has taken the reports over", || next.stats().recovered > 0);
    let server = down.start();
    assert!(next.blocking_flush(crate::common::PATIENCE));
    assert_eq!(server.keys(), made);
    let stats = next.stats();
    sums_up(&stats);
    assert_eq!((stats.recovered, stats.delivered), (made.len() as u64, made.len() as u64));
    assert_eq!(left_in(spool.path()), Vec::<PathBuf>::new());
    drop(next);
    // Another one finds nothing.
    let third = Reports::builder().without_log().spool(spool.path()).webhook(server.hook()).build().unwrap();
    assert!(third.blocking_flush(crate::common::PATIENCE));
    assert_eq!((third.stats().recovered, server.keys().len()), (0, made.len()));
}
