//! The letters that the tour was worth.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

/// The letters in this folder that are not older than `since`, newest last.
pub(super) fn letters(folder: &Path, since: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut letters = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let written = entry.metadata()?.modified()?;
        if path.extension().is_some_and(|extension| extension == "eml") && written >= since {
            letters.push((written, path));
        }
    }
    letters.sort();
    Ok(letters.into_iter().map(|(_, path)| path).collect())
}
