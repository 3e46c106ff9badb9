//! Counts what a store has done.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::StoreError;
use crate::log::log_safely;
use crate::report::told;

/// What a [`ProfileStore`](super::ProfileStore) of this process has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Profiles that were stored.
    pub stored: u64,
    /// Profiles and failed jobs that were removed because they were too old or too many.
    pub removed: u64,
    /// Calls that a directory or bucket has refused or not answered.
    pub failures: u64,
    /// Objects that could not be read as what they should be. Counts each attempt.
    pub corrupt: u64,
    /// Profiles that were too large to be kept.
    pub too_large: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored: AtomicU64,
    pub(super) removed: AtomicU64,
    failures: AtomicU64,
    corrupt: AtomicU64,
    too_large: AtomicU64,
    /// The minute, since 1970, in which an error was last logged.
    said: AtomicU64,
}

impl Tally {
    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            stored: self.stored.load(Relaxed),
            removed: self.removed.load(Relaxed),
            failures: self.failures.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
            too_large: self.too_large.load(Relaxed),
        }
    }

    /// Counts `error`, and logs it, but not more than once a minute.
    #[cold]
    pub(super) fn failed(&self, error: &StoreError) {
        let counter = match error {
            StoreError::Unavailable { .. } => &self.failures,
            StoreError::Corrupt { .. } => &self.corrupt,
            StoreError::TooLarge { .. } => &self.too_large,
        };
        counter.fetch_add(1, Relaxed);
        // Minutes begin with 1, so that the first error is logged.
        let minute = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs() / 60 + 1);
        if self.said.swap(minute, Relaxed) == minute {
            return;
        }
        let error = logged(error);
        log_safely(|| tracing::error!(target: "heeler", "{error}"));
    }
}

/// Returns what is logged about an error. Other people's stores quote their addresses, with a signature or a password
/// in them.
fn logged(error: &StoreError) -> String {
    let text = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    // In this order, because half of a key is not recognised as one.
    without_ids(&told(&text, 600))
}

/// Shortens anything that could be an id to the part that can be logged, because causes quote paths.
fn without_ids(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_hexdigit() { digits + 1 } else { 0 };
        match digits {
            0..=8 => out.push(c),
            9 => out.push('…'),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is logged for an error with this cause.
    fn of(cause: &str) -> String {
        let error = StoreError::unavailable("write", cause.to_owned());
        crate::report::testing::logged(|| Tally::default().failed(&error))
    }

    /// Guards: the log names the object, but not how to get it.
    #[test]
    fn logged_causes_contain_no_ids() {
        let log = of("/p/0123456789abcdef0000000000000001.json.gz is a directory\n");
        let expected = "ERROR heeler: the store of profiles cannot write: /p/01234567….json.gz is a directory\\n\n";
        assert!(log.ends_with(expected), "{log}");
    }

    /// Guards: an object store's error quotes the address, which must not be logged. What went wrong is logged.
    #[test]
    fn logged_causes_contain_no_secrets() {
        let signed = "https://me:q7hunter2@bucket.example.com/profiles/1?X-Amz-Credential=AKIA0123456789ABCDEF&X-Amz-Signature=q7f00dz";
        let corrupt = StoreError::Corrupt { what: "profile", id: "01234567".to_owned(), why: signed.to_owned() };
        let logs = [
            of(&format!("error sending request for url ({signed}): connection refused")),
            of("client { key: AKIA0123456789ABCDEF, secret: Some(\"q7hunter2\") }: connection refused"),
            crate::report::testing::logged(|| Tally::default().failed(&corrupt)),
        ];
        for log in &logs {
            assert!(!log.contains("q7") && !log.contains("AKIA"), "{log}");
            assert!(log.contains("ERROR heeler: the store"), "{log}");
        }
        assert!(
            logs[0].contains("bucket.example.com/profiles/1") && logs[0].contains("connection refused"),
            "{}",
            logs[0]
        );
    }
}
