//! The console on a Unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Console;
use super::serve::{Door, MAX_CONNECTIONS, RETRY, connection, run};
use crate::capture::sys;
use crate::disabled::is_disabled;
use crate::error::{Error, Result};

impl Console {
    /// Serves the console on a Unix socket, for `curl --unix-socket`. It needs no token: the socket admits the user that
    /// the process runs as, and root. Its directory must be that user's alone (mode 0700), and is made if it is missing.
    /// With `HEELER_DISABLE=1` in the environment, there is no socket. Otherwise as [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// Returns an error if the socket cannot be made, if its directory is open to others, or if another process listens
    /// there.
    pub fn serve_unix(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        if is_disabled() {
            return Ok(());
        }
        let path = path.as_ref();
        let failed =
            |error: io::Error| Error::listener(format!("the console cannot listen on {}", path.display()), error);
        let listener = bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let console = self.clone();
        run(async move {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let permit = Arc::clone(&connections).acquire_owned().await.map_err(io::Error::other)?;
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                // The kernel says who has connected.
                let Ok(peer) = stream.peer_cred() else { continue };
                let user = peer.uid();
                if user != sys::user_id() && user != 0 {
                    continue;
                }
                let process = peer.pid().map(|pid| format!(", pid {pid}")).unwrap_or_default();
                let (console, door) = (console.clone(), Door::Socket(format!("uid {user}{process}")));
                tokio::spawn(async move {
                    connection(stream, console, door).await;
                    drop(permit);
                });
            }
        })
        .map_err(failed)
    }
}

/// Makes a socket that is this user's alone.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Between the socket's creation and its mode, only the directory keeps others out.
    let known = fs::symlink_metadata(directory)?;
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if !known.is_dir() {
        return refuse("its directory is a link, which somebody may turn elsewhere".to_owned());
    }
    if known.uid() != sys::user_id() {
        return refuse(format!("its directory belongs to uid {}, and not to this process's user", known.uid()));
    }
    let mode = known.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return refuse(format!("its directory has the mode {mode:03o}, so others can enter it: chmod 700 it"));
    }
    if let Ok(known) = fs::symlink_metadata(path) {
        if !known.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, which is no socket"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        // What an earlier process has left.
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_users_alone() {
        let place = tempfile::tempdir().unwrap();
        let (open, path) = (place.path().join("open"), place.path().join("own/console.sock"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bind(&open.join("console.sock")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let link = place.path().join("link");
        fs::create_dir(place.path().join("own")).unwrap();
        fs::set_permissions(place.path().join("own"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(place.path().join("own"), &link).unwrap();
        assert_eq!(bind(&link.join("console.sock")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&path).unwrap();
        fs::write(place.path().join("own/file"), "").unwrap();
        assert_eq!(bind(&place.path().join("own/file")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
