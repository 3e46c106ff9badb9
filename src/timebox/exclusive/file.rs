//! Opens a lock file: never a link, a pipe or a device, and never a file that somebody else has written.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::error::ExclusiveError;
use super::holder::{LONGEST, SIGNATURE};
use crate::private::{self, for_this_user_alone};

/// How often the file may be removed or replaced between two checks before that is an error.
pub(super) const TRIES: usize = 16;

/// Opens the file under this name, or creates it.
pub(super) fn open(path: &Path) -> Result<File, ExclusiveError> {
    for _ in 0..TRIES {
        // `create_new` follows no link, not even a dangling one.
        match options().create_new(true).open(path) {
            Ok(file) => {
                let made = for_this_user_alone(&file);
                return made.map(|()| file).map_err(|error| ExclusiveError::file(path, "cannot be made", Some(error)));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Some systems check permissions first.
            Err(_) if fs::symlink_metadata(path).is_ok() => {}
            Err(error) => return Err(ExclusiveError::file(path, "cannot be made", Some(error))),
        }
        match fs::symlink_metadata(path) {
            // Checked before it is opened, because opening a pipe waits, and opening a device may do anything.
            Ok(found) => plain(path, &found)?,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(ExclusiveError::file(path, "cannot be looked at", Some(error))),
        }
        match options().open(path) {
            Ok(file) if is_at(&file, path) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(ExclusiveError::file(path, "cannot be opened", Some(error))),
        }
    }
    Err(replaced(path))
}

pub(super) fn replaced(path: &Path) -> ExclusiveError {
    ExclusiveError::file(path, "is removed or replaced all the time", None)
}

fn options() -> OpenOptions {
    let mut options = private::options();
    options.read(true).write(true);
    options
}

fn plain(path: &Path, found: &Metadata) -> Result<(), ExclusiveError> {
    let kind = found.file_type();
    let problem = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_symlink() => "is a symbolic link",
        () if kind.is_dir() => "is a directory",
        () => "is no plain file",
    };
    Err(ExclusiveError::file(path, problem, None))
}

/// Returns whether the open file is the one under this name, and not one that was removed or that a link led to.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        match (file.metadata(), fs::symlink_metadata(path)) {
            (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
            _ => false,
        }
    }
    // On this platform an open file keeps its name.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// Returns whether a file is empty or a lock file. Anything else was written by somebody who may want to keep it.
pub(super) fn is_ours(file: &mut File) -> io::Result<bool> {
    let text = content(file)?;
    Ok(text.is_empty() || text.starts_with(SIGNATURE.as_bytes()))
}

/// Returns the beginning of the file.
pub(super) fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}
