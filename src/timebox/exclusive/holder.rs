//! Who holds a lock, as its file says.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Every lock file that isn't empty begins with this. A file that begins otherwise belongs to somebody else.
pub(super) const SIGNATURE: &str = "heeler lock: process ";

/// More than the longest text of a holder.
pub(super) const LONGEST: u64 = 128;

/// The process that runs a job, as its lock file says.
///
/// Prints as "process 4711 since 2026-11-21T08:49:12Z".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id, in its own namespace: another container's process may have the id of one of yours.
    pub pid: u32,
    /// When its run began, to the second.
    pub since: SystemTime,
}

impl Holder {
    /// Returns this process as a holder, from now on.
    pub(super) fn new() -> Self {
        Self { pid: std::process::id(), since: whole_seconds(SystemTime::now()) }
    }

    /// Returns the whole content of a lock file.
    pub(super) fn text(self) -> String {
        let Self { pid, since } = self;
        format!("{SIGNATURE}{pid} since {}\n", humantime::format_rfc3339_seconds(since))
    }

    /// Returns `None` if the text is incomplete: somebody is just writing or removing it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pid, since) = text.strip_prefix(SIGNATURE)?.strip_suffix('\n')?.split_once(" since ")?;
        Some(Self { pid: pid.parse().ok()?, since: humantime::parse_rfc3339(since).ok()? })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, since } = *self;
        // A clock before 1970 has no such notation, and printing must not fail.
        match since.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(_) => write!(f, "process {pid} since {}", humantime::format_rfc3339_seconds(since)),
            Err(_) => write!(f, "process {pid}"),
        }
    }
}

/// Rounds a time to what its text can say exactly. Returns the epoch for a time without a text.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: what is written is what is read, and a text that was cut off is not taken for a holder.
    #[test]
    fn only_a_complete_holder_is_read() {
        let holder = Holder::new();
        let text = holder.text();
        assert!(text.len() as u64 <= LONGEST);
        assert_eq!(Holder::parse(&text), Some(holder));
        for length in 0..text.len() {
            assert_eq!(Holder::parse(&text[..length]), None, "{:?}", &text[..length]);
        }
        assert_eq!(Holder::parse(&format!("{text}{text}")), None);
        let longest = Holder { pid: u32::MAX, since: holder.since };
        assert!(longest.text().len() as u64 <= LONGEST);
    }

    #[test]
    fn the_holder_is_named_with_its_start() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_250_952);
        assert_eq!(Holder { pid: 4711, since }.to_string(), "process 4711 since 2026-11-21T08:49:12Z");
        let since = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Holder { pid: 1, since }.to_string(), "process 1");
    }
}
