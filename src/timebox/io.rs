//! Reading and writing that ends with its box.

use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{checkpoint, remaining};

/// The shortest timeout that a socket gets. For some systems zero means no timeout, for others it is an error.
const SHORTEST: Duration = Duration::from_millis(1);

/// A reader or writer that stops when the box around expires.
///
/// Each call begins with a [`checkpoint`](crate::checkpoint), so a loop of many short calls needs none of its own. A
/// [socket](Self::socket) also gets what is left of the box as its timeout during the call, so that a call that waits
/// ends with its box. A single call of any [other](Self::new) reader or writer is not cut short.
///
/// Once the box has expired, every call fails with [`TimedOut`](ErrorKind::TimedOut). The error holds the
/// [`Interrupted`](crate::Interrupted), which [`Interrupted::find`](crate::Interrupted::find) finds. During a
/// [grace](crate::timebox::Timebox::grace), use [`get_mut`](Self::get_mut) to reach the reader itself. Outside any box
/// nothing changes.
///
/// # Example
///
/// ```
/// use std::io::{ErrorKind, Read as _};
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
/// use heeler::timebox::{self, Io};
///
/// let silent = TcpListener::bind("127.0.0.1:0")?;
/// let error = timebox::blocking(Duration::from_millis(50), || {
///     let mut stream = Io::socket(TcpStream::connect(silent.local_addr()?)?);
///     stream.read(&mut [0; 512]) // nobody answers
/// })
/// .unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TimedOut);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Io<R> {
    inner: R,
    timeouts: Option<Timeouts<R>>,
}

/// How the timeouts of a socket are read and set.
struct Timeouts<R> {
    get: fn(&R, Way) -> io::Result<Option<Duration>>,
    set: fn(&R, Way, Option<Duration>) -> io::Result<()>,
}

impl<R> Io<R> {
    /// Creates a reader or writer that checks at each call whether the box has expired.
    ///
    /// Use it for files, pipes and anything else that can be read or written. For sockets see [`socket`](Self::socket).
    pub const fn new(inner: R) -> Self {
        Self { inner, timeouts: None }
    }

    /// Creates a reader or writer that checks at each call whether the box has expired, and lets no call wait for
    /// longer than the box has left.
    ///
    /// heeler keeps a read or write timeout of your own: it still ends a call if it is shorter, with the same error as
    /// before, and it is set again after each call. While a call waits, the socket's other handles
    /// ([`try_clone`](TcpStream::try_clone)) see the changed timeout.
    pub const fn socket(inner: R) -> Self
    where
        R: Socket,
    {
        Self { inner, timeouts: Some(Timeouts { get: R::timeout, set: R::set_timeout }) }
    }

    /// Returns the reader or writer itself.
    pub const fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the reader or writer itself, mutably. Calls on it are not checked.
    pub const fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the reader or writer, without the checks.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Makes a call that ends with the box.
    #[track_caller]
    fn call<T>(&mut self, way: Way, mut call: impl FnMut(&mut R) -> io::Result<T>) -> io::Result<T> {
        loop {
            // No box, no change.
            let Some(left) = remaining() else { return call(&mut self.inner) };
            checkpoint()?;
            let limit = left.max(SHORTEST);
            let Some((timeouts, own)) = self.timeouts.as_ref().and_then(|timeouts| {
                // A socket that does not tell its timeout will report its error in the call.
                let own = (timeouts.get)(&self.inner, way).ok()?;
                let shorter = own.is_none_or(|own| limit < own);
                (shorter && (timeouts.set)(&self.inner, way, Some(limit)).is_ok()).then_some((timeouts, own))
            }) else {
                return call(&mut self.inner).map_err(blame);
            };
            let start = Instant::now();
            let result = call(&mut self.inner);
            let restored = (timeouts.set)(&self.inner, way, own);
            match result {
                // The timeout was heeler's, so there is nothing to tell the caller: try again. Either the box has
                // expired or it is about to, because the clocks differ a little. A socket that never waits fails at
                // once.
                Err(error) if is_timeout(&error) && start.elapsed() >= limit / 2 => restored?,
                Err(error) => return Err(blame(error)),
                // Data that was read must not be lost because a timeout could not be set.
                Ok(done) => return Ok(done),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Returns the box's error, if it has expired and the call only says that it was cut short.
#[track_caller]
fn blame(error: io::Error) -> io::Error {
    match checkpoint() {
        Err(interrupted) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => interrupted.into(),
        _ => error,
    }
}

impl<R: Read> Read for Io<R> {
    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(Way::Read, |inner| inner.read(buffer))
    }

    #[track_caller]
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.call(Way::Read, |inner| inner.read_vectored(buffers))
    }
}

impl<R: Write> Write for Io<R> {
    #[track_caller]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(Way::Write, |inner| inner.write(bytes))
    }

    #[track_caller]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.call(Way::Write, |inner| inner.write_vectored(buffers))
    }

    #[track_caller]
    fn flush(&mut self) -> io::Result<()> {
        self.call(Way::Write, R::flush)
    }
}

impl<R: BufRead> BufRead for Io<R> {
    #[track_caller]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // No socket is a `BufRead`, so there is no timeout to set.
        checkpoint()?;
        self.inner.fill_buf().map_err(blame)
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl<R: Seek> Seek for Io<R> {
    #[track_caller]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        checkpoint()?;
        self.inner.seek(to)
    }
}

impl<R: fmt::Debug> fmt::Debug for Io<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("inner", &self.inner).field("socket", &self.timeouts.is_some()).finish()
    }
}

/// A blocking socket whose calls can be given a timeout: `TcpStream`, and `UnixStream` on Unix, and references to them.
pub trait Socket: sealed::Timeouts {}

use sealed::Way;

mod sealed {
    use std::io;
    use std::time::Duration;

    #[derive(Debug, Clone, Copy)]
    pub enum Way {
        Read,
        Write,
    }

    pub trait Timeouts {
        fn timeout(&self, way: Way) -> io::Result<Option<Duration>>;

        fn set_timeout(&self, way: Way, timeout: Option<Duration>) -> io::Result<()>;
    }
}

macro_rules! socket {
    ($socket:ty) => {
        impl Socket for $socket {}

        impl sealed::Timeouts for $socket {
            fn timeout(&self, way: Way) -> io::Result<Option<Duration>> {
                match way {
                    Way::Read => self.read_timeout(),
                    Way::Write => self.write_timeout(),
                }
            }

            fn set_timeout(&self, way: Way, timeout: Option<Duration>) -> io::Result<()> {
                match way {
                    Way::Read => self.set_read_timeout(timeout),
                    Way::Write => self.set_write_timeout(timeout),
                }
            }
        }
    };
}

socket!(TcpStream);
socket!(&TcpStream);
#[cfg(unix)]
socket!(std::os::unix::net::UnixStream);
#[cfg(unix)]
socket!(&std::os::unix::net::UnixStream);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::timebox::{Interrupted, blocking};

    /// Longer than any test takes.
    const FOREVER: Duration = Duration::from_secs(3_600);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn expire() {
        while checkpoint().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_interrupted(error: &io::Error) -> bool {
        error.kind() == ErrorKind::TimedOut && Interrupted::find(error).is_some()
    }

    /// A reader that returns an error.
    struct Failing(ErrorKind);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            expire();
            Err(self.0.into())
        }
    }

    #[test]
    fn a_waiting_read_ends_with_its_timebox() {
        let (client, _server) = pair();
        let mut client = Io::socket(client);
        let error = blocking(Duration::from_millis(30), || client.read(&mut [0; 8])).unwrap_err();
        assert!(is_interrupted(&error), "{error:?}");
        assert_eq!(client.get_ref().read_timeout().unwrap(), None);
    }

    #[test]
    fn a_waiting_write_ends_with_its_timebox() {
        let (client, _server) = pair();
        let mut client = Io::socket(&client);
        let error = blocking(Duration::from_millis(30), || client.write_all(&vec![0; 64 << 20])).unwrap_err();
        assert!(is_interrupted(&error), "{error:?}");
        assert_eq!(client.get_ref().write_timeout().unwrap(), None);
    }

    /// Guards: the user's own timeout, if it is shorter, ends the call with its usual error, and stays set.
    #[test]
    fn the_shorter_timeout_wins() {
        let (client, _server) = pair();
        let own = Some(Duration::from_millis(20));
        client.set_read_timeout(own).unwrap();
        let mut client = Io::socket(client);
        let error = blocking(FOREVER, || client.read(&mut [0; 8])).unwrap_err();
        assert!(is_timeout(&error) && Interrupted::find(&error).is_none(), "{error:?}");
        let own = client.get_ref().read_timeout().unwrap();
        assert!(own.is_some_and(|own| own < Duration::from_secs(1)));
        client.get_ref().set_read_timeout(Some(FOREVER)).unwrap();
        let error = blocking(Duration::from_millis(20), || client.read(&mut [0; 8])).unwrap_err();
        assert!(is_interrupted(&error), "{error:?}");
        assert_eq!(client.get_ref().read_timeout().unwrap(), Some(FOREVER));
    }

    /// Guards: data in time arrives unchanged, in both directions, including the end.
    #[test]
    fn data_in_time_is_unchanged() {
        let (client, server) = pair();
        let echo = thread::spawn(move || io::copy(&mut &server, &mut &server).unwrap());
        let mut client = Io::socket(client);
        let bytes: Vec<u8> = (0..50_000_u32).map(|at| at as u8).collect();
        let got = blocking(FOREVER, || {
            client.write_all(&bytes)?;
            client.flush()?;
            client.get_ref().shutdown(std::net::Shutdown::Write)?;
            let mut got = Vec::new();
            client.read_to_end(&mut got)?;
            Ok::<_, io::Error>(got)
        });
        assert!(got.unwrap() == bytes);
        echo.join().unwrap();
    }

    /// Guards: a socket that never waits says so at once, and is not asked again and again.
    #[test]
    fn a_nonblocking_socket_stays_nonblocking() {
        let (client, _server) = pair();
        client.set_nonblocking(true).unwrap();
        let mut client = Io::socket(client);
        let error = blocking(FOREVER, || client.read(&mut [0; 8])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn an_expired_timebox_ends_every_call() {
        let mut file = Io::new(io::Cursor::new(vec![7; 64]));
        blocking(Duration::from_millis(50), || {
            expire();
            assert!(is_interrupted(&file.read(&mut [0; 8]).unwrap_err()));
            assert!(is_interrupted(&file.write(&[0; 8]).unwrap_err()));
            assert!(is_interrupted(&file.flush().unwrap_err()));
            assert!(is_interrupted(&file.fill_buf().unwrap_err()));
            assert!(is_interrupted(&file.seek(SeekFrom::Start(3)).unwrap_err()));
            Ok::<(), io::Error>(())
        })
        .unwrap();
        // Nothing was read, and outside the box it goes on.
        assert_eq!(file.get_ref().position(), 0);
        let mut all = Vec::new();
        assert_eq!(file.read_to_end(&mut all).unwrap(), 64);
    }

    /// Guards: only errors that say "cut short" are attributed to the timebox.
    #[test]
    fn unrelated_errors_keep_their_cause() {
        let read = |kind| blocking(Duration::from_millis(5), || Io::new(Failing(kind)).read(&mut [0; 8])).unwrap_err();
        for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            assert!(is_interrupted(&read(kind)), "{kind}");
        }
        assert_eq!(read(ErrorKind::BrokenPipe).kind(), ErrorKind::BrokenPipe);
    }

    #[cfg(unix)]
    #[test]
    fn unix_sockets_end_with_their_timebox() {
        let (client, _server) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = blocking(Duration::from_millis(20), || Io::socket(&client).read(&mut [0; 8])).unwrap_err();
        assert!(is_interrupted(&error), "{error:?}");
    }
}
