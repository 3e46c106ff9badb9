//! Which file holds a job's lock: the given path, or a file named after the job in a directory of this user alone.

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
/// Follows links in a given path, including the last one, because the caller may have meant that. In the directory of
/// locks no link is ever followed.
pub(super) fn of(job: &Path) -> Result<PathBuf, ExclusiveError> {
    if job.as_os_str().is_empty() {
        return Err(ExclusiveError::nameless());
    }
    if !is_name(job) {
        return match fs::canonicalize(job) {
            Ok(path) => Ok(path),
            // The file is still to be created. Any other error comes again when the file is opened, and is reported
            // then.
            Err(_) => Ok(job.to_owned()),
        };
    }
    let mut file = job.as_os_str().to_owned();
    file.push(".lock");
    Ok(directory()?.join(file))
}

/// Returns whether this is a bare name. Everything else is a path and is used as it is.
fn is_name(job: &Path) -> bool {
    let mut components = job.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !job.as_os_str().as_encoded_bytes().iter().any(|&byte| is_separator(char::from(byte)))
}

/// Returns the directory of this user's locks. Creates it if it is missing.
#[cfg(unix)]
fn directory() -> Result<PathBuf, ExclusiveError> {
    let user = user().map_err(|error| {
        ExclusiveError::directory(
            Path::new("heeler"),
            "cannot be found: this process cannot tell its user",
            Some(error),
        )
    })?;
    // Not `XDG_RUNTIME_DIR`, which exists in a login but not under cron: a job that both run must find the same lock.
    let directory = std::env::temp_dir().join(format!("heeler-{user}"));
    match private::make(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(ExclusiveError::directory(&directory, "cannot be made", Some(error)));
        }
        _ => {}
    }
    // Also if it was created just now, because another user may have replaced it if the parent directory has no sticky
    // bit.
    match fault(&directory, user) {
        Ok(None) => Ok(directory),
        Ok(Some(fault)) => Err(ExclusiveError::directory(&directory, fault, None)),
        Err(error) => Err(ExclusiveError::directory(&directory, "cannot be looked at", Some(error))),
    }
}

/// Returns the reason why a directory isn't this user's alone, if there is one.
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

/// Returns the directory of this user's locks. Creates it if it is missing. Temporary directories belong to one user on
/// this platform.
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
