//! Processes that may not make every system call.

use std::fs;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use heeler::Report;
use heeler::report::{StackKind, Verdict};
use syscalls::Sysno;

use super::ALL;
use super::common::{
    Collected, PATIENCE, PORTABLE, collect, collect_with, goes_through, in_own_process, in_process_of, ms,
};
use super::fiber::on_fiber;
use super::seccomp::{ALLOW, KILL, REFUSE, filter, refuse};

const THRESHOLD: Duration = ms(40);

/// Computes, so that it has to be signalled, until it has been or there are all reports.
#[inline(never)]
fn computes(seen: &Collected) {
    let began = Instant::now();
    while !is_over(seen, "computes") && began.elapsed() < PATIENCE {
        (0..100_000).for_each(|number| {
            std::hint::black_box(number);
        });
    }
}

/// Sleeps, until it has been captured so or there are all reports.
fn sleeps(seen: &Collected) {
    let began = Instant::now();
    while !is_over(seen, "watched_for") && began.elapsed() < PATIENCE {
        std::thread::sleep(ms(300));
    }
}

fn is_over(seen: &Collected, function: &str) -> bool {
    seen.all().iter().any(|report| report.update == 3 || shows(report, function))
}

fn shows(report: &Report, function: &str) -> bool {
    goes_through(report, StackKind::Thread, function)
}

/// The report of a poll that shows a function, else its last.
fn watched(function: &str, body: impl FnOnce(&Collected)) -> Report {
    watched_for(THRESHOLD, function, body)
}

fn watched_for(threshold: Duration, function: &str, body: impl FnOnce(&Collected)) -> Report {
    let (seen, reports) = collect();
    let waiter = seen.clone();
    futures::executor::block_on(heeler::watch("job", threshold, async move { body(&waiter) }).reports(reports));
    seen.first();
    seen.with_thread_in(function).unwrap()
}

/// Guards: a signal that may not be sent costs the stack, and the report says so.
#[test]
fn a_refused_signal_is_reported() {
    in_own_process("filters::a_refused_signal_is_reported", || {
        filter(&[libc::SYS_rt_tgsigqueueinfo, libc::SYS_tgkill], REFUSE, ALLOW, ALL);
        let report = watched("computes", computes);
        let text = report.to_text();
        assert_eq!(report.verdict, Verdict::Blocking, "{text}");
        let why = if PORTABLE { "no thread stacks" } else { "refuses to send the signal" };
        assert!(report.notes.iter().any(|note| note.contains(why)), "{text}");
    });
}

/// Guards: where queued signals are refused, with whatever error, other signals are used.
#[test]
fn threads_are_captured_without_queued_signals() {
    for (error, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EINVAL, "EINVAL")] {
        // One process for each: a filter stays.
        let variable = format!("HEELER_TEST_REFUSED_{name}");
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.env(&variable, "1");
        let is_inside = std::env::vars().any(|(name, _)| name.starts_with("HEELER_TEST_REFUSED_"));
        if is_inside && std::env::var_os(&variable).is_none() {
            continue;
        }
        in_process_of(command, "filters::threads_are_captured_without_queued_signals", || {
            filter(&[libc::SYS_rt_tgsigqueueinfo], refuse(error), ALLOW, ALL);
            for _ in 0..3 {
                let report = watched("computes", computes);
                assert!(PORTABLE || shows(&report, "computes"), "{}", report.to_text());
            }
            let report = std::thread::spawn(|| watched("computes", computes)).join().unwrap();
            assert!(PORTABLE || shows(&report, "computes"), "{}", report.to_text());
        });
    }
}

/// Guards: there, too, a thread that has not answered is asked again once its signal has arrived after all.
#[test]
fn a_late_answer_without_a_queued_signal_is_recognised() {
    in_own_process("filters::a_late_answer_without_a_queued_signal_is_recognised", || {
        filter(&[libc::SYS_rt_tgsigqueueinfo], REFUSE, ALLOW, ALL);
        // The later looks must come after the first report, which reads debug information.
        let report = watched_for(ms(1_000), "computes", |seen| {
            let change = |how: i32| {
                // SAFETY: fills a set and applies it to this thread alone.
                unsafe {
                    let mut all = std::mem::zeroed();
                    libc::sigfillset(&raw mut all);
                    assert_eq!(libc::pthread_sigmask(how, &raw const all, std::ptr::null_mut()), 0);
                }
            };
            change(libc::SIG_BLOCK);
            let began = Instant::now();
            while seen.all().is_empty() && began.elapsed() < PATIENCE {}
            assert!(PORTABLE || !shows(&seen.first(), "computes"), "{}", seen.first().to_text());
            change(libc::SIG_UNBLOCK);
            computes(seen);
        });
        assert!(PORTABLE || shows(&report, "computes"), "{}", report.to_text());
    });
}

/// Guards: a thread's own stack is captured without reads that can fail, too.
#[test]
fn own_stacks_are_captured_without_proc_mem() {
    in_own_process("filters::own_stacks_are_captured_without_proc_mem", || {
        filter(&[libc::SYS_pread64], REFUSE, ALLOW, ALL);
        let report = watched("computes", computes);
        assert!(PORTABLE || shows(&report, "computes"), "{}", report.to_text());
        let report = watched("watched_for", sleeps);
        assert!(PORTABLE || shows(&report, "watched_for"), "{}", report.to_text());
    });
}

/// The calls that the documentation names for what is always there, or for that and for what has files, too.
fn documented(files: bool) -> Vec<i64> {
    let text = include_str!("../../docs/system-calls.md");
    let (always, _) = text.split_once("What has files").unwrap();
    let names = if files { text } else { always }.lines().filter(|line| line.starts_with("| "));
    let names = names.filter(|line| !["mail ", "a profile"].iter().any(|other| line[2..].starts_with(other)));
    let names = names.filter_map(|line| line.split(" | ").nth(1)).flat_map(|cell| cell.split(", "));
    let names = names.filter_map(|name| name.trim().strip_prefix('`')?.strip_suffix('`'));
    // Those of other architectures are not known here.
    names.filter_map(|name| Sysno::from_str(name).ok()).map(|call| i64::from(call.id())).collect()
}

/// Guards: the documentation names every system call that heeler makes. A filter that ends the process at any other lets it
/// report an await, a thread that computes, one that sleeps, and one on a fiber.
#[test]
fn only_the_documented_system_calls_are_used() {
    in_own_process("filters::only_the_documented_system_calls_are_used", || {
        let mut calls = documented(false);
        assert!(calls.len() > 20, "{calls:?}");
        // And what any program does, to end.
        calls.push(libc::SYS_exit_group);
        filter(&calls, ALLOW, KILL, ALL);
        let report = watched("computes", computes);
        assert!(PORTABLE || shows(&report, "computes"), "{}", report.to_text());
        watched("watched_for", sleeps);
        watched("computes", |seen| on_fiber(|| computes(seen)));
        std::thread::spawn(|| watched("computes", computes)).join().unwrap();
        let (seen, reports) = collect();
        let (release, receiver) = tokio::sync::oneshot::channel::<()>();
        let waiter = std::thread::spawn(move || {
            let report = seen.first();
            drop(release);
            report
        });
        let job = async { drop(receiver.await) };
        futures::executor::block_on(heeler::watch("job", THRESHOLD, job).reports(reports));
        assert_eq!(waiter.join().unwrap().verdict, Verdict::Waiting);
    });
}

/// Guards: the same for what has files: a spool in which another process has left reports, readable and not, a report
/// directory, and locks that are held, under a umask that leaves nothing as it should be.
#[test]
fn only_the_documented_system_calls_touch_files() {
    in_own_process("filters::only_the_documented_system_calls_touch_files", || {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join("spool/4242-1f0e9a00");
        fs::create_dir_all(&left).unwrap();
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/spool-1")).unwrap().flatten() {
            fs::copy(entry.path(), left.join(entry.file_name())).unwrap();
        }
        fs::write(left.join("000000000003-0.0.json"), "no report").unwrap();
        fs::write(left.join("000000000004-0.0.json"), "{\"schema\":99}").unwrap();
        let (spool, directory, lock) = ["spool", "reports", "job.lock"].map(|name| place.path().join(name)).into();
        // SAFETY: changes a number.
        unsafe { libc::umask(0o277) };
        let mut calls = documented(true);
        // And what any program does, to end.
        calls.push(libc::SYS_exit_group);
        filter(&calls, ALLOW, KILL, ALL);
        let (seen, reports) = collect_with(|builder| builder.spool(spool).directory(directory));
        // Not one that was left there.
        let reported = async { drop(seen.wait("its own", |report| report.job.as_deref() == Some("job"))) };
        let job = heeler::watch("job", THRESHOLD, reported).reports(reports.clone());
        let held = heeler::timebox::exclusive(&lock, PATIENCE, async {
            let other = heeler::timebox::exclusive(&lock, PATIENCE, async {});
            assert!(other.await.unwrap_err().is_held());
            job.await;
        });
        futures::executor::block_on(held).unwrap();
        assert!(reports.blocking_flush(PATIENCE));
        let stats = reports.stats();
        assert_eq!((stats.recovered, stats.undelivered, stats.left_to_later_version), (4, 1, 1), "{stats:?}");
        assert!(place.path().join("spool/unreadable").is_dir());
        drop(reports);
        // The directory, which was made under this umask, is there to be removed.
        assert!(fs::read_dir(place.path().join("reports")).unwrap().count() >= 3);
    });
}
