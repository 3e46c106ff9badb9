//! The messages that the tour caused.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

/// Returns the messages in this folder that are not older than `since`, newest last.
pub(super) fn messages(folder: &Path, since: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let written = entry.metadata()?.modified()?;
        if path.extension().is_some_and(|extension| extension == "eml") && written >= since {
            messages.push((written, path));
        }
    }
    messages.sort();
    Ok(messages.into_iter().map(|(_, path)| path).collect())
}
