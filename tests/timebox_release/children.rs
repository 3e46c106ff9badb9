//! Child processes: killed, and reaped.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
#[cfg(feature = "process")]
use std::sync::atomic::{AtomicU32, Ordering};

use heeler::timebox::{self, Interrupted, Process};

use crate::{common, interrupt_often_blocking};

/// Whether a child of this process, running or a zombie, has that id.
fn is_ours(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // "pid (name) state ppid ..", and the name may be anything.
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    parent == Some(&std::process::id().to_string())
}

/// Every other one would go on for longer than the test looks for it. With no output of this process, which whoever reads
/// that would wait for if one lived on.
fn sleep(run: &crate::Run) -> Command {
    let mut command = Command::new("sleep");
    match run.number % 2 {
        0 => command.arg(format!("0.00{}", run.holding.as_millis())),
        _ => command.arg("120"),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Guards: no child process and no zombie is left, whether its work waits for it or is dropped.
#[cfg(feature = "process")]
#[test]
fn every_child_of_async_code_is_killed_and_reaped() {
    use heeler::TimeboxExt as _;

    crate::interrupt_often(4, |run| async move {
        let pid = AtomicU32::new(0);
        let work = async {
            run.before().await;
            let mut process = Process::new(tokio::process::Command::from(sleep(&run)).spawn().unwrap());
            pid.store(process.id().unwrap(), Ordering::Relaxed);
            run.hold();
            assert!(process.wait().await.unwrap().success());
        };
        let completed = work.timebox(run.limit).await.is_ok();
        let pid = pid.into_inner();
        assert_eq!(pid != 0, run.has_held());
        if pid != 0 {
            crate::until("the child is gone", || !is_ours(pid)).await;
        }
        completed
    });
}

/// Guards: the same in plain code, where the wait ends with the timebox.
#[test]
fn every_child_of_plain_code_is_killed_and_reaped() {
    interrupt_often_blocking(4, |run| {
        let mut pid = 0;
        let result = timebox::blocking(run.limit, || {
            run.before_blocking()?;
            let mut process = Process::new(sleep(run).spawn()?);
            pid = process.id();
            run.hold();
            process.wait()
        });
        match &result {
            Ok(status) => assert!(status.success()),
            Err(error) => assert!(Interrupted::find(error).is_some(), "{error}"),
        }
        if pid != 0 {
            common::until("the child is gone", || !is_ours(pid));
        }
        result.is_ok()
    });
}
