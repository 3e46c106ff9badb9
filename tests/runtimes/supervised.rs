//! A supervisor that kills what does not beat.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heeler::Reports;

use super::common::Driven;

/// Says that this is the process that is supervised, and where it reports.
const DIRECTORY: &str = "HEELER_TEST_DIRECTORY";

#[inline(never)]
fn never_returns() {
    std::thread::sleep(Duration::from_secs(60));
}

/// The process that is supervised.
#[test]
fn a_process_that_stops_beating() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let driven = Driven::new(1);
    let reports = Reports::builder().without_log().directory(directory).build().unwrap();
    heeler::watch_runtime("main", &driven.handle, reports.clone());
    assert!(heeler::notify_systemd(reports).unwrap());
    assert!(std::env::var_os("NOTIFY_SOCKET").is_some() && std::env::var_os("WATCHDOG_USEC").is_some());
    std::thread::sleep(Duration::from_secs(2));
    driven.spawn(heeler::watch("never returns", Duration::from_secs(3_600), async { never_returns() }));
    std::thread::sleep(Duration::from_secs(60));
}

/// Returns what starts the process, with a supervisor at that socket.
fn supervised(socket: &Path, limit: Duration, reports: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "supervised::a_process_that_stops_beating"])
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", limit.as_micros().to_string())
        .env(DIRECTORY, reports)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Guards: a process in which heeler is switched off beats on, whatever its runtime does. Its supervisor does not know of the
/// switch.
#[test]
fn a_switched_off_heeler_does_not_have_the_process_killed() {
    const LIMIT: Duration = Duration::from_secs(4);

    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut child = supervised(&path, LIMIT, &place.path().join("reports")).env("HEELER_DISABLE", "1").spawn().unwrap();
    let mut bytes = [0; 256];
    let began = Instant::now();
    // Its runtime runs nothing for longer than the limit.
    let mut beats = Vec::new();
    while began.elapsed() < 2 * LIMIT {
        beats.push(socket.recv(&mut bytes).map(|len| String::from_utf8_lossy(&bytes[..len]).trim().to_owned()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(beats.iter().all(Result::is_ok) && beats.len() > 5, "{beats:?}");
}

/// Guards: it beats while its runtime does. When that stops, a dump is written first, and then it does not beat any more. The
/// dump survives the kill.
#[test]
fn the_evidence_is_there_before_the_kill() {
    const LIMIT: Duration = Duration::from_secs(8);

    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let reports = place.path().join("reports");
    let mut child = supervised(&path, LIMIT, &reports).spawn().unwrap();
    let mut said = Vec::new();
    let mut last = Instant::now();
    let mut bytes = [0; 256];
    // As systemd does: what does not beat in time is killed.
    loop {
        match socket.recv(&mut bytes) {
            Ok(len) => {
                said.push(String::from_utf8_lossy(&bytes[..len]).trim().to_owned());
                last = Instant::now();
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                    "{error}"
                );
                break;
            }
        }
        assert!(said.len() < 200, "it never stops: {said:?}");
    }
    assert!(last.elapsed() >= LIMIT);
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said[0], "READY=1");
    assert!(said.len() > 5 && said[1..].iter().all(|said| said == "WATCHDOG=1"), "{said:?}");
    let files = std::fs::read_dir(&reports).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let text = texts.iter().find(|text| text.contains("(WatchdogSec=8.00 s)")).expect("a dump");
    assert!(text.starts_with("a dump (the runtime \"main\" has run nothing for "), "{text}");
    assert!(text.contains("the job \"never returns\"") || text.contains("never returns"), "{text}");
    assert!(super::common::PORTABLE || text.contains("supervised::never_returns"), "{text}");
}
