//! Reads the reports that a service has left in its directory, as an operator would.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty directory for the reports of `service`.
pub fn directory(service: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("heeler-adoption-{service}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

/// Waits for a report with this verdict about `uri`, and says that it leads to `function`. The report as JSON.
///
/// # Panics
///
/// If there is none in time, or it leads elsewhere.
#[track_caller]
pub fn expect(directory: &Path, verdict: &str, uri: &str, function: &str) -> serde_json::Value {
    let began = Instant::now();
    let report = loop {
        if let Some(report) = reports(directory).find(|(report, _)| is(report, verdict, uri)) {
            break report;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "no report of {uri} is {verdict}:\n{}",
            reports(directory).map(|(_, text)| text).collect::<String>()
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let (report, text) = report;
    let location = &report["location"];
    assert_eq!(location["function"], function, "{text}");
    assert!(location["line"].is_u64() && text.contains(function), "{text}");
    println!("{}", text.lines().next().unwrap_or_default());
    report
}

fn is(report: &serde_json::Value, verdict: &str, uri: &str) -> bool {
    report["verdict"] == verdict && report["request"]["uri"].as_str().is_some_and(|seen| seen.ends_with(uri))
}

/// The reports that are there, and their texts.
fn reports(directory: &Path) -> impl Iterator<Item = (serde_json::Value, String)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(
        |path| {
            let report = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            Some((report, std::fs::read_to_string(path.with_extension("txt")).ok()?))
        },
    )
}

/// Removes what was left.
pub fn done(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory);
}
