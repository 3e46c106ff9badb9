//! Three files per report: `slow_request_<time>_<id>.txt`, `.json` and `.svg`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Sink;
use crate::capture::PerProcess;
use crate::error::{Error, Result};
use crate::log::TARGET;
use crate::log::log_safely;
use crate::log::warn_if_exposed;
use crate::private::{directory, write_new};
use crate::report::Report;
use crate::text::time::timestamp;

const PREFIX: &str = "slow_request_";
const EXTENSIONS: [&str; 3] = ["txt", "json", "svg"];

/// A temporary file of this age was left by a process that was killed while it wrote.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The most bytes of a report that is read, to add how its work has ended.
const MAX_READ: u64 = 16 << 20;

/// After this many reports the directory is read again, because other processes may write to it, or people delete
/// files.
const RESCAN_EVERY: u32 = 100;

/// Writes reports to a directory and keeps it within bounds.
///
/// A file is written under a temporary name and renamed, so that a reader finds it whole or not at all. It is not
/// synced to disk: a report survives the end of the process, but it may not survive a crash of the machine. An update
/// has the file names of the report that it updates.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    max_bytes: u64,
    max_reports: usize,
    index: PerProcess<Mutex<Index>>,
}

/// What is in the directory, as far as known without reading it: bytes by name without extension, which sorts oldest
/// first.
#[derive(Debug, Default)]
struct Index {
    reports: BTreeMap<String, u64>,
    /// Which update of a report its files hold, if this process wrote them.
    updates: HashMap<String, u32>,
    since_scan: u32,
}

impl Directory {
    /// Creates the directory if it doesn't exist, and checks that files can be created in it. A relative path is
    /// resolved against the current working directory.
    ///
    /// # Errors
    ///
    /// Fails if it is something other than a directory, or if it cannot be created, read or written to.
    pub(crate) fn new(path: &Path, max_bytes: u64, max_reports: usize) -> Result<Self> {
        let path =
            &std::path::absolute(path).map_err(|error| Error::directory(path, "has no usable path", Some(error)))?;
        if fs::metadata(path).is_ok_and(|about| !about.is_dir()) {
            return Err(Error::directory(path, "is not a directory", None));
        }
        directory(path).map_err(|error| Error::directory(path, "cannot be created", Some(error)))?;
        let probe = path.join(format!(".{PREFIX}probe.{}.tmp", std::process::id()));
        write_new(&probe, &mut |file| file.write_all(b"heeler")).and_then(|()| fs::remove_file(&probe)).map_err(
            |error| {
                let _ = fs::remove_file(&probe);
                Error::directory(path, "cannot be written to", Some(error))
            },
        )?;
        warn_if_exposed("report directory", path);
        let directory = Self { path: path.clone(), max_bytes, max_reports, index: PerProcess::new(Mutex::default) };
        let index = directory.scan().map_err(|error| Error::directory(path, "cannot be read", Some(error)))?;
        *directory.index.get().lock().unwrap_or_else(PoisonError::into_inner) = index;
        Ok(directory)
    }

    /// Reads the directory, and removes abandoned temporary files.
    fn scan(&self) -> io::Result<Index> {
        let mut index = Index::default();
        for entry in fs::read_dir(&self.path)? {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // For a symbolic link, this describes the link, which isn't ours.
            let Ok(about) = entry.metadata() else { continue };
            if !about.is_file() {
                continue;
            }
            if let Some(stem) = stem_of(name) {
                *index.reports.entry(stem.to_owned()).or_default() += about.len();
            } else if name.starts_with(&format!(".{PREFIX}")) && name.ends_with(".tmp") {
                let age = about.modified().ok().and_then(|modified| modified.elapsed().ok());
                if age.is_some_and(|age| age > ABANDONED) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(index)
    }

    /// Returns the name that the report's files already have. The start is computed from the time of the capture, and
    /// may differ by a millisecond from one capture to the next. The id doesn't change.
    fn known_stem(&self, report: &Report) -> Option<String> {
        let id = file_id(report);
        let index = self.index.get().lock().unwrap_or_else(PoisonError::into_inner);
        index.reports.keys().rev().find(|stem| parts_of(stem).is_some_and(|(_, known)| known == id)).cloned()
    }

    /// Returns the report that the files of that name contain, with the ending of `ended`, which has no stacks.
    fn whole(&self, stem: &str, ended: &Report) -> Option<Report> {
        let mut json = String::new();
        let file = File::open(self.file(stem, "json")).ok()?;
        file.take(MAX_READ).read_to_string(&mut json).ok()?;
        let known: Report = serde_json::from_str(&json).ok()?;
        let is_its = known.id == ended.id && known.ending.is_none() && known.update < ended.update;
        is_its.then(|| Report { update: ended.update, ending: ended.ending.clone(), ..known })
    }

    fn file(&self, stem: &str, extension: &str) -> PathBuf {
        self.path.join(format!("{stem}.{extension}"))
    }

    /// Writes all files, or none. `content` is called with the file's extension.
    fn write(&self, stem: &str, content: &mut dyn FnMut(&mut File, &str) -> io::Result<()>) -> io::Result<()> {
        let temporary =
            EXTENSIONS.map(|extension| self.path.join(format!(".{stem}.{extension}.{}.tmp", std::process::id())));
        let written = EXTENSIONS
            .iter()
            .zip(&temporary)
            .try_for_each(|(extension, path)| write_new(path, &mut |file| content(file, extension)));
        let renamed = written.and_then(|()| {
            EXTENSIONS
                .iter()
                .zip(&temporary)
                .try_for_each(|(extension, path)| fs::rename(path, self.file(stem, extension)))
        });
        if renamed.is_err() {
            for path in &temporary {
                let _ = fs::remove_file(path);
            }
        }
        renamed
    }

    /// Removes the oldest reports, down to a tenth below the bounds, so that this isn't needed for every report. The
    /// one called `newest` stays, whatever its size.
    fn make_room(&self, index: &mut Index, newest: &str) -> io::Result<()> {
        let total = |index: &Index| index.reports.values().sum::<u64>();
        let over = |index: &Index| index.reports.len() > self.max_reports || total(index) > self.max_bytes;
        index.since_scan += 1;
        if !over(index) && index.since_scan < RESCAN_EVERY {
            return Ok(());
        }
        let scanned = self.scan()?;
        *index = Index { updates: std::mem::take(&mut index.updates), ..scanned };
        index.updates.retain(|stem, _| index.reports.contains_key(stem));
        if !over(index) {
            return Ok(());
        }
        let max_reports = self.max_reports - self.max_reports / 10;
        let max_bytes = self.max_bytes - self.max_bytes / 10;
        let (mut reports, mut bytes) = (index.reports.len(), total(index));
        let mut failed = Ok(());
        index.reports.retain(|stem, size| {
            if stem == newest || reports <= max_reports && bytes <= max_bytes {
                return true;
            }
            for extension in EXTENSIONS {
                match fs::remove_file(self.file(stem, extension)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Err(error),
                    _ => {}
                }
            }
            (reports, bytes) = (reports - 1, bytes - *size);
            false
        });
        failed
    }
}

impl Sink for Directory {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        let stem = self.known_stem(report).unwrap_or_else(|| stem(report));
        let known = self.index.get().lock().unwrap_or_else(PoisonError::into_inner).updates.get(&stem).copied();
        if known.is_some_and(|known| known > report.update) {
            // It failed before, and a later update was written while it waited.
            return Ok(());
        }
        let with_stacks = report.ending.as_ref().and_then(|_| self.whole(&stem, report));
        let report = with_stacks.as_ref().unwrap_or(report);
        // In the order of the extensions.
        let contents = [report.to_text(), report.to_json() + "\n", report.to_svg()];
        let mut content = |file: &mut File, extension: &str| {
            let of = EXTENSIONS.iter().zip(&contents).find(|(known, _)| **known == extension);
            of.map_or(Ok(()), |(_, content)| file.write_all(content.as_bytes()))
        };
        let mut written = self.write(&stem, &mut content);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody deleted the directory.
            written = directory(&self.path).and_then(|()| self.write(&stem, &mut content));
        }
        written.map_err(|error| Error::directory(&self.path, "cannot be written to", Some(error)))?;
        let mut index = self.index.get().lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = contents.iter().map(|content| content.len() as u64).sum();
        index.reports.insert(stem.clone(), bytes);
        index.updates.insert(stem.clone(), report.update);
        // The report is written. If this were a failure, it would be written again and again.
        if let Err(error) = self.make_room(&mut index, &stem) {
            let directory = self.path.display();
            log_safely(|| {
                tracing::warn!(target: TARGET, %directory, %error, "the report directory keeps too many old reports");
            });
        }
        Ok(())
    }
}

/// Returns the name of a report's files, without extension. It sorts by time and is safe on every system.
pub(super) fn stem(report: &Report) -> String {
    let time: String = timestamp(report.started_at).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{PREFIX}{time}_{}", file_id(report))
}

/// Returns the report's id as it appears in file names.
pub(super) fn file_id(report: &Report) -> String {
    let id: String =
        report.id.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if id.is_empty() { "0".to_owned() } else { id }
}

/// Splits a name without extension into time and id.
fn parts_of(stem: &str) -> Option<(&str, &str)> {
    stem.strip_prefix(PREFIX)?.split_once('_')
}

/// Returns the name without extension, if `name` is one that [`stem`] makes.
fn stem_of(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (time, id) = parts_of(stem)?;
    let pattern = "00000000T000000.000Z";
    let is_time = time.len() == pattern.len()
        && time.bytes().zip(pattern.bytes()).all(|(c, like)| if like == b'0' { c.is_ascii_digit() } else { c == like });
    let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    (is_time && is_id && EXTENSIONS.contains(&extension)).then_some(stem)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::report::testing::report;

    fn numbered(number: u64) -> Report {
        let mut report = report();
        report.id = number.to_string();
        report.started_at += Duration::from_secs(number);
        report
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_report_has_three_files() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let sink = Directory::new(&path, u64::MAX, 100).unwrap();
        let mut report = report();
        sink.deliver(&report).unwrap();
        let stem = "slow_request_20250101T000000.000Z_8f14e45fceea167a-17";
        assert_eq!(names(&path), ["json", "svg", "txt"].map(|extension| format!("{stem}.{extension}")));
        assert_eq!(fs::read_to_string(path.join(format!("{stem}.txt"))).unwrap(), report.to_text());
        assert_eq!(fs::read_to_string(path.join(format!("{stem}.json"))).unwrap(), report.to_json() + "\n");
        assert_eq!(fs::read_to_string(path.join(format!("{stem}.svg"))).unwrap(), report.to_svg());
        #[cfg(unix)]
        for name in names(&path) {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // An update replaces all files, although its start differs by a millisecond.
        report.update = 1;
        report.started_at += Duration::from_millis(1);
        report.captured_at += Duration::from_secs(5);
        sink.deliver(&report).unwrap();
        assert_eq!(names(&path).len(), 3);
        assert!(fs::read_to_string(path.join(format!("{stem}.json"))).unwrap().contains("\"update\": 1"));
        // A retried report may come after its update.
        sink.deliver(&Report { update: 0, ..report.clone() }).unwrap();
        assert!(fs::read_to_string(path.join(format!("{stem}.json"))).unwrap().contains("\"update\": 1"));
        // The directory is gone and is created again.
        fs::remove_dir_all(&path).unwrap();
        sink.deliver(&report).unwrap();
        assert_eq!(names(&path).len(), 3);
    }

    #[test]
    fn file_names_are_safe() {
        let mut report = report();
        for id in ["../../etc/passwd", "", "a\0b\n", &"x".repeat(1_000)] {
            report.id = id.to_owned();
            let stem = stem(&report);
            assert!(stem.len() < 128 && !stem[PREFIX.len() + 20..].contains(['/', '.', '\0', '\n']), "{stem}");
            assert_eq!(stem_of(&format!("{stem}.txt")), Some(&*stem));
        }
        for other in [
            "slow_request_notes.txt",
            "slow_request_20250101T000000.000Z_1.md",
            "slow_request_20250101T000000.000Z_.txt",
            "slow_request_20250101T000000.000Z_a b.txt",
            "slow_request_20250101T000000.000Z.txt",
            "a.txt",
            "",
        ] {
            assert_eq!(stem_of(other), None, "{other}");
        }
    }

    /// Guards: the limits hold, a report's files are removed together, and other files are not touched.
    #[test]
    fn the_oldest_reports_are_removed_first() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path();
        let others = [".hidden", "slow_request_notes.txt", "zebra.json"];
        for other in others {
            fs::write(path.join(other), "mine").unwrap();
        }
        fs::create_dir(path.join("slow_request_20000101T000000.000Z_1.txt")).unwrap();
        let sink = Directory::new(path, u64::MAX, 20).unwrap();
        for number in 0..50 {
            sink.deliver(&numbered(number)).unwrap();
            let ours = names(path).iter().filter(|name| stem_of(name).is_some()).count();
            assert!(ours <= 20 * 3 + 1);
        }
        let left = names(path);
        assert!(others.iter().all(|other| left.iter().any(|name| name == other)));
        assert!(left.contains(&stem(&numbered(49)).to_string().add(".txt")));
        assert!(!left.contains(&stem(&numbered(29)).to_string().add(".txt")));
        for name in left.iter().filter(|name| name.ends_with(".json") && stem_of(name).is_some()) {
            for extension in EXTENSIONS {
                assert!(left.contains(&name.replace(".json", &format!(".{extension}"))));
            }
        }
        // A later process continues from there, and the size counts, too.
        let report = numbered(1);
        let each = (report.to_text().len() + report.to_json().len() + report.to_svg().len()) as u64;
        let sink = Directory::new(path, 5 * each, 1_000).unwrap();
        sink.deliver(&numbered(60)).unwrap();
        let ours = names(path).iter().filter(|name| stem_of(name).is_some()).count();
        assert!((4..=3 * 5 + 1).contains(&ours), "{ours}");
        // A report larger than all bounds stays until the next one.
        let sink = Directory::new(path, 1, 1).unwrap();
        sink.deliver(&numbered(0)).unwrap();
        let kept: Vec<String> = names(path).into_iter().filter(|name| stem_of(name).is_some()).collect();
        assert_eq!(kept.len(), 3 + 1, "the newest, though it began first, and a directory that is not ours");
    }

    trait Add {
        fn add(self, end: &str) -> String;
    }

    impl Add for String {
        fn add(self, end: &str) -> String {
            self + end
        }
    }

    /// Guards: a wrong directory is an error when it is set, not a failure at three in the morning. A read-only one is
    /// tested where not even root may write.
    #[test]
    fn an_unusable_directory_is_an_error_at_build() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "mine").unwrap();
        let error = Directory::new(&file, 1, 1).unwrap_err();
        assert!(error.is_directory() && error.source().is_none());
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
        let error = Directory::new(&file.join("below"), 1, 1).unwrap_err();
        assert!(error.is_directory() && error.source().is_some());
        assert!(error.to_string().ends_with("cannot be created"), "{error}");
        let error = Directory::new(Path::new(""), 1, 1).unwrap_err();
        assert!(error.is_directory(), "{error}");
        if cfg!(target_os = "linux") {
            let error = Directory::new(Path::new("/proc"), 1, 1).unwrap_err();
            assert!(error.is_directory() && error.source().is_some());
            assert!(error.to_string().ends_with("cannot be written to"), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    /// Guards: a full disk leaves nothing behind, whichever of the files it hits. The error is a real one, from the
    /// device that is always full.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_no_partial_file() {
        let place = tempfile::tempdir().unwrap();
        let sink = Directory::new(place.path(), u64::MAX, 10).unwrap();
        for full_at in EXTENSIONS {
            let error = sink
                .write("slow_request_20250101T000000.000Z_1", &mut |file, extension| {
                    file.write_all(b"half of it")?;
                    if extension == full_at {
                        fs::OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")
                    } else {
                        Ok(())
                    }
                })
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(names(place.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_blocked_name_is_an_error_and_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let sink = Directory::new(place.path(), u64::MAX, 10).unwrap();
        let blocked = format!("{}.json", stem(&report()));
        fs::create_dir(place.path().join(&blocked)).unwrap();
        let error = sink.deliver(&report()).unwrap_err();
        assert!(error.to_string().ends_with("cannot be written to") && error.cause().source().is_some());
        let left = names(place.path());
        assert!(left.contains(&blocked) && !left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
    }

    #[test]
    fn old_temporary_files_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let temporary = |name: &str, age: Duration| {
            let path = place.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
            path
        };
        let dead = temporary(".slow_request_20250101T000000.000Z_1.txt.99.tmp", 2 * ABANDONED);
        let alive = temporary(".slow_request_20250101T000000.000Z_2.txt.99.tmp", ABANDONED / 2);
        let foreign = temporary(".other.tmp", 2 * ABANDONED);
        Directory::new(place.path(), 1, 1).unwrap();
        assert_eq!((dead.exists(), alive.exists(), foreign.exists()), (false, true, true));
    }
}
