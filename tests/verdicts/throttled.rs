//! Throttled: the host did not give the process the CPU. A child process is stopped, or put under a quota.
#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heeler::WatchdogLayer;
use heeler::report::{DeniedBy, Verdict};
use tower::{Layer as _, ServiceExt as _};

use super::common::{FOREVER, alone, collect, ms};
use super::{Driven, get, service_of};

/// Set in a child process: which work it does.
const WORK: &str = "HEELER_TEST_DENIED";

/// Runs this test in a child process that waits for a line before it begins.
fn child(test: &str, work: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(WORK, work);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// What a child does: one request, whose first report it prints.
fn work(threshold: Duration, future: impl Future<Output = ()> + Send + 'static) {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(threshold).reports(reports);
    let driven = Driven::new(1);
    driven.spawn(layer.layer(service_of(future)).oneshot(get("/denied")));
    let report = seen.first();
    println!("\nREPORT {}", serde_json::to_string(&report).unwrap());
    std::io::stdout().flush().unwrap();
    // What still computes need not end.
    std::process::exit(0);
}

/// What the child prints.
fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// Returns the report that the child prints.
fn report_of(child: &mut Child, mut lines: impl Iterator<Item = String>) -> heeler::Report {
    let text = lines.find_map(|line| line.strip_prefix("REPORT ").map(str::to_owned));
    child.wait().unwrap();
    serde_json::from_str(&text.expect("a report")).unwrap()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// Guards: a process that was stopped is not told to have waited all that time.
#[test]
fn a_stopped_process_is_told_as_such() {
    if std::env::var(WORK).as_deref() == Ok("stopped") {
        return work(ms(1_000), async {
            println!("\nRUNS");
            tokio::time::sleep(FOREVER).await;
        });
    }
    let _guard = alone();
    let mut child = child("throttled::a_stopped_process_is_told_as_such", "stopped");
    writeln!(child.stdin.as_ref().unwrap(), "go").unwrap();
    let mut lines = lines_of(&mut child);
    assert!(lines.any(|line| line == "RUNS"));
    // Past an eighth of the threshold, where the host is looked at.
    std::thread::sleep(ms(600));
    signal(&child, "STOP");
    std::thread::sleep(ms(2_500));
    signal(&child, "CONT");
    let report = report_of(&mut child, lines);
    println!("{}", report.sentence());
    assert_eq!(report.verdict, Verdict::Throttled, "{}", report.to_text());
    let denied = report.denied.unwrap();
    assert_eq!(denied.by, DeniedBy::Stopped, "{}", report.to_text());
    assert!(denied.time > ms(1_500) && denied.time <= denied.of, "{denied:?}");
}

/// A cgroup with a quota, removed when it is dropped.
struct Quota(PathBuf);

impl Quota {
    /// Of a tenth of a CPU. `Err` says why there is none.
    fn new() -> Result<Self, String> {
        let name = format!("heeler-test-{}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup"));
        let version_1 = first.join("cpu.cfs_quota_us").is_file() || first.join("cgroup.procs").is_file();
        let folder = if version_1 { first } else { second }.join(name);
        std::fs::create_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let quota = Self(folder);
        let (file, text) = if version_1 { ("cpu.cfs_quota_us", "10000") } else { ("cpu.max", "10000 100000") };
        std::fs::write(quota.0.join(file), text).map_err(|why| format!("{file}: {why}"))?;
        Ok(quota)
    }

    fn add(&self, child: &Child) -> Result<(), String> {
        let file = self.0.join("cgroup.procs");
        std::fs::write(&file, child.id().to_string()).map_err(|why| format!("{}: {why}", file.display()))
    }

    /// Lets the child go on, so that it can read its debug information.
    fn lift(&self) {
        let files = [("cpu.cfs_quota_us", "-1"), ("cpu.max", "max")];
        let there = files.into_iter().filter(|(file, _)| self.0.join(file).is_file());
        there.for_each(|(file, text)| std::fs::write(self.0.join(file), text).unwrap());
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let began = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && began.elapsed() < ms(2_000) {
            std::thread::sleep(ms(20));
        }
    }
}

async fn computes() {
    let began = Instant::now();
    while began.elapsed() < FOREVER {
        std::hint::black_box(began);
    }
}

/// Guards: work that computes slowly because its cgroup is throttled is told as such.
#[test]
fn a_throttled_cgroup_is_told_as_such() {
    if std::env::var(WORK).as_deref() == Ok("throttled") {
        return work(ms(1_500), computes());
    }
    let _guard = alone();
    let mut child = child("throttled::a_throttled_cgroup_is_told_as_such", "throttled");
    let quota = Quota::new().and_then(|quota| quota.add(&child).map(|()| quota));
    let quota = match quota {
        Ok(quota) => quota,
        Err(why) => {
            println!("skipped: no CPU quota can be set here: {why}");
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
    };
    writeln!(child.stdin.as_ref().unwrap(), "go").unwrap();
    std::thread::sleep(ms(4_000));
    quota.lift();
    let lines = lines_of(&mut child);
    let report = report_of(&mut child, lines);
    println!("{}", report.sentence());
    assert_eq!(report.verdict, Verdict::Throttled, "{}", report.to_text());
    let denied = report.denied.unwrap();
    assert_eq!(denied.by, DeniedBy::Quota, "{}", report.to_text());
    assert!(denied.time > denied.of / 2, "{denied:?}");
}
