//! Reports on disk until every sink has them.
//!
//! ```text
//! spool/4242-1f0e9a/lock                             held by the process as long as it lives
//! spool/4242-1f0e9a/000000000017-8f14e45f.0.json     a report
//! spool/4242-1f0e9a/000000000017-8f14e45f.0.taken    the names of the sinks that have it already, one a line
//! spool/unreadable/                                  what could not be read
//! ```
//!
//! A folder a process, for several processes of a service share a spool: while an old one drains, a new one starts. The
//! folder of a process that is gone is known by its lock, which the operating system releases whatever the end was; the
//! first one that takes the lock takes over the reports.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::report::private::{create, directory};
use crate::report::{Report, SCHEMA};
use crate::sync::lock_std;

const LOCK: &str = "lock";
const UNREADABLE: &str = "unreadable";
/// No report is as long, in bytes: what is, was written by somebody else.
const LONGEST: u64 = 64 << 20;
/// A folder that is being made is called so: nobody takes it over.
const NEW: &str = ".new-";

/// A folder of this process's own within a spool.
#[derive(Debug)]
pub(in crate::report) struct Spool {
    root: PathBuf,
    own: PathBuf,
    /// Numbers files, so that their names tell their order.
    next: AtomicU64,
    /// Held until the process ends, or nobody uses the spool any more.
    lock: Mutex<File>,
}

/// A report in the spool.
#[derive(Debug)]
pub(super) struct SpoolFile {
    path: PathBuf,
    unreadable: PathBuf,
}

impl Spool {
    /// Opens a spool, and makes it if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made or written to, or if its file system knows no locks.
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
        Ok(Self { root: root.clone(), own: root.join(name), next: AtomicU64::new(0), lock: Mutex::new(lock) })
    }

    /// Writes a report. It is on disk, and survives the end of the machine, when this returns.
    pub(super) fn write(&self, report: &Report) -> io::Result<SpoolFile> {
        let written = self.try_write(report);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody cleaned up.
            directory(&self.root)?;
            let name = self.own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            *lock_std(&self.lock) = claim(&self.root, name)?;
            return self.try_write(report);
        }
        written
    }

    fn try_write(&self, report: &Report) -> io::Result<SpoolFile> {
        // Ids are made by heeler, and have only letters, digits and hyphens; one from elsewhere names no path.
        let id: String =
            report.id.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').take(64).collect();
        let file = self.file(&format!("{id}.{}.json", report.update));
        let temporary = file.path.with_extension("tmp");
        let written = || -> io::Result<()> {
            let mut to = create(&temporary)?;
            to.write_all(&serde_json::to_vec(report)?)?;
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

    fn file(&self, name: &str) -> SpoolFile {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SpoolFile { path: self.own.join(format!("{number:012}-{name}")), unreadable: self.root.join(UNREADABLE) }
    }

    /// Takes over the reports of processes that are gone, oldest first within each. What could not be taken over stays
    /// where it is, and keeps nobody from the rest: the last error is returned.
    pub(super) fn take_over(&self) -> (Vec<SpoolFile>, io::Result<()>) {
        let mut taken = Vec::new();
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) => return (taken, Err(error)),
        };
        let mut done = Ok(());
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path == self.own || name == UNREADABLE || name.starts_with('.') || !path.is_dir() {
                continue;
            }
            let Ok(lock) = OpenOptions::new().write(true).open(path.join(LOCK)) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            match self.empty(&path, &mut taken) {
                // Another process was here, between the opening of its lock and the taking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => done = Err(error),
                Ok(()) => {}
            }
        }
        (taken, done)
    }

    /// Moves all reports of `from`, whose lock is held, into the own folder, and removes it.
    fn empty(&self, from: &Path, taken: &mut Vec<SpoolFile>) -> io::Result<()> {
        let (mut reports, mut notes): (Vec<PathBuf>, Vec<PathBuf>) = Default::default();
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => reports.push(path),
                // Half a report: whoever wrote it was stopped, and has not tried to deliver it yet.
                Some("tmp") => fs::remove_file(path)?,
                Some("taken") => notes.push(path),
                _ => {}
            }
        }
        reports.sort();
        for path in reports {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("report.json");
            let rest = name.split_once('-').map_or(name, |(_, rest)| rest);
            let file = self.file(rest);
            // What is known of it first: a report that comes without is delivered twice, which is better than never.
            let _ = fs::rename(path.with_extension("taken"), file.taken());
            fs::rename(&path, &file.path)?;
            taken.push(file);
        }
        // Their reports were removed: everybody had them.
        for path in notes {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_file(from.join(LOCK));
        // Fails if somebody put something else in there: so be it.
        let _ = fs::remove_dir(from);
        Ok(())
    }
}

impl Drop for Spool {
    /// What has been delivered leaves nothing behind; what has not is there for the next process.
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
    /// It is no report: damaged, or of another version.
    Unreadable(io::Error),
    /// Reading failed; it may work later.
    Io(io::Error),
}

impl SpoolFile {
    /// The report.
    pub(super) fn read(&self) -> Result<Report, ReadError> {
        let unreadable = |what: &str| Err(ReadError::Unreadable(io::Error::other(what)));
        // What is no file, a pipe for example, may keep its reader for ever.
        let about = fs::symlink_metadata(&self.path).map_err(ReadError::Io)?;
        if !about.is_file() || about.len() > LONGEST {
            return unreadable("it is no file of a report");
        }
        let bytes = fs::read(&self.path).map_err(ReadError::Io)?;
        match serde_json::from_slice::<Report>(&bytes) {
            Ok(report) if report.schema == SCHEMA => Ok(report),
            Ok(_) => unreadable("it was written by another version of heeler"),
            Err(error) => Err(ReadError::Unreadable(error.into())),
        }
    }

    fn taken(&self) -> PathBuf {
        self.path.with_extension("taken")
    }

    /// The sinks that have it.
    pub(super) fn taken_by(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.taken()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// One more sink has it. If that cannot be noted, it may get it twice.
    pub(super) fn note_taken(&self, sink: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.taken());
        let _ = file.and_then(|mut file| writeln!(file, "{sink}"));
    }

    /// Everybody has it.
    pub(super) fn remove(&self) {
        // In this order: without the report, nobody asks who has it.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.taken());
    }

    /// Moves it out of the way, for a person to look at.
    pub(super) fn set_aside(&self) {
        let _ = directory(&self.unreadable);
        let folder = self.path.parent().and_then(Path::file_name);
        if let (Some(folder), Some(name)) = (folder, self.path.file_name()) {
            // Other processes may have set aside one of that name.
            let to = self.unreadable.join(format!("{}-{}", folder.display(), name.display()));
            if fs::rename(&self.path, to).is_err() {
                let _ = fs::remove_file(&self.path);
            }
        }
        let _ = fs::remove_file(self.taken());
    }
}

/// What was renamed into a directory survives the end of the machine only after this. Where there is no such thing, files
/// survive as the file system has it.
fn sync_directory(path: &Path) {
    if cfg!(unix) {
        let _ = File::open(path).and_then(|directory| directory.sync_all());
    }
}

/// Makes a folder that belongs to whoever holds the lock.
fn claim(root: &Path, name: &str) -> io::Result<File> {
    let new = root.join(format!("{NEW}{name}"));
    directory(&new)?;
    let lock = create(&new.join(LOCK))?;
    // Before others see it: they would take a folder without an owner for one that was left behind.
    lock.try_lock()?;
    fs::rename(&new, root.join(name))?;
    sync_directory(root);
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_report_comes_back_as_it_was() {
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

    /// Guards: what a process leaves is taken over in order and with what is known of it; what a living one has is not.
    #[test]
    fn what_is_left_behind_is_taken_over() {
        let place = tempfile::tempdir().unwrap();
        let gone = Spool::open(place.path()).unwrap();
        for id in ["b", "a"] {
            gone.write(&Report { id: id.to_owned(), ..report() }).unwrap().note_taken("log");
        }
        fs::write(gone.own.join("half.tmp"), b"{").unwrap();
        fs::write(gone.own.join("000-removed.0.taken"), b"log").unwrap();
        let next = Spool::open(place.path()).unwrap();
        assert_eq!(next.take_over().0.len(), 0, "its owner lives");
        drop(gone);
        let (files, done) = next.take_over();
        done.unwrap();
        let ids: Vec<String> = files.iter().map(|file| file.read().unwrap().id).collect();
        assert_eq!(ids, ["b", "a"], "the order in which they were written");
        assert!(files.iter().all(|file| file.taken_by().contains("log")));
        assert_eq!(names(place.path()).len(), 1, "the folder of the dead is gone");
    }

    /// Guards: a folder that cannot be emptied keeps nobody from the next one.
    #[cfg(unix)]
    #[test]
    fn one_bad_folder() {
        let place = tempfile::tempdir().unwrap();
        // "0-" and "z-" come before and after, in whatever order the file system lists them.
        for name in ["0-bad", "z-bad"] {
            let bad = place.path().join(name);
            // A directory cannot be removed as half a report is.
            fs::create_dir_all(bad.join("half.tmp")).unwrap();
            fs::write(bad.join(LOCK), b"").unwrap();
        }
        let gone = Spool::open(place.path()).unwrap();
        gone.write(&report()).unwrap();
        drop(gone);
        let next = Spool::open(place.path()).unwrap();
        let (files, done) = next.take_over();
        assert_eq!(files.len(), 1);
        assert!(done.is_err());
    }

    /// Guards: whoever deletes the spool of a running process loses what is in it, and nothing that comes later.
    #[test]
    fn somebody_cleaned_up() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("spool");
        let spool = Spool::open(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let file = spool.write(&report()).unwrap();
        assert_eq!(file.read().unwrap().to_json(), report().to_json());
        assert_eq!(Spool::open(&root).unwrap().take_over().0.len(), 0, "it is locked again");
        drop(spool);
        assert_eq!(Spool::open(&root).unwrap().take_over().0.len(), 1);
    }

    /// Guards: ids in a file name no path.
    #[test]
    fn odd_ids() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&Report { id: "../../x/\0é".to_owned(), ..report() }).unwrap();
        assert_eq!(file.path.parent(), Some(&*spool.own));
        assert!(file.path.to_str().unwrap().ends_with("000-x.0.json"));
    }

    #[test]
    fn what_is_no_report_is_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::open(place.path()).unwrap();
        let file = spool.write(&report()).unwrap();
        for damage in [&b"{\"schema\": 1"[..], b"", b"\xff\x00", b"[]"] {
            fs::write(&file.path, damage).unwrap();
            assert!(matches!(file.read(), Err(ReadError::Unreadable(_))));
        }
        fs::write(&file.path, Report { schema: SCHEMA + 1, ..report() }.to_json()).unwrap();
        assert!(matches!(file.read(), Err(ReadError::Unreadable(_))), "of another version");
        File::create(&file.path).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(matches!(file.read(), Err(ReadError::Unreadable(_))), "too long");
        file.set_aside();
        assert!(matches!(file.read(), Err(ReadError::Io(_))));
        // A directory, of the same name but for the process.
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
    fn unusable_spools() {
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
