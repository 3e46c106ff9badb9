//! Reports that other processes left in the spool.
//!
//! They are taken over, except for reports of a later schema. While a service is deployed, old and new versions run
//! side by side, so those are left to a process that can read them. If none comes, they expire. Their age counts from
//! when they were written, because no process may live as long as they are to wait.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::spool::{LOCK, LONGEST, Spool, SpoolFile, UNREADABLE, is_file};
use crate::report::SCHEMA;
use crate::sync::lock_std;

/// How many reports of a later version may wait in the spool, how many bytes of them, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) reports: usize,
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

/// What was found in the spool.
#[derive(Debug)]
pub(super) struct Found {
    /// The reports that were taken over, oldest first for each process.
    pub(super) taken: Vec<SpoolFile>,
    /// How many reports of a later version there are, as far as this process knows. While another process has a folder
    /// locked, the folder's earlier number counts.
    pub(super) left: usize,
    /// How many of these were removed, because they waited for too long or were too many.
    pub(super) given_up: u64,
    /// The last error. What could not be taken over stays where it is, and doesn't stop the rest.
    pub(super) done: io::Result<()>,
}

/// When this process first saw each report of a later version.
#[derive(Debug, Default)]
pub(super) struct LaterVersions(Mutex<HashMap<PathBuf, Instant>>);

/// A folder whose process is gone, with reports of a later version in it.
struct Folder {
    path: PathBuf,
    later: Vec<PathBuf>,
    /// Held until it is decided which of them to remove.
    _lock: File,
}

impl Spool {
    /// Takes over the reports of processes that are gone.
    pub(super) fn take_over(&self, now: Instant, bounds: Bounds) -> Found {
        let mut found = Found { taken: Vec::new(), left: 0, given_up: 0, done: Ok(()) };
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) => return Found { left: lock_std(&self.later.0).len(), done: Err(error), ..found },
        };
        let mut folders = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path == self.own || name == UNREADABLE || name.starts_with('.') || !path.is_dir() {
                continue;
            }
            // Opening a pipe would wait for its reader.
            if !is_file(&path.join(LOCK)).unwrap_or(false) {
                continue;
            }
            let Ok(lock) = OpenOptions::new().write(true).open(path.join(LOCK)) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            match self.empty(&path, &mut found.taken) {
                // Another process took them over after this one opened the lock file and before it had the lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.done = Err(error),
                Ok(later) if later.is_empty() => remove(&path),
                Ok(later) => folders.push(Folder { path, later, _lock: lock }),
            }
        }
        self.age(folders, now, bounds, &mut found);
        found
    }

    /// Moves all reports of `from`, whose lock is held, into the own folder. Returns those that a later version wrote,
    /// which stay there.
    fn empty(&self, from: &Path, taken: &mut Vec<SpoolFile>) -> io::Result<Vec<PathBuf>> {
        let (mut reports, mut notes): (Vec<PathBuf>, Vec<PathBuf>) = Default::default();
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => reports.push(path),
                // A partial report: its process was stopped before it tried to deliver it.
                Some("tmp") => fs::remove_file(path)?,
                Some("taken") => notes.push(path),
                _ => {}
            }
        }
        reports.sort();
        let mut later = Vec::new();
        for path in reports {
            if schema_of(&path).is_some_and(|schema| schema > u64::from(SCHEMA)) {
                notes.retain(|note| *note != path.with_extension("taken"));
                later.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("report.json");
            let rest = name.split_once('-').map_or(name, |(_, rest)| rest);
            let bytes = fs::symlink_metadata(&path).map_or(0, |about| about.len());
            let file = self.file(rest, bytes);
            // The note comes first. A report that arrives without it is delivered twice, which is better than never.
            let note = path.with_extension("taken");
            if is_file(&note).unwrap_or(false) {
                let _ = fs::rename(note, file.taken());
            }
            fs::rename(&path, &file.path)?;
            taken.push(file);
        }
        // Their reports were removed, because every sink had them.
        for path in notes {
            let _ = fs::remove_file(path);
        }
        Ok(later)
    }

    /// Removes the oldest reports of a later version, down to their bounds.
    fn age(&self, folders: Vec<Folder>, now: Instant, bounds: Bounds, found: &mut Found) {
        let mut seen = lock_std(&self.later.0);
        let looked_into: HashSet<&Path> = folders.iter().map(|folder| &*folder.path).collect();
        let mut all: Vec<Later<'_>> = folders.iter().flat_map(|folder| &folder.later).map(Later::at).collect();
        all.sort();
        let there: HashSet<&PathBuf> = all.iter().map(|later| later.path).collect();
        // Another process took over or removed the rest, unless it is looking into their folder right now.
        seen.retain(|path, _| {
            let busy = path.parent().is_some_and(|folder| !looked_into.contains(folder));
            there.contains(path) || (busy && fs::symlink_metadata(path).is_ok())
        });
        let (mut kept, mut bytes) = (0, 0_u64);
        // Newest first.
        for Later { written, path, size } in all.into_iter().rev() {
            let before = seen.get(path).copied();
            let age = written.and_then(|at| at.elapsed().ok()).unwrap_or_default();
            // Zero at first sight, because a process that can read it may have been started together with this one.
            let waits = before.map_or(Duration::ZERO, |since| now.saturating_duration_since(since).max(age));
            (kept, bytes) = (kept + 1, bytes.saturating_add(size));
            if kept > bounds.reports || bytes > bounds.bytes || waits >= bounds.time {
                match fs::remove_file(path) {
                    Ok(()) => found.given_up += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        // It is still there, and removing it is tried again.
                        found.done = Err(error);
                        seen.entry(path.clone()).or_insert(now);
                        continue;
                    }
                }
                let _ = fs::remove_file(path.with_extension("taken"));
                seen.remove(path);
            } else {
                seen.entry(path.clone()).or_insert(now);
            }
        }
        for folder in &folders {
            if folder.later.iter().all(|path| !seen.contains_key(path)) {
                remove(&folder.path);
            }
        }
        found.left = seen.len();
    }
}

/// A report of a later version. The order is by age.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Later<'a> {
    written: Option<SystemTime>,
    path: &'a PathBuf,
    size: u64,
}

impl<'a> Later<'a> {
    fn at(path: &'a PathBuf) -> Self {
        let about = fs::symlink_metadata(path).ok();
        let size = about.as_ref().map_or(0, fs::Metadata::len);
        Self { written: about.and_then(|about| about.modified().ok()), path, size }
    }
}

/// Removes a folder that is empty except for its lock, which is held.
fn remove(folder: &Path) {
    let _ = fs::remove_file(folder.join(LOCK));
    // Fails if somebody put something else in there, which then stays.
    let _ = fs::remove_dir(folder);
}

/// Returns the schema of the report in that file. In all versions, a report begins with it.
fn schema_of(path: &Path) -> Option<u64> {
    let mut start = [0; 64];
    let about = fs::symlink_metadata(path).ok()?;
    if !about.is_file() || about.len() > LONGEST {
        return None;
    }
    let read = File::open(path).and_then(|mut file| file.read(&mut start)).ok()?;
    let rest = start[..read].strip_prefix(b"{\"schema\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    const BOUNDS: Bounds = Bounds { reports: 10, bytes: 1 << 20, time: Duration::from_secs(60) };

    /// A spool with this many reports of a later version, whose process is gone. Each is a second older than the next.
    fn left_by_a_later_version(reports: u64, age: Duration) -> (tempfile::TempDir, Vec<PathBuf>) {
        let place = tempfile::tempdir().unwrap();
        let newer = Spool::open(place.path()).unwrap();
        let write = |number: u64| {
            let path = newer.write_of_a_later_version(&report()).path;
            let at = SystemTime::now() - age - Duration::from_secs(reports - number);
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
            path
        };
        let paths = (0..reports).map(write).collect();
        (place, paths)
    }

    /// Searches the spool after this many seconds. Returns how many reports are left, and how many are given up.
    fn look(spool: &Spool, began: Instant, seconds: u64, bounds: Bounds) -> (usize, u64) {
        let found = spool.take_over(began + Duration::from_secs(seconds), bounds);
        found.done.unwrap();
        (found.left, found.given_up)
    }

    /// Guards: if two processes search the spool at the same time, the one that finds a folder locked keeps what it
    /// knew about the folder.
    #[test]
    fn a_folder_locked_for_a_moment_is_unchanged() {
        let (place, paths) = left_by_a_later_version(2, Duration::ZERO);
        let (spool, began) = (Spool::open(place.path()).unwrap(), Instant::now());
        assert_eq!(look(&spool, began, 0, BOUNDS), (2, 0));
        let other = File::options().write(true).open(paths[0].with_file_name(LOCK)).unwrap();
        other.lock().unwrap();
        assert_eq!(look(&spool, began, 61, BOUNDS), (2, 0));
        fs::remove_file(&paths[0]).unwrap();
        assert_eq!(look(&spool, began, 62, BOUNDS), (1, 0), "somebody else took it");
        drop(other);
        assert_eq!(look(&spool, began, 63, BOUNDS), (0, 1), "since it was seen first");
        assert!(!paths[0].parent().unwrap().exists());
    }

    /// Guards: processes that live for a shorter time than reports wait still remove them, but not before one that can
    /// read them had a chance.
    #[test]
    fn reports_expire_across_processes() {
        let (place, paths) = left_by_a_later_version(2, BOUNDS.time);
        let (spool, began) = (Spool::open(place.path()).unwrap(), Instant::now());
        assert_eq!(look(&spool, began, 0, BOUNDS), (2, 0));
        File::options().write(true).open(&paths[1]).unwrap().set_modified(SystemTime::now()).unwrap();
        assert_eq!(look(&spool, began, 1, BOUNDS), (1, 1));
        assert!(!paths[0].exists() && paths[1].exists());
    }

    /// Guards: large reports of a later version don't fill the disk. The newest stay.
    #[test]
    fn reports_of_a_later_version_are_bounded_in_bytes() {
        let (place, paths) = left_by_a_later_version(4, Duration::ZERO);
        let spool = Spool::open(place.path()).unwrap();
        let size = fs::metadata(&paths[0]).unwrap().len();
        let bounds = Bounds { bytes: 3 * size - 1, ..BOUNDS };
        assert_eq!(look(&spool, Instant::now(), 0, bounds), (2, 2));
        assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, false, true, true]);
    }

    /// Guards: a report that cannot be removed counts as left, and isn't given up again in each round.
    #[test]
    fn an_unremovable_report_is_not_counted_again() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let path = place.path().join("folder");
        // A directory cannot be removed like a file.
        let later = vec![path.join("1.json"), path.join("gone.json")];
        fs::create_dir_all(&later[0]).unwrap();
        for _ in 0..2 {
            let folder = Folder { path: path.clone(), later: later.clone(), _lock: tempfile::tempfile().unwrap() };
            let mut found = Found { taken: Vec::new(), left: 0, given_up: 0, done: Ok(()) };
            spool.age(vec![folder], Instant::now(), Bounds { reports: 0, ..BOUNDS }, &mut found);
            assert_eq!((found.left, found.given_up, found.done.is_err()), (1, 0, true));
        }
    }
}
