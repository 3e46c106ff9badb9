//! Keeps reports on disk until every sink has them.
//!
//! ```text
//! spool/4242-1f0e9a/lock                             held by the process as long as it lives
//! spool/4242-1f0e9a/000000000017-8f14e45f.0.json     a report
//! spool/4242-1f0e9a/000000000017-8f14e45f.0.taken    the names of the sinks that have it already, one a line
//! spool/unreadable/                                  what could not be read: the last hundred, of 64 MiB at most
//! ```
//!
//! There is one folder per process, because several processes of a service share a spool: a new one starts while an old
//! one drains. If the process of a folder is gone, its lock is free, because the operating system releases it however
//! the process ended. The first process that takes the lock takes over the reports. See
//! [`left_behind`](super::left_behind).
//!
//! Reports are written as schema 1, which every version reads. While a service is deployed, an old process may take
//! over the reports of a new one, and it leaves alone those of a later schema. Both schemas are read, so that a later
//! version may write schema 2 here, once no process of a version before this one can be running beside it.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::left_behind::LaterVersions;
use crate::error::{Error, Result};
use crate::log::warn_if_exposed;
use crate::private::{create, directory, for_this_user_alone, options};
use crate::report::model::schema::Schema1;
use crate::report::privacy::again;
use crate::report::{Report, SCHEMA};
use crate::sync::lock_std;

pub(super) const LOCK: &str = "lock";
pub(super) const UNREADABLE: &str = "unreadable";
/// The longest report that is written, in bytes. heeler did not write a file that is longer.
pub(super) const LONGEST: u64 = 16 << 20;
/// The longest list of sinks, in bytes.
const LONGEST_LIST: u64 = 64 << 10;
/// How much is kept of what could not be read: the newest, in number and in bytes.
const MAX_UNREADABLE: usize = 100;
const MAX_UNREADABLE_BYTES: u64 = 64 << 20;
/// How often the lock is touched, because cleaners of temporary directories remove files that are untouched for days.
const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);
/// The prefix of a folder that is being created, which nothing takes over.
const NEW: &str = ".new-";

/// This process's own folder within a spool.
#[derive(Debug)]
pub(in crate::report) struct Spool {
    pub(super) root: PathBuf,
    pub(super) own: PathBuf,
    /// Numbers files, so that their names sort in order.
    next: AtomicU64,
    /// Held until the process ends, or nothing uses the spool any more.
    lock: Arc<Mutex<Option<File>>>,
    touched: Mutex<Instant>,
    pub(super) later: LaterVersions,
}

/// What a child of `fork` needs to open its own folder.
#[derive(Debug)]
pub(in crate::report) struct Inherited {
    root: PathBuf,
    lock: Arc<Mutex<Option<File>>>,
}

impl Inherited {
    /// Opens a spool for this process, in the same place. Closes the inherited lock, because only the other process may
    /// hold it. Otherwise nobody could take over its reports once it is gone.
    pub(in crate::report) fn open(&self) -> Result<Spool> {
        if let Ok(mut lock) = self.lock.try_lock() {
            *lock = None;
        }
        Spool::open(&self.root)
    }
}

/// A report in the spool.
#[derive(Debug)]
pub(super) struct SpoolFile {
    pub(super) path: PathBuf,
    /// How many bytes it has.
    pub(super) bytes: u64,
}

impl Spool {
    /// Opens a spool, and creates it if it doesn't exist.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be created or written to, or if its file system doesn't support locks.
    pub(in crate::report) fn open(root: &Path) -> Result<Self> {
        let failed = |problem| move |error| Error::spool(root, problem, Some(error));
        let root = &std::path::absolute(root).map_err(failed("has no usable path"))?;
        if fs::metadata(root).is_ok_and(|about| !about.is_dir()) {
            return Err(Error::spool(root, "is not a directory", None));
        }
        let failed = |problem| move |error| Error::spool(root, problem, Some(error));
        directory(root).map_err(failed("cannot be created"))?;
        let name = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let lock = claim(root, &name).map_err(failed("cannot be written to, or knows no locks"))?;
        warn_if_exposed("spool", root);
        let (own, lock, touched) = (root.join(name), Arc::new(Mutex::new(Some(lock))), Mutex::new(Instant::now()));
        let (next, later) = (AtomicU64::new(0), LaterVersions::default());
        Ok(Self { root: root.clone(), own, next, lock, touched, later })
    }

    /// Returns the lock, and the spool's directory.
    pub(in crate::report) fn held(&self) -> Inherited {
        Inherited { root: self.root.clone(), lock: Arc::clone(&self.lock) }
    }

    /// Shows every now and then that the own folder is in use.
    pub(super) fn touch(&self, now: Instant) {
        let mut touched = lock_std(&self.touched);
        if now.saturating_duration_since(*touched) >= TOUCH_EVERY {
            *touched = now;
            let now = SystemTime::now();
            if let Some(lock) = &*lock_std(&self.lock) {
                let _ = lock.set_times(FileTimes::new().set_accessed(now).set_modified(now));
            }
        }
    }

    /// Writes a report. When this returns, the report is on disk and survives a crash of the machine.
    pub(super) fn write(&self, report: &Report) -> io::Result<SpoolFile> {
        let written = self.try_write(report);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody deleted the directory.
            directory(&self.root)?;
            let name = self.own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            *lock_std(&self.lock) = Some(claim(&self.root, name)?);
            return self.try_write(report);
        }
        written
    }

    fn try_write(&self, report: &Report) -> io::Result<SpoolFile> {
        // heeler's ids have only letters, digits and hyphens. An id from elsewhere must not name a path.
        let id: String =
            report.id.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').take(64).collect();
        let bytes = serde_json::to_vec(&Schema1(report))?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("the report is too long for the spool"));
        }
        let file = self.file(&format!("{id}.{}.json", report.update), bytes.len() as u64);
        let temporary = file.path.with_extension("tmp");
        let written = || -> io::Result<()> {
            let mut to = create(&temporary)?;
            to.write_all(&bytes)?;
            to.sync_data()?;
            fs::rename(&temporary, &file.path)?;
            sync_directory(&self.own);
            Ok(())
        };
        written().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(file)
    }

    pub(super) fn file(&self, name: &str, bytes: u64) -> SpoolFile {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SpoolFile { path: self.own.join(format!("{number:012}-{name}")), bytes }
    }
}

impl Drop for Spool {
    /// Removes the folder if everything was delivered. Otherwise the reports stay for the next process.
    fn drop(&mut self) {
        let empty = fs::read_dir(&self.own)
            .is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name().to_str() == Some(LOCK)));
        if empty {
            let _ = fs::remove_file(self.own.join(LOCK));
            let _ = fs::remove_dir(&self.own);
        }
    }
}

/// Why a report was not read from the spool.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It isn't a report: it is damaged, or of another version.
    Unreadable(io::Error),
    /// Reading failed. It may work later.
    Io(io::Error),
}

impl SpoolFile {
    /// Reads the report.
    pub(super) fn read(&self) -> Result<Report, ReadError> {
        let unreadable = |what: &str| Err(ReadError::Unreadable(io::Error::other(what)));
        if !is_file(&self.path).map_err(ReadError::Io)? {
            return unreadable("it is not a report's file");
        }
        let bytes = read_at_most(&self.path, LONGEST).map_err(ReadError::Io)?;
        let Some(bytes) = bytes else { return unreadable("it is longer than any report") };
        match serde_json::from_slice::<Report>(&bytes) {
            Ok(mut report) if report.schema <= SCHEMA => {
                again(&mut report);
                Ok(report)
            }
            Ok(_) => unreadable("it was written by a later version of heeler"),
            Err(error) => Err(ReadError::Unreadable(error.into())),
        }
    }

    pub(super) fn taken(&self) -> PathBuf {
        self.path.with_extension("taken")
    }

    /// Returns the sinks that have it.
    pub(super) fn taken_by(&self) -> BTreeSet<String> {
        let path = self.taken();
        let list =
            is_file(&path).ok().filter(|is_file| *is_file).and_then(|_| read_at_most(&path, LONGEST_LIST).ok()?);
        let text = list.and_then(|list| String::from_utf8(list).ok()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Notes that one more sink has it. If that fails, the sink may get it twice.
    pub(super) fn note_taken(&self, sink: &str) {
        let file = options().create(true).append(true).open(self.taken());
        let _ = file.and_then(|mut file| for_this_user_alone(&file).and_then(|()| writeln!(file, "{sink}")));
    }

    /// Removes it, because every sink has it.
    pub(super) fn remove(&self) {
        // In this order: without the report, nothing asks which sinks have it.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.taken());
    }

    /// Moves it out of the way, for a person to look at.
    pub(super) fn set_aside(&self) {
        let folder = self.path.parent();
        let root = folder.and_then(Path::parent);
        if let (Some(root), Some(folder), Some(name)) = (root, folder.and_then(Path::file_name), self.path.file_name())
        {
            let unreadable = root.join(UNREADABLE);
            let _ = directory(&unreadable);
            // Other processes may have set aside a file of the same name.
            let to = unreadable.join(format!("{}-{}", folder.display(), name.display()));
            if fs::rename(&self.path, to).is_err() {
                let _ = fs::remove_file(&self.path);
            }
            let _ = make_room(&unreadable);
        }
        let _ = fs::remove_file(self.taken());
    }
}

/// Returns whether it is a regular file, and not a pipe, which could block its reader forever.
pub(super) fn is_file(path: &Path) -> io::Result<bool> {
    fs::symlink_metadata(path).map(|about| about.is_file())
}

/// Returns the contents of a file, or `None` if it has more than `most` bytes.
fn read_at_most(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Removes the oldest unreadable files, down to their bounds. The newest stays, whatever its size.
fn make_room(unreadable: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(unreadable)?.flatten() {
        // The time of its last change is also that of its last renaming, so it says since when the file is here.
        let Ok(about) = fs::symlink_metadata(entry.path()) else { continue };
        let bytes = if about.is_file() { about.len() } else { 0 };
        found.push((set_aside_at(&about), entry.path(), bytes, about.is_dir()));
    }
    found.sort();
    let (mut kept, mut bytes) = (0, 0_u64);
    for (_, path, size, is_directory) in found.into_iter().rev() {
        (kept, bytes) = (kept + 1, bytes.saturating_add(size));
        if kept > 1 && (kept > MAX_UNREADABLE || bytes > MAX_UNREADABLE_BYTES) {
            let _ = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
    Ok(())
}

/// Returns when a file got its name.
fn set_aside_at(about: &fs::Metadata) -> (i64, i64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (about.ctime(), about.ctime_nsec())
    }
    #[cfg(not(unix))]
    {
        let modified = about.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        modified.map_or((0, 0), |at| (at.as_secs() as i64, at.subsec_nanos().into()))
    }
}

/// Makes a rename into this directory survive a crash of the machine. Where that isn't supported, it depends on the
/// file system.
fn sync_directory(path: &Path) {
    if cfg!(unix) {
        let _ = File::open(path).and_then(|directory| directory.sync_all());
    }
}

/// Creates a folder that belongs to the holder of its lock.
fn claim(root: &Path, name: &str) -> io::Result<File> {
    let new = root.join(format!("{NEW}{name}"));
    directory(&new)?;
    let lock = create(&new.join(LOCK))?;
    // Locked before others see it, because they would take a folder without an owner for one that was left behind.
    lock.try_lock()?;
    fs::rename(&new, root.join(name))?;
    sync_directory(root);
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::super::left_behind::Bounds;
    use super::*;
    use crate::report::Verdict;
    use crate::report::testing::report;

    impl Spool {
        /// Writes a report as a version with a later schema would.
        pub(in crate::report::delivery) fn write_of_a_later_version(&self, report: &Report) -> SpoolFile {
            let file = self.write(report).unwrap();
            let text = fs::read_to_string(&file.path).unwrap();
            let rest = text.strip_prefix("{\"schema\":1,").unwrap();
            fs::write(&file.path, format!("{{\"schema\":{},{rest}", SCHEMA + 1)).unwrap();
            file
        }

        /// Takes over all reports of processes that are gone, whatever version wrote them.
        fn take_over_all(&self) -> (Vec<SpoolFile>, io::Result<()>) {
            let bounds = Bounds { reports: 10, bytes: 1 << 20, time: Duration::from_secs(60) };
            let found = self.take_over(Instant::now(), bounds);
            (found.taken, found.done)
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_spooled_report_is_read_back_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let report = report();
        let file = spool.write(&report).unwrap();
        assert_eq!(file.read().unwrap().to_json(), report.to_json());
        assert_eq!(file.read().unwrap().to_text(), report.to_text());
        file.note_taken("log");
        file.note_taken("email");
        assert_eq!(file.taken_by(), ["email".to_owned(), "log".to_owned()].into());
        file.remove();
        assert_eq!(names(&spool.own), [LOCK]);
        drop(spool);
        assert_eq!(names(place.path()), Vec::<String>::new(), "nothing is left behind");
    }

    /// Guards: the reports of a dead process are taken over in order, with what is known about them. Those of a living
    /// process are not.
    #[test]
    fn a_dead_process_leaves_reports_to_others() {
        let place = tempfile::tempdir().unwrap();
        let gone = Spool::open(place.path()).unwrap();
        for id in ["b", "a"] {
            gone.write(&Report { id: id.to_owned(), ..report() }).unwrap().note_taken("log");
        }
        fs::write(gone.own.join("half.tmp"), b"{").unwrap();
        fs::write(gone.own.join("000-removed.0.taken"), b"log").unwrap();
        let next = Spool::open(place.path()).unwrap();
        assert_eq!(next.take_over_all().0.len(), 0, "its owner lives");
        drop(gone);
        let (files, done) = next.take_over_all();
        done.unwrap();
        let ids: Vec<String> = files.iter().map(|file| file.read().unwrap().id).collect();
        assert_eq!(ids, ["b", "a"], "the order in which they were written");
        assert!(files.iter().all(|file| file.taken_by().contains("log")));
        assert_eq!(names(place.path()).len(), 1, "the folder of the dead is gone");
    }

    /// Guards: while a service is deployed, old and new processes share a spool. The new ones deliver what the old ones
    /// wrote, with everything that is in it. The recorded spool is from the first version, and must not change.
    #[test]
    fn reads_the_spool_of_the_first_version() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/spool-1");
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("4242-1f0e9a00");
        fs::create_dir(&folder).unwrap();
        for name in names(&recorded) {
            fs::copy(recorded.join(&name), folder.join(&name)).unwrap();
        }
        let spool = Spool::open(place.path()).unwrap();
        let (files, done) = spool.take_over_all();
        done.unwrap();
        assert_eq!(files.len(), 3);
        assert_eq!(files.iter().map(|file| file.taken_by().len()).collect::<Vec<_>>(), [2, 0, 0]);
        let sources = names(&recorded).into_iter().filter(|name| name.ends_with(".json"));
        for (name, file) in sources.zip(&files) {
            let then: serde_json::Value = serde_json::from_slice(&fs::read(recorded.join(&name)).unwrap()).unwrap();
            let read = file.read().unwrap();
            assert_eq!(read.schema, SCHEMA);
            contains(&serde_json::to_value(Schema1(&read)).unwrap(), &then, &name);
        }
        assert_eq!(names(place.path()).len(), 1, "the folder of the old process is gone");
    }

    /// Guards: an old process reads what a new one wrote, because it is what the first version wrote, to the byte.
    #[test]
    fn the_first_version_can_read_the_spool() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/spool-1");
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&report()).unwrap();
        let then = fs::read_to_string(recorded.join("000000000000-8f14e45fceea167a-17.0.json")).unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), then);
    }

    /// Guards: this version takes over what a later version of heeler will write once nothing needs schema 1.
    #[test]
    fn schema_2_is_read() {
        let place = tempfile::tempdir().unwrap();
        let newer = Spool::open(place.path()).unwrap();
        let file = newer.write(&report()).unwrap();
        fs::write(&file.path, serde_json::to_vec(&report()).unwrap()).unwrap();
        assert!(fs::read_to_string(&file.path).unwrap().starts_with("{\"schema\":2,"));
        drop(newer);
        let next = Spool::open(place.path()).unwrap();
        let (files, done) = next.take_over_all();
        done.unwrap();
        let [taken] = &files[..] else { panic!("{files:?}") };
        assert_eq!(taken.read().unwrap().to_json(), report().to_json());
    }

    /// Checks that everything in `then` is in `now`, which may contain more.
    fn contains(now: &serde_json::Value, then: &serde_json::Value, at: &str) {
        use serde_json::Value;
        match (now, then) {
            (Value::Object(now), Value::Object(then)) => {
                then.iter().for_each(|(key, then)| contains(&now[key], then, &format!("{at}.{key}")));
            }
            (Value::Array(now), Value::Array(then)) => {
                assert_eq!(now.len(), then.len(), "{at}");
                now.iter().zip(then).for_each(|(now, then)| contains(now, then, at));
            }
            _ => assert_eq!(now, then, "{at}"),
        }
    }

    /// Guards: if an old process takes over a newer one's folder, it leaves what it doesn't know where a newer process
    /// finds it, with what is known about it. It takes the rest.
    #[test]
    fn reports_of_a_later_schema_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let newer = Spool::open(place.path()).unwrap();
        let later = newer.write_of_a_later_version(&Report { id: "later".to_owned(), ..report() });
        later.note_taken("log");
        newer.write(&Report { id: "same".to_owned(), ..report() }).unwrap();
        drop(newer);
        let old = Spool::open(place.path()).unwrap();
        for round in 0..2 {
            let (files, done) = old.take_over_all();
            done.unwrap();
            assert_eq!(files.len(), 1 - round, "once");
        }
        assert!(later.path.exists() && later.taken().exists());
        assert!(later.path.with_file_name(LOCK).exists(), "without it nobody would look into the folder");
        assert!(!place.path().join(UNREADABLE).exists());
    }

    /// Guards: if a later version adds a word within the schema, only that word is lost.
    #[test]
    fn unknown_words_are_read() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&report()).unwrap();
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&file.path).unwrap()).unwrap();
        for key in ["kind", "verdict"] {
            text[key] = "levitating".into();
        }
        text["timeline"][0]["activity"] = "throttled".into();
        text["stacks"][0]["kind"] = "kernel".into();
        text["added"] = vec![1].into();
        fs::write(&file.path, text.to_string()).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.id, read.verdict, read.stacks.len()), (report().id, Verdict::Unknown, 1));
    }

    /// Guards: a spool that cannot be read for days doesn't fill the disk. The newest of the files set aside stay.
    #[test]
    fn unreadable_files_are_bounded() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let set_aside = |length: u64| {
            let file = spool.write(&report()).unwrap();
            File::create(&file.path).unwrap().set_len(length).unwrap();
            file.set_aside();
            file
        };
        let first = set_aside(1);
        (0..MAX_UNREADABLE).for_each(|_| drop(set_aside(1)));
        let unreadable = place.path().join(UNREADABLE);
        let left = names(&unreadable);
        assert_eq!(left.len(), MAX_UNREADABLE);
        let first = first.path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(left.iter().all(|name| !name.ends_with(&first)), "the oldest went");
        set_aside(MAX_UNREADABLE_BYTES / 2);
        set_aside(MAX_UNREADABLE_BYTES / 2);
        let total = |path: &Path| {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
        };
        assert!(names(&unreadable).len() > 1 && total(&unreadable) <= MAX_UNREADABLE_BYTES);
        set_aside(2 * MAX_UNREADABLE_BYTES);
        assert_eq!(names(&unreadable).len(), 1, "the newest stays");
    }

    /// Guards: the lock of a process that runs for weeks looks used. Its folder would be taken over otherwise.
    #[test]
    fn the_lock_file_is_touched_regularly() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let lock = spool.own.join(LOCK);
        let old = SystemTime::now() - 24 * TOUCH_EVERY;
        let times = FileTimes::new().set_accessed(old).set_modified(old);
        lock_std(&spool.lock).as_ref().unwrap().set_times(times).unwrap();
        let age = || fs::metadata(&lock).unwrap().modified().unwrap().elapsed().unwrap_or_default();
        spool.touch(Instant::now());
        assert!(age() > TOUCH_EVERY, "not at each look");
        spool.touch(Instant::now() + TOUCH_EVERY);
        assert!(age() < TOUCH_EVERY);
    }

    /// Guards: a folder that cannot be emptied doesn't stop the takeover of the next one.
    #[cfg(unix)]
    #[test]
    fn one_bad_folder_does_not_stop_the_takeover() {
        let place = tempfile::tempdir().unwrap();
        // "0-" and "z-" come before and after, in whatever order the file system lists them.
        for name in ["0-bad", "z-bad"] {
            let bad = place.path().join(name);
            // A directory cannot be removed like a partial report.
            fs::create_dir_all(bad.join("half.tmp")).unwrap();
            fs::write(bad.join(LOCK), b"").unwrap();
        }
        let gone = Spool::open(place.path()).unwrap();
        gone.write(&report()).unwrap();
        drop(gone);
        let next = Spool::open(place.path()).unwrap();
        let (files, done) = next.take_over_all();
        assert_eq!(files.len(), 1);
        assert!(done.is_err());
    }

    /// Guards: deleting the spool of a running process loses its contents, but nothing that comes later.
    #[test]
    fn a_deleted_spool_is_created_again() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("spool");
        let spool = Spool::open(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let file = spool.write(&report()).unwrap();
        assert_eq!(file.read().unwrap().to_json(), report().to_json());
        assert_eq!(Spool::open(&root).unwrap().take_over_all().0.len(), 0, "it is locked again");
        drop(spool);
        assert_eq!(Spool::open(&root).unwrap().take_over_all().0.len(), 1);
    }

    /// Guards: an id in a file name never names a path.
    #[test]
    fn an_id_never_names_a_path() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&Report { id: "../../x/\0é".to_owned(), ..report() }).unwrap();
        assert_eq!(file.path.parent(), Some(&*spool.own));
        assert!(file.path.to_str().unwrap().ends_with("000-x.0.json"));
    }

    #[test]
    fn files_that_are_not_reports_are_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&report()).unwrap();
        for damage in [&b"{\"schema\": 1"[..], b"", b"\xff\x00", b"[]"] {
            fs::write(&file.path, damage).unwrap();
            assert!(matches!(file.read(), Err(ReadError::Unreadable(_))));
        }
        let later = spool.write_of_a_later_version(&report());
        assert!(matches!(later.read(), Err(ReadError::Unreadable(_))), "of a later version");
        File::create(&file.path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(matches!(file.read(), Err(ReadError::Unreadable(_))), "too long");
        File::create(&file.path).unwrap().set_len(1).unwrap();
        file.set_aside();
        assert!(matches!(file.read(), Err(ReadError::Io(_))));
        // A directory with the same name except for the process.
        let other = Spool::open(place.path()).unwrap();
        let same = other.write(&report()).unwrap();
        assert_eq!(same.path.file_name(), file.path.file_name());
        fs::remove_file(&same.path).unwrap();
        fs::create_dir_all(same.path.join("inside")).unwrap();
        assert!(matches!(same.read(), Err(ReadError::Unreadable(_))));
        same.set_aside();
        assert_eq!(names(&place.path().join(UNREADABLE)).len(), 2);
    }

    #[test]
    fn an_unusable_spool_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"mine").unwrap();
        let error = Spool::open(&file).unwrap_err();
        assert!(error.is_directory() && error.to_string().ends_with("file` is not a directory"), "{error}");
        if cfg!(target_os = "linux") {
            assert!(Spool::open(Path::new("/proc")).unwrap_err().is_directory());
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
