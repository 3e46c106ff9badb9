//! What heeler creates is this user's alone, whatever the umask: which is the whole process's, so these are alone in it.
#![cfg(all(feature = "watchdog", feature = "timebox"))]
#![cfg(unix)]
#![allow(unsafe_code, reason = "the umask")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use common::{FOREVER, ms, until};
use heeler::timebox::{ExclusiveError, exclusive_blocking};
use heeler::{Report, Reports, Sink};

/// Down, so that reports stay in the spool.
struct Down;

impl Sink for Down {
    fn name(&self) -> &str {
        "down"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        Err("down".into())
    }
}

/// The modes of everything in a directory, by the kind of thing.
fn modes(path: &Path, found: &mut BTreeMap<&str, Vec<u32>>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::symlink_metadata(&path).unwrap();
        found.entry(if about.is_dir() { "directories" } else { "files" }).or_default().push(about.mode() & 0o777);
        if about.is_dir() {
            modes(&path, found);
        }
    }
}

/// Guards: neither a umask that removes nothing nor one that removes permissions heeler needs changes what is created.
#[test]
fn files_are_private_whatever_the_umask() {
    for umask in [0, 0o277] {
        let place = tempfile::tempdir().unwrap();
        let within = |name: &str| place.path().join(name);
        // SAFETY: sets a number of this process, in which nothing else runs.
        let before = unsafe { libc::umask(umask) };
        let builder = Reports::builder().without_log().directory(within("new/slow")).spool(within("spool")).sink(Down);
        #[cfg(feature = "email")]
        let builder = builder.email(heeler::Email::files(within("mail/new")));
        let reports = builder.build().unwrap();
        let slow = heeler::watch("slow", ms(5), async { tokio::time::sleep(ms(200)).await }).reports(reports.clone());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(slow);
        let sinks = if cfg!(feature = "email") { 2 } else { 1 };
        until("the report is everywhere", || reports.stats().deliveries >= sinks);
        let lock = within("nightly.lock");
        exclusive_blocking(&lock, FOREVER, || Ok::<(), ExclusiveError>(())).unwrap();
        // SAFETY: as above.
        unsafe { libc::umask(before) };
        let mut found = BTreeMap::new();
        modes(place.path(), &mut found);
        assert!(found["directories"].len() >= 4 && found["files"].len() >= 7, "{found:?}");
        assert!(found["directories"].iter().all(|mode| *mode == 0o700), "umask {umask:o}: {found:?}");
        assert!(found["files"].iter().all(|mode| *mode == 0o600), "umask {umask:o}: {found:?}");
    }
}
