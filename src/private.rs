//! Files and directories that only this user can access, whatever the umask, because reports hold URIs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes a directory and its parents, unless they exist.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or(error)?;
            directory(parent)?;
            make(path)
        }
        made => made,
    }
}

/// Makes one directory, unless it exists.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => {
            #[cfg(unix)]
            {
                use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
                // A umask may have taken rights that heeler itself needs. Never follows a link that has appeared by
                // now.
                let made = fs::symlink_metadata(path)?;
                if made.is_dir() && made.mode() & 0o777 != 0o700 {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
                }
            }
            Ok(())
        }
        // Some systems check permissions before existence.
        Err(error) if error.kind() != ErrorKind::NotFound && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns options for this user's files: new ones are for this user alone.
pub(crate) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Gives a new file the rights that a umask may have taken.
pub(crate) fn for_this_user_alone(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        if file.metadata()?.mode() & 0o777 != 0o600 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Creates a new file. Removes what an earlier process with this id left under this name.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = options();
    // Never follows a link that waits under this name.
    options.write(true).create_new(true);
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        file => file,
    }?;
    for_this_user_alone(&file)?;
    Ok(file)
}

/// Writes a new file, and removes it if `content` fails.
pub(crate) fn write_new(path: &Path, content: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
    content(&mut create(path)?).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Returns the user that owns this process's files.
///
/// A pipe belongs to the user who made it, and asking for its owner needs neither a file system nor a foreign function.
#[cfg(unix)]
pub(crate) fn user() -> io::Result<u32> {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt as _;

    let (reader, _) = io::pipe()?;
    Ok(File::from(OwnedFd::from(reader)).metadata()?.uid())
}

/// Says what other users can do in a directory, and how to fix that. Completes "the spool `/x` ..". `None` if they can
/// do nothing.
pub(crate) fn exposure(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let (about, user) = (fs::metadata(path).ok()?, user().ok()?);
        exposure_of(path, (about.uid(), about.mode()), user)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

#[cfg(unix)]
fn exposure_of(path: &Path, (owner, mode): (u32, u32), user: u32) -> Option<String> {
    let (path, mode) = (path.display(), mode & 0o7777);
    let problem = if owner != user && owner != 0 {
        format!("belongs to user {owner}, who can remove and replace what is in it")
    } else if mode & 0o022 != 0 {
        format!("can be written to by other users (its mode is {mode:03o}), who can add files to it")
    } else if mode & 0o055 != 0 {
        format!("can be entered by other users (its mode is {mode:03o}), who see the names of reports")
    } else {
        return None;
    };
    let remedy = if owner == user {
        format!("chmod 700 '{path}'")
    } else {
        format!("chown {user} '{path}' && chmod 700 '{path}'")
    };
    Some(format!("{problem}: make it this service's alone with `{remedy}`"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    /// Guards: every directory that is created on the way is this user's alone. An existing one is left as it is, and
    /// anything else in the way is an error.
    #[test]
    fn created_directories_are_private() {
        let place = tempfile::tempdir().unwrap();
        set_mode(place.path(), 0o755);
        directory(&place.path().join("a/b/c")).unwrap();
        assert_eq!(["a", "a/b", "a/b/c"].map(|name| mode(&place.path().join(name))), [0o700; 3]);
        set_mode(&place.path().join("a"), 0o750);
        directory(&place.path().join("a/d")).unwrap();
        directory(&place.path().join("a")).unwrap();
        assert_eq!((mode(place.path()), mode(&place.path().join("a"))), (0o755, 0o750));
        fs::write(place.path().join("file"), "x").unwrap();
        assert!(directory(&place.path().join("file")).is_err() && directory(&place.path().join("file/x")).is_err());
        assert!(directory(Path::new("")).is_err());
    }

    /// Guards: a warning says what is wrong with a directory, and what fixes it.
    #[test]
    fn the_warning_says_how_to_fix_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let (path, user) = (place.path(), user().unwrap());
        let shown = path.display();
        set_mode(path, 0o700);
        assert_eq!(exposure(path), None);
        set_mode(path, 0o750);
        let text = exposure(path).unwrap();
        assert!(text.starts_with("can be entered by other users (its mode is 750)"), "{text}");
        assert!(text.ends_with(&format!(": make it this service's alone with `chmod 700 '{shown}'`")), "{text}");
        set_mode(path, 0o1777);
        assert!(exposure(path).unwrap().starts_with("can be written to by other users (its mode is 1777)"));
        set_mode(path, 0o700);
        let text = exposure_of(path, (user + 1, 0o40700), user).unwrap();
        assert!(text.starts_with(&format!("belongs to user {}, who can remove", user + 1)), "{text}");
        assert!(text.contains(&format!("`chown {user} '{shown}' && chmod 700 '{shown}'`")), "{text}");
        assert_eq!(exposure_of(path, (0, 0o40700), user + 1), None, "root can do anything anyway");
        assert_eq!(exposure(&path.join("nothing")), None);
    }

    /// Guards: the user found through a pipe is the owner of a new file.
    #[test]
    fn finds_the_user_of_this_process() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(user().unwrap(), file.metadata().unwrap().uid());
    }
}
