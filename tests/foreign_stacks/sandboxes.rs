//! Processes in a sandbox that takes a part of the system away: what is left works, what is lost is said, and nothing hangs.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use heeler::report::{Stack, StackKind, Verdict};
use heeler::{Report, metrics};

use super::ALL;
use super::common::log::Log;
use super::common::{PATIENCE, PORTABLE, collect, collect_with, in_own_process, in_process_of, ms};
use super::seccomp::{ALLOW, REFUSE, filter, refuse};

/// A command that runs this program in a mount namespace of its own, with an empty file system in that place. `None` where that is
/// not allowed.
fn after_mounting(place: &Path) -> Option<Command> {
    let setup = "mount -t tmpfs tmpfs \"$HEELER_TEST_PLACE\"";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.env("HEELER_TEST_PLACE", place);
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command
    };
    let is_inside = std::env::var_os("HEELER_TEST_ALONE").is_some();
    let is_allowed = is_inside || unshare(setup).status().is_ok_and(|status| status.success());
    if !is_allowed {
        println!("skipped: no mount namespace can be made here");
        return None;
    }
    let mut command = unshare(&format!("{setup} && exec \"$0\" \"$@\""));
    command.arg(std::env::current_exe().unwrap_or_default());
    Some(command)
}

/// Reports of a poll that computes, and then of one that sleeps.
fn reported() -> [Report; 2] {
    let watched = |body: &dyn Fn()| {
        let (seen, reports) = collect();
        futures::executor::block_on(heeler::watch("job", ms(40), async { body() }).reports(reports.clone()));
        let first = seen.first();
        assert!(reports.blocking_flush(PATIENCE));
        // A thread that did not get the CPU in time is shown at a later look.
        let all = seen.all().into_iter();
        all.into_iter().find(|report| thread_stack(report).is_some()).unwrap_or(first)
    };
    let computes = || {
        let began = Instant::now();
        while began.elapsed() < ms(400) {}
    };
    let reports = [watched(&computes), watched(&|| std::thread::sleep(ms(400)))];
    for report in &reports {
        assert_eq!(report.verdict, Verdict::Blocking, "{}", report.to_text());
    }
    reports
}

fn thread_stack(report: &Report) -> Option<&Stack> {
    report.stacks.iter().find(|stack| stack.kind == StackKind::Thread && stack.current)
}

#[track_caller]
fn assert_stack(report: &Report) {
    let text = report.to_text();
    if PORTABLE {
        return;
    }
    let stack = thread_stack(report).unwrap_or_else(|| panic!("no stack of the thread: {text}"));
    let of_program = stack.frames.iter().filter(|frame| {
        frame.module.as_deref().is_some_and(|name| name.starts_with("foreign_stacks")) && frame.build_id.is_some()
    });
    assert!(of_program.count() >= 3 && !stack.truncated, "{text}");
}

#[track_caller]
fn assert_said(log: &Log, losses: &[&str]) {
    for loss in losses {
        assert!(PORTABLE || log.lines_with(loss).len() == 1, "{loss}: {}", log.text());
    }
}

/// Guards: without `/proc`, threads that compute and threads that sleep show their stacks, at least by address. The report
/// says that `/proc` is missing.
#[test]
fn without_proc_stacks_are_captured() {
    let Some(command) = after_mounting(Path::new("/proc")) else { return };
    in_process_of(command, "sandboxes::without_proc_stacks_are_captured", || {
        assert!(!Path::new("/proc/self").exists());
        let log = Log::start();
        reported().iter().for_each(assert_stack);
        assert_said(&log, &["/proc is not readable", "/proc/self/mem is not readable"]);
    });
}

/// Guards: the same where no file can be opened at all.
#[test]
fn without_files_stacks_are_captured() {
    in_own_process("sandboxes::without_files_stacks_are_captured", || {
        let log = Log::start();
        let calls = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_readlink, libc::SYS_readlinkat];
        filter(&calls, REFUSE, ALLOW, ALL);
        reported().iter().for_each(assert_stack);
        assert_said(&log, &["/proc is not readable", "/proc/self/mem is not readable"]);
    });
}

/// Guards: if nothing gives information about threads, there are reports without their stacks, and with a reason.
#[test]
fn without_files_and_signals_there_are_reports() {
    in_own_process("sandboxes::without_files_and_signals_there_are_reports", || {
        let log = Log::start();
        let files = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_readlink, libc::SYS_readlinkat];
        let signals = [libc::SYS_rt_tgsigqueueinfo, libc::SYS_tgkill, libc::SYS_process_vm_readv, libc::SYS_pread64];
        filter(&[&files[..], &signals].concat(), REFUSE, ALLOW, ALL);
        for report in reported() {
            let text = report.to_text();
            let why = if PORTABLE { "no thread stacks" } else { "refuses to send the signal" };
            assert!(report.notes.iter().any(|note| note.contains(why)), "{text}");
            assert!(report.stacks.iter().all(|stack| stack.kind != StackKind::Thread), "{text}");
        }
        assert_said(&log, &["no thread shows its stack"]);
    });
}

/// Guards: a process that may not start threads goes on, is not watched, and says so once.
#[test]
fn without_threads_work_goes_on() {
    in_own_process("sandboxes::without_threads_work_goes_on", || {
        let log = Log::start();
        filter(&[libc::SYS_clone, libc::SYS_clone3], refuse(libc::EAGAIN), ALLOW, ALL);
        let (seen, reports) = collect();
        for _ in 0..3 {
            let job = heeler::watch("job", ms(20), async { std::thread::sleep(ms(60)) });
            futures::executor::block_on(job.reports(reports.clone()));
        }
        assert!(!metrics().monitor.running && seen.all().is_empty());
        let began = Instant::now();
        assert!(!reports.blocking_flush(ms(100)));
        drop(reports);
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(log.lines_with("a thread of the monitor did not start").len(), 1, "{}", log.text());
    });
}

/// Guards: if the file system is read-only from the start, a sink that keeps files is an error at the start. If it becomes so
/// later, what cannot be written is counted, and the other sinks get it.
#[test]
fn on_a_read_only_file_system_losses_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let place = std::env::var_os("HEELER_TEST_PLACE").map_or_else(|| place.path().to_owned(), Into::into);
    let Some(command) = after_mounting(&place) else { return };
    in_process_of(command, "sandboxes::on_a_read_only_file_system_losses_are_counted", || {
        let (seen, reports) = collect_with(|builder| builder.directory(place.join("reports")));
        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&place).status().unwrap();
        assert!(remounted.success());
        let builder = || heeler::Reports::builder();
        assert!(builder().spool(place.join("spool")).build().unwrap_err().is_directory());
        assert!(builder().directory(place.join("more")).build().unwrap_err().is_directory());
        let job = heeler::watch("job", ms(40), async { drop(seen.first()) });
        futures::executor::block_on(job.reports(reports.clone()));
        super::common::until("it is counted", || reports.stats().failed_deliveries > 0);
        let began = Instant::now();
        let _ = reports.blocking_flush(ms(500));
        drop(reports);
        assert!(began.elapsed() < PATIENCE);
    });
}
