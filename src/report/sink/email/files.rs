//! Mails as files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::log::warn_if_exposed;
use crate::private::{directory, write_new};

/// How many mails are kept.
const MAX_FILES: usize = 1_000;

const PREFIXES: [&str; 2] = ["slow_request_", "digest_"];

/// A directory of mails.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
}

impl Files {
    /// Creates the directory if it doesn't exist, and checks that files can be created in it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::mail_directory(path, "has no usable path", Some(error)))?;
        if fs::metadata(&path).is_ok_and(|about| !about.is_dir()) {
            return Err(Error::mail_directory(&path, "is not a directory", None));
        }
        directory(&path).map_err(|error| Error::mail_directory(&path, "cannot be created", Some(error)))?;
        let files = Self { path };
        let probe = files.path.join(format!(".probe.{}.eml.tmp", std::process::id()));
        let probed = write_new(&probe, &mut |file| file.write_all(b"heeler")).and_then(|()| fs::remove_file(&probe));
        probed.map_err(|error| Error::mail_directory(&files.path, "cannot be written to", Some(error)))?;
        warn_if_exposed("mail directory", &files.path);
        Ok(files)
    }

    /// Writes a mail to `<stem>.eml`, whole or not at all. Removes the oldest if there are too many, as far as
    /// permitted.
    pub(super) fn write(&self, stem: &str, mail: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!(".{stem}.{}.eml.tmp", std::process::id()));
        let write = || write_new(&temporary, &mut |file| file.write_all(mail));
        let mut written = write();
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody deleted the directory.
            written = directory(&self.path).and_then(|()| write());
        }
        written?;
        fs::rename(&temporary, self.path.join(format!("{stem}.eml"))).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        // The mail is written. If this were a failure, it would be written again and again.
        let _ = self.make_room();
        Ok(())
    }

    fn make_room(&self) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
            if let Some(rest) = rest.filter(|rest| rest.ends_with(".eml")) {
                // The rest of the name begins with the time.
                names.push((rest.to_owned(), name.to_owned()));
            }
        }
        names.sort();
        let too_many = names.len().saturating_sub(MAX_FILES);
        names[..too_many].iter().map(|(_, name)| fs::remove_file(self.path.join(name))).fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a developer's disk doesn't fill up, and other files in the directory stay.
    #[test]
    fn the_oldest_mails_make_room() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::open(&place.path().join("mail")).unwrap();
        fs::write(files.path.join("slow_request_notes.txt"), "mine").unwrap();
        for number in 0..MAX_FILES {
            fs::write(files.path.join(format!("slow_request_{number:05}.eml")), "old").unwrap();
        }
        files.write("digest_99999", b"new").unwrap();
        let has = |name: &str| files.path.join(name).exists();
        assert!(has("digest_99999.eml") && has("slow_request_notes.txt") && has("slow_request_00001.eml"));
        assert!(!has("slow_request_00000.eml"));
        assert_eq!(fs::read_dir(&files.path).unwrap().count(), MAX_FILES + 1);
        // A file that cannot be removed doesn't prevent a mail from being written.
        fs::create_dir(files.path.join("slow_request_00000.eml")).unwrap();
        files.write("digest_99998", b"new").unwrap();
        assert!(has("digest_99998.eml") && !has("slow_request_00001.eml"));
    }

    #[test]
    #[cfg(unix)]
    fn mails_are_readable_by_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let files = Files::open(&place.path().join("a/mail")).unwrap();
        files.write("slow_request_1", b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.path), 0o700);
        assert_eq!(mode(&files.path.join("slow_request_1.eml")), 0o600);
        fs::remove_dir_all(&files.path).unwrap();
        files.write("slow_request_2", b"after somebody cleaned up").unwrap();
        assert_eq!(mode(&files.path), 0o700);
        let taken = place.path().join("file");
        fs::write(&taken, "x").unwrap();
        let error = Files::open(&taken).unwrap_err();
        assert!(error.is_directory() && error.to_string().starts_with("the mail directory `"), "{error}");
    }
}
