//! A dump before a panic ends the process. This is a program of its own, because tests do not run on the main thread.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use heeler::Reports;

/// Where the process that panics writes its dump.
const DIRECTORY: &str = "HEELER_TEST_DIRECTORY";

async fn nobody_answers() {
    let (_keep, silent) = tokio::sync::oneshot::channel::<()>();
    let _ = silent.await;
}

/// What was written.
fn written(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn panic_on_the_main_thread(directory: &Path) {
    let reports = Reports::builder().without_log().directory(directory).build().unwrap();
    reports.dump_on_panic().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.spawn(heeler::watch("nightly import", Duration::from_secs(3_600), nobody_answers()));
    let began = Instant::now();
    while heeler::metrics().in_flight.jobs == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    // Without optimisations, it takes longer than a panic waits until names are read for the first time.
    assert_eq!(heeler::blocking_dump().in_flight, 1);
    // On a thread, and in a task, a panic is no end.
    assert!(std::thread::spawn(|| panic!("on a thread")).join().is_err());
    assert!(runtime.block_on(runtime.spawn(async { panic!("in a task") })).is_err());
    assert_eq!(written(directory).len(), 0);
    panic!("on the main thread");
}

/// What a process has written that panics.
fn dumped() -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).env(DIRECTORY, place.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("on the main thread"), "the hook before still runs: {stderr}");
    written(place.path())
}

fn main() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        panic_on_the_main_thread(directory.as_ref());
        return;
    }
    // A panic waits two seconds for its dump. A machine may stall for longer.
    let mut attempts = (0..3).map(|_| dumped()).inspect(|texts| println!("{} dumps", texts.len()));
    let texts = attempts.find(|texts| !texts.is_empty()).unwrap_or_default();
    let [text] = &texts[..] else { panic!("a dump: {texts:?}") };
    assert!(text.starts_with("a dump (the process panics): 1 in flight: 1 waiting for "), "{text}");
    assert!(text.contains("dump_on_panic::nobody_answers"), "{text}");
    println!("a panic that ends the process makes a dump ... ok");
}
