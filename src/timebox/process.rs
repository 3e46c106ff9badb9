//! Child processes that end with the work that started them.

use std::io;
use std::ops::{Deref, DerefMut};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{checkpoint, remaining};

/// How often a killed child is checked before a thread is left to wait for it.
const LOOKS: u32 = 4;

/// A child process that is killed and reaped when this is dropped: with its box, for example.
///
/// The standard library's and tokio's children go on running after they are dropped. Those of the standard library also
/// stay behind as zombies when they end. This one does neither: it is sent `SIGKILL` and waited for, by a thread of its
/// own if that takes longer than a moment. Processes that the child has started itself are not its children and live
/// on.
///
/// Holds a [`std::process::Child`], or with the feature `process` a `tokio::process::Child`, and derefs to it.
///
/// # Example
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use heeler::timebox::{self, Process};
///
/// # #[cfg(unix)]
/// let error = timebox::blocking(Duration::from_millis(50), || {
///     let mut sleep = Process::new(Command::new("sleep").arg("60").spawn()?);
///     sleep.wait() // killed and reaped as the 50 ms are over
/// })
/// .unwrap_err();
/// # #[cfg(unix)]
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// ```
#[derive(Debug)]
pub struct Process<C: Child> {
    // `None` only during `into_inner` or `drop`.
    child: Option<C>,
}

impl<C: Child> Process<C> {
    /// Wraps a child, so that it ends when this is dropped.
    pub const fn new(child: C) -> Self {
        Self { child: Some(child) }
    }

    /// Returns the child, which is left alone from now on.
    #[must_use = "nobody else kills or reaps it"]
    pub fn into_inner(mut self) -> C {
        let Some(child) = self.child.take() else { unreachable!("taken here alone, and by drop") };
        child
    }
}

impl Process<std::process::Child> {
    /// Waits until the child has ended. If the box around expires first, kills the child and reaps it.
    ///
    /// Closes the child's standard input first, as [`std::process::Child::wait`] does. Outside any box this is the same
    /// as that function. Inside, the child is checked after 0.1 ms, and then at intervals that grow to 10 ms.
    ///
    /// # Errors
    ///
    /// Returns [`Interrupted`](crate::Interrupted), inside a [`TimedOut`](io::ErrorKind::TimedOut), if the box has
    /// expired. Otherwise returns the error of the operating system.
    #[track_caller]
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        // A child that reads all of its input would wait for this process.
        drop(self.stdin.take());
        let mut pause = Duration::from_micros(100);
        loop {
            // First, because a child that has ended in time isn't interrupted.
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let Some(left) = remaining() else { return DerefMut::deref_mut(self).wait() };
            if let Err(interrupted) = checkpoint() {
                end(&mut **self);
                return Err(interrupted.into());
            }
            thread::sleep(pause.min(left.max(Duration::from_micros(100))));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl<C: Child> Deref for Process<C> {
    type Target = C;

    fn deref(&self) -> &C {
        let Some(child) = &self.child else { unreachable!("into_inner takes self") };
        child
    }
}

impl<C: Child> DerefMut for Process<C> {
    fn deref_mut(&mut self) -> &mut C {
        let Some(child) = &mut self.child else { unreachable!("into_inner takes self") };
        child
    }
}

impl<C: Child> From<C> for Process<C> {
    fn from(child: C) -> Self {
        Self::new(child)
    }
}

impl<C: Child> Drop for Process<C> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take()
            && !end(&mut child)
        {
            reap_elsewhere(child);
        }
    }
}

/// Kills a child. Returns whether it has also been reaped.
fn end(child: &mut impl Child) -> bool {
    // If the child has been reaped already, here or elsewhere, its id may belong to another process by now.
    if !matches!(child.look(), Ok(None)) {
        return true;
    }
    // It may have ended between the two calls. Until it is reaped, that does no harm.
    let _ = child.send_kill();
    for _ in 0..LOOKS {
        if !matches!(child.look(), Ok(None)) {
            return true;
        }
        thread::yield_now();
    }
    false
}

/// Waits for the child on another thread. A process dies within a fraction of a millisecond, unless it holds much
/// memory or is in a system call that can't be interrupted. The thread that drops it may belong to an async runtime and
/// must not wait for that.
#[cold]
fn reap_elsewhere<C: Child>(child: C) {
    let (hand_over, receive) = mpsc::sync_channel(1);
    let reaper = thread::Builder::new().name("heeler-reaper".to_owned()).spawn(move || {
        if let Ok(child) = receive.recv() {
            reap(child);
        }
    });
    match reaper {
        Ok(_) => {
            let _ = hand_over.send(child);
        }
        // Could not start a thread. Waits here, because a zombie would only add to the shortage.
        Err(_) => reap(child),
    }
}

fn reap(mut child: impl Child) {
    let mut pause = Duration::from_micros(100);
    while matches!(child.look(), Ok(None)) {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// What a [`Process`] can hold: the standard library's children, and tokio's with the feature `process`.
pub trait Child: sealed::Child + Send + 'static {}

mod sealed {
    use std::io;
    use std::process::ExitStatus;

    pub trait Child {
        /// Reaps it if it has ended.
        fn look(&mut self) -> io::Result<Option<ExitStatus>>;

        fn send_kill(&mut self) -> io::Result<()>;
    }
}

impl Child for std::process::Child {}

impl sealed::Child for std::process::Child {
    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        self.try_wait()
    }

    fn send_kill(&mut self) -> io::Result<()> {
        self.kill()
    }
}

#[cfg(feature = "process")]
#[cfg_attr(docsrs, doc(cfg(feature = "process")))]
impl Child for tokio::process::Child {}

#[cfg(feature = "process")]
impl sealed::Child for tokio::process::Child {
    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        self.try_wait()
    }

    fn send_kill(&mut self) -> io::Result<()> {
        self.start_kill()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::timebox::{Interrupted, blocking};

    fn sleep() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    /// Returns whether a process with that id runs or waits to be reaped.
    fn exists(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(40), "waited in vain until {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_dropped_child_is_killed_and_reaped() {
        let process = Process::new(sleep().spawn().unwrap());
        let pid = process.id();
        assert!(exists(pid));
        drop(process);
        until("the child is gone", || !exists(pid));
    }

    #[cfg(feature = "process")]
    #[test]
    fn tokios_child_is_killed_outside_its_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process = runtime.block_on(async { Process::new(tokio::process::Command::from(sleep()).spawn().unwrap()) });
        let pid = process.id().unwrap();
        drop(runtime);
        drop(process);
        until("the child is gone", || !exists(pid));
    }

    /// Guards: `into_inner` disarms.
    #[test]
    fn a_child_taken_out_lives_on() {
        let mut child = Process::from(sleep().spawn().unwrap()).into_inner();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Guards: outside a timebox, and inside one with time, `wait` is the child's own, including the end of its input.
    #[test]
    fn waiting_in_time_works_as_usual() {
        let cat = || Process::new(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        assert!(cat().wait().unwrap().success());
        assert!(blocking(Duration::from_secs(3_600), || cat().wait()).unwrap().success());
        let mut failing = Process::new(Command::new("false").spawn().unwrap());
        assert_eq!(blocking(Duration::from_secs(3_600), || failing.wait()).unwrap().code(), Some(1));
        // And again, because it has been reaped by now.
        assert_eq!(failing.wait().unwrap().code(), Some(1));
    }

    #[test]
    fn waiting_for_a_child_ends_with_its_timebox() {
        let mut process = Process::new(sleep().spawn().unwrap());
        let pid = process.id();
        let error = blocking(Duration::from_millis(20), || process.wait()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Interrupted::find(&error).is_some());
        drop(process);
        until("the child is gone", || !exists(pid));
    }
}
