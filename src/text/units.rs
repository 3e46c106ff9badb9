//! Durations, places and counts for people.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use super::time::in_millis;

/// A time with three significant digits and the unit that fits: `0.42 ms`, `340 ms`, `2.51 s`, `2 min 05 s`.
pub(crate) fn duration(time: Duration) -> String {
    let ms = in_millis(time);
    match ms {
        0.0 => "0 ms".to_owned(),
        _ if ms < 1.0 => format!("{ms:.2} ms"),
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ if ms < 9_995.0 => format!("{:.2} s", ms / 1e3),
        _ if ms < 59_950.0 => format!("{:.1} s", ms / 1e3),
        _ => {
            let seconds = (ms / 1e3).round() as u64;
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
                (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
            }
        }
    }
}

/// `1 wait`, `3 waits`.
pub(crate) fn count(number: impl Into<u64>, what: &str) -> String {
    match number.into() {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// Returns the verb after a [`count`].
pub(crate) fn were(number: impl Into<u64>) -> &'static str {
    if number.into() == 1 { "was" } else { "were" }
}

/// `src/slow.rs:88`, as far as known.
pub(crate) fn at(file: Option<&str>, line: Option<u32>) -> Option<String> {
    let file = short_path(file?);
    Some(match line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    })
}

/// Shortens a path as far as it can still be found: without the registry, without std's build directory, without the
/// current directory.
pub(crate) fn short_path(file: &str) -> &str {
    static HERE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::current_dir().ok());
    let after = |marker: &str| file.find(marker).map(|at| &file[at + marker.len()..]);
    if file.starts_with("/rustc/") || file.contains("/lib/rustlib/src/rust/") {
        return after("/library/").unwrap_or(file);
    }
    if let Some((_, package)) = after("/registry/src/").and_then(|rest| rest.split_once('/')) {
        return package;
    }
    if let Some(checkout) = after("/git/checkouts/") {
        return checkout;
    }
    let here = HERE.as_deref().and_then(|here| here.to_str()).filter(|here| here.len() > 1);
    here.and_then(|here| file.strip_prefix(here)?.strip_prefix('/')).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_fitting_unit() {
        let table = [
            (0.0, "0 ms"),
            (0.416, "0.42 ms"),
            (3.24, "3.2 ms"),
            (340.2, "340 ms"),
            (999.7, "1.00 s"),
            (2_510.0, "2.51 s"),
            (9_996.0, "10.0 s"),
            (10_000.0, "10.0 s"),
            (59_960.0, "1 min 00 s"),
            (125_000.0, "2 min 05 s"),
            (3_599_900.0, "1 h 00 min"),
            (10_920_000.0, "3 h 02 min"),
        ];
        for (ms, expected) in table {
            assert_eq!(duration(Duration::from_secs_f64(ms / 1e3)), expected, "{ms}");
        }
        assert_eq!(duration(Duration::MAX), "5124095576030431 h 00 min");
    }

    #[test]
    fn paths_are_shortened_to_what_matters() {
        let here = std::env::current_dir().unwrap().join("src/lib.rs");
        let table = [
            ("/rustc/5980/library/core/src/task.rs", "core/src/task.rs"),
            ("/x/lib/rustlib/src/rust/library/std/src/fs.rs", "std/src/fs.rs"),
            ("/r/registry/src/index.crates.io-19/tokio-1.2.3/src/lib.rs", "tokio-1.2.3/src/lib.rs"),
            ("/r/git/checkouts/x-19/abc/src/lib.rs", "x-19/abc/src/lib.rs"),
            (here.to_str().unwrap(), "src/lib.rs"),
            ("/elsewhere/app/src/lib.rs", "/elsewhere/app/src/lib.rs"),
            ("src/lib.rs", "src/lib.rs"),
        ];
        for (path, expected) in table {
            assert_eq!(short_path(path), expected);
        }
    }

    #[test]
    fn counts_agree_with_their_verbs() {
        assert_eq!((count(1u64, "wait"), count(0u64, "wait")), ("1 wait".to_owned(), "0 waits".to_owned()));
        assert_eq!((were(1u64), were(0u64), were(2u64)), ("was", "were", "were"));
    }
}
