//! A spool that somebody has damaged, or whose clock was wrong.

use std::fs;

use serde_json::Value;

use crate::common::{PATIENCE, until};
use crate::killed::{kill_a_process, left_in, successor};
use crate::sums_up;

/// Guards: a file that isn't a report is set aside and counted, whatever it is. What a later version wrote is left for that
/// version, and the other reports arrive.
#[test]
fn corrupted_spool_files_are_set_aside() {
    let (spool, down, _) = kill_a_process("spool::corrupted_spool_files_are_set_aside", 7);
    let files = left_in(spool.path());
    let good = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], &good[..good.len() / 2]).unwrap();
    fs::write(&files[1], b"\x00\xff\x7fELF").unwrap();
    fs::write(&files[2], b"").unwrap();
    fs::remove_file(&files[3]).unwrap();
    fs::create_dir(&files[3]).unwrap();
    fs::write(&files[4], good.replacen("\"schema\":1,", "\"schema\":99,", 1)).unwrap();
    assert_ne!(fs::read_to_string(&files[4]).unwrap(), good);
    // What the last process knew of who has them.
    for file in &files {
        fs::write(file.with_extension("taken"), b"\xff\x00\n").unwrap();
    }
    let next = successor(spool.path(), &down);
    until("the next process has taken the reports over", || next.stats().recovered > 0);
    let server = down.start();
    assert!(next.blocking_flush(PATIENCE));
    // What a later version wrote stays where that version will find it.
    let (all, bad) = (files.len() as u64 - 1, 4);
    let stats = next.stats();
    sums_up(&stats);
    assert_eq!((stats.recovered, stats.delivered, stats.undelivered), (all, all - bad, bad));
    assert_eq!(server.posts().len() as u64, all - bad);
    assert_eq!(fs::read_dir(spool.path().join("unreadable")).unwrap().count() as u64, bad);
    assert_eq!(left_in(spool.path()), [files[4].clone()]);
}

/// Guards: a report from the future and one from long ago both arrive.
#[test]
fn a_wrong_clock_does_not_stop_reports() {
    let (spool, down, made) = kill_a_process("spool::a_wrong_clock_does_not_stop_reports", 3);
    let times = ["2199-12-31T23:59:59.999Z", "1970-01-01T00:00:00.000Z"];
    for (file, time) in left_in(spool.path()).iter().zip(times) {
        let mut report: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        report["captured_at"] = time.into();
        report["started_at"] = time.into();
        fs::write(file, report.to_string()).unwrap();
    }
    let next = successor(spool.path(), &down);
    let server = down.start();
    until("all have arrived", || next.stats().delivered == made.len() as u64);
    assert_eq!(server.keys(), made);
    let posts = server.posts();
    let arrived = |time: &str| posts.iter().any(|report| report["captured_at"] == time);
    assert!(times.into_iter().all(arrived), "{posts:?}");
    sums_up(&next.stats());
}
