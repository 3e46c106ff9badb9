//! Which file a job's lock is: the path it was given, or a file of its name in a directory of this user alone.

#[cfg(unix)]
use std::borrow::Cow;
use std::fs;
#[cfg(unix)]
use std::io;
use std::path::{Component, Path, PathBuf, is_separator};

use super::error::ExclusiveError;
#[cfg(unix)]
use crate::private::{self, user};

/// The lock file of a job.
///
/// Links on the way to a path that was given are followed, the last one, too: whoever gave it may have meant that. In the
/// directory of locks no link is ever followed.
pub(super) fn of(job: &Path) -> Result<PathBuf, ExclusiveError> {
    if job.as_os_str().is_empty() {
        return Err(ExclusiveError::nameless());
    }
    if !is_name(job) {
        return match fs::canonicalize(job) {
            Ok(path) => Ok(path),
            // To be made, or the error comes again, and is told, when the file is opened.
            Err(_) => Ok(job.to_owned()),
        };
    }
    let mut file = job.as_os_str().to_owned();
    file.push(".lock");
    Ok(directory()?.join(file))
}

/// Whether that is a bare name. Everything else is a path, and is taken as it is.
fn is_name(job: &Path) -> bool {
    let mut components = job.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !job.as_os_str().as_encoded_bytes().iter().any(|&byte| is_separator(char::from(byte)))
}

/// The directory of this user's locks; made if it is not there.
#[cfg(unix)]
fn directory() -> Result<PathBuf, ExclusiveError> {
    let user = user().map_err(|error| {
        ExclusiveError::directory(
            Path::new("heeler"),
            "cannot be found: this process cannot tell its user",
            Some(error),
        )
    })?;
    // Not `XDG_RUNTIME_DIR`, which a login has and cron has not: a job that is run by both must find itself.
    let directory = std::env::temp_dir().join(format!("heeler-{user}"));
    match private::make(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(ExclusiveError::directory(&directory, "cannot be made", Some(error)));
        }
        _ => {}
    }
    // Also if it was made just now: another user who may write to a directory without a sticky bit may have replaced it.
    match fault(&directory, user) {
        Ok(None) => Ok(directory),
        Ok(Some(fault)) => Err(ExclusiveError::directory(&directory, fault, None)),
        Err(error) => Err(ExclusiveError::directory(&directory, "cannot be looked at", Some(error))),
    }
}

/// What keeps a directory from being this user's alone.
#[cfg(unix)]
fn fault(path: &Path, user: u32) -> io::Result<Option<Cow<'static, str>>> {
    use std::os::unix::fs::MetadataExt as _;

    let found = fs::symlink_metadata(path)?;
    Ok(if !found.is_dir() {
        Some("is no directory".into())
    } else if found.uid() != user {
        let owner = found.uid();
        Some(format!("belongs to user {owner}: have it removed, or name the job by the path of a lock file").into())
    } else if found.mode() & 0o077 != 0 {
        Some("is open to other users".into())
    } else {
        None
    })
}

/// The directory of this user's locks; made if it is not there. Temporary directories are a user's own here.
#[cfg(not(unix))]
fn directory() -> Result<PathBuf, ExclusiveError> {
    let directory = std::env::temp_dir().join("heeler");
    match fs::create_dir_all(&directory) {
        Ok(()) => Ok(directory),
        Err(error) => Err(ExclusiveError::directory(&directory, "cannot be made", Some(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: only a bare name is a name, and none leads out of the directory of locks.
    #[test]
    fn a_bare_name_stays_in_the_lock_directory() {
        for name in ["nightly", "night.ly", "..nightly", " ", "käse", "-"] {
            assert!(is_name(Path::new(name)), "{name:?}");
        }
        for path in ["", ".", "..", "/", "/x", "./x", "x/", "x/y", "../x", "x/.."] {
            assert!(!is_name(Path::new(path)), "{path:?}");
        }
        assert_eq!(of(Path::new("")).unwrap_err().to_string(), "an exclusive job has to have a name");
    }

    /// Guards: a directory that others can enter, that others own, or that is a link, is not used.
    #[cfg(unix)]
    #[test]
    fn only_a_private_directory_is_used() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let place = tempfile::tempdir().unwrap();
        let user = user().unwrap();
        let fault = |path: &Path, user| super::fault(path, user).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fault(place.path(), user), None);
        let of_another = format!("belongs to user {user}: have it removed, or name the job by the path of a lock file");
        assert_eq!(fault(place.path(), user + 1).as_deref(), Some(&*of_another));
        let link = place.path().join("link");
        symlink(place.path(), &link).unwrap();
        assert_eq!(fault(&link, user), Some("is no directory".into()));
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(fault(place.path(), user), Some("is open to other users".into()));
    }
}
