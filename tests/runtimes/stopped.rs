//! A process that the machine does not run.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::common::{Driven, collect, ms, until};

/// Says that this is the process that is stopped.
const STOPPED: &str = "HEELER_TEST_STOPPED";

/// The process that is stopped.
#[test]
fn a_process_that_is_stopped() {
    if std::env::var_os(STOPPED).is_none() {
        return;
    }
    let driven = Driven::new(1);
    // So that it mostly owes an answer, as long as nothing is late.
    driven.spawn(async {
        loop {
            // Not all of it passes while the process is stopped.
            (0..8).for_each(|_| std::thread::sleep(ms(5)));
            tokio::task::yield_now().await;
        }
    });
    let (seen, reports) = collect();
    heeler::watch_runtime("stopped", &driven.handle, reports);
    let health = || heeler::runtimes().remove(0);
    until("it beats", || health().delay_p50 > Duration::ZERO);
    let own = std::process::id();
    // By a shell, because a process cannot start itself again. At other moments of each beat, of which there are twenty a
    // second.
    let stops = format!(
        "for pause in 0.61 0.62 0.63 0.64 0.66; do sleep $pause; kill -STOP {own}; sleep 0.5; kill -CONT {own}; done; sleep 0.7"
    );
    assert!(Command::new("sh").args(["-c", &stops]).status().unwrap().success());
    let health = health();
    assert_eq!((health.stalls, seen.all().len()), (0, 0), "{health:?}");
    println!("went on");
}

/// Guards: a process that stood still as a whole has no stall: nobody is woken by a machine that paused.
#[test]
fn a_stop_is_no_stall() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "stopped::a_process_that_is_stopped", "--nocapture"]).env(STOPPED, "1");
    let output = child.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("went on"), "{said}");
}
