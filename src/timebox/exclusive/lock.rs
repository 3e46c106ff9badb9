//! The lock: the operating system holds it, so it ends with its process, however the process ends.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::error::ExclusiveError;
use super::holder::Holder;
use super::{file, keep, place};

/// A lock that is held until this is dropped.
///
/// Two locks of one process exclude each other, too, because a lock belongs to one opening of its file.
#[derive(Debug)]
pub(super) struct Lock {
    file: Arc<File>,
    // Dropped after the file, because then the file need not be kept fresh.
    _end: End,
}

#[derive(Debug)]
struct End;

impl Drop for End {
    fn drop(&mut self) {
        keep::let_go();
    }
}

impl Lock {
    /// Takes the lock of a job now, or returns an error.
    pub(super) fn take(job: &Path) -> Result<Self, ExclusiveError> {
        let path = place::of(job)?;
        let broken = |problem, error| ExclusiveError::file(&path, problem, Some(error));
        for _ in 0..file::TRIES {
            let mut file = file::open(&path)?;
            let locked = try_lock(&file).map_err(|error| broken("cannot be locked", error))?;
            if !locked {
                let holder = read_holder(&mut file);
                // Without a name, the holder has just let go or has not written its name yet. Only another try can
                // tell.
                if holder.is_some() || !try_lock(&file).map_err(|error| broken("cannot be locked", error))? {
                    return Err(ExclusiveError::held(job, holder.or_else(|| read_holder(&mut file))));
                }
            }
            // If somebody removes the file of a held lock, a second holder is possible, but never through here.
            if !file::is_at(&file, &path) {
                continue;
            }
            if !file::is_ours(&mut file).map_err(|error| broken("cannot be read", error))? {
                return Err(ExclusiveError::file(&path, "is not empty, and no lock file: it is left as it is", None));
            }
            let lock = Self { file: Arc::new(file), _end: End };
            lock.sign().map_err(|error| broken("cannot be written to", error))?;
            keep::keep(&lock.file);
            return Ok(lock);
        }
        Err(file::replaced(&path))
    }

    /// Writes down who holds the lock, for the next one who asks. Removes what a crashed holder left first: a reader
    /// then finds nothing rather than the wrong process.
    fn sign(&self) -> io::Result<()> {
        let mut file = &*self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(Holder::new().text().as_bytes())
    }

    #[cfg(test)]
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only a courtesy, because the text of a holder that is gone means nothing.
        let _ = self.file.set_len(0);
        // Not left to the closing of the file, because a child that is just starting has it open for a moment, too.
        let _ = self.file.unlock();
    }
}

/// Returns whether the lock is this file's now.
fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    Holder::parse(str::from_utf8(&file::content(file).ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Guards: one holder at a time, within a process, too. The error names the holder while there is one. Afterwards the
    /// file is empty, but still there.
    #[test]
    fn the_lock_is_held_until_dropped() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.lock");
        let lock = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.is_held());
        assert_eq!(error.holder().unwrap().pid, std::process::id());
        assert!(fs::read_to_string(&path).unwrap().contains(&error.holder().unwrap().to_string()));
        drop(lock);
        assert_eq!(fs::read(&path).unwrap(), b"");
        drop(Lock::take(&path).unwrap());
    }

    /// Guards: what a crashed holder left, even a longer text, is neither in the way nor believed.
    #[test]
    fn the_text_of_a_crashed_holder_is_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.lock");
        let left = format!("{}{}\n", super::super::holder::SIGNATURE, "4".repeat(300));
        fs::write(&path, left).unwrap();
        let _lock = Lock::take(&path).unwrap();
        assert_eq!(Lock::take(&path).unwrap_err().holder().unwrap().pid, std::process::id());
    }

    /// Guards: while the holder is not written yet, or only half, a reader reports it without a name.
    #[test]
    fn a_half_written_holder_has_no_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.lock");
        let _lock = Lock::take(&path).unwrap();
        for text in ["", "heeler", "heeler lock: process 47", "heeler lock: process 47 since 2026-11-21T08:49:12Z"] {
            fs::write(&path, text).unwrap();
            let error = Lock::take(&path).unwrap_err();
            assert!(error.is_held() && error.holder().is_none());
            assert_eq!(error.to_string(), format!("`{}` is held by another process", path.display()));
        }
    }

    /// Guards: a file that somebody needs is never written to, whether a typing error or a link leads to it.
    #[test]
    fn foreign_files_stay_as_they_are() {
        let place = tempfile::tempdir().unwrap();
        for text in ["x", "heeler", "heeler lock", "\0", "my thesis\n"] {
            let path = place.path().join("thesis");
            fs::write(&path, text).unwrap();
            let error = Lock::take(&path).unwrap_err();
            assert!(!error.is_held() && error.to_string().contains("is not empty, and no lock file"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Lock::take(place.path()).unwrap_err().to_string().ends_with("is a directory"));
    }

    /// Guards: if a lock file is removed while somebody waits for it, that is not the file that is locked.
    #[test]
    fn a_removed_lock_file_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.lock");
        let opened = file::open(&path).unwrap();
        assert!(file::is_at(&opened, &path));
        fs::remove_file(&path).unwrap();
        #[cfg(unix)]
        assert!(!file::is_at(&opened, &path));
        let _lock = Lock::take(&path).unwrap();
        #[cfg(unix)]
        assert!(!file::is_at(&opened, &path));
    }
}
