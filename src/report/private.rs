//! Files and directories for their owner alone, for reports hold URIs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory, and those it is in, unless they are there.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A new file. What an earlier process with this id left under this name is removed.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Never through a link that waits under this name.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        file => file,
    }
}

/// Writes a new file, and removes it if `content` fails.
pub(super) fn write_new(path: &Path, content: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
    content(&mut create(path)?).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}
