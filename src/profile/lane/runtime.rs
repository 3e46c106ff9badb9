//! Runtimes that start on first use, and stay.

use std::io;
use std::panic::catch_unwind;
use std::sync::Mutex;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::inflight;
use crate::sync::lock_std;

/// Where profiled requests run.
pub(in crate::profile) static LANE: Apart = Apart::new("heeler-lane");

/// Where jobs are minded.
pub(in crate::profile) static CLERK: Apart = Apart::new("heeler-clerk");

/// As much as a program's first thread has: what fits on the application's threads, whose size nobody can ask for, should
/// fit here. Memory is taken as it is used.
const STACK: usize = 8 << 20;

/// A runtime of one worker and a blocking pool of its own. Never dropped: what a request leaves behind may go on.
#[derive(Debug)]
pub(in crate::profile) struct Apart {
    name: &'static str,
    started: Mutex<Option<&'static Runtime>>,
}

impl Apart {
    const fn new(name: &'static str) -> Self {
        Self { name, started: Mutex::new(None) }
    }

    /// What its threads are called.
    #[cfg(feature = "pprof")]
    pub(in crate::profile) const fn name(&self) -> &'static str {
        self.name
    }

    /// The runtime, started if it is not.
    ///
    /// # Errors
    ///
    /// If it cannot be started: threads or file descriptors are out. The next call tries again.
    pub(in crate::profile) fn handle(&self) -> io::Result<Handle> {
        self.start_by(|| {
            // Several threads in kind, so that `block_in_place` works; one in number.
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name(self.name)
                .thread_stack_size(STACK)
                .on_thread_start(inflight::stand_aside_for_good)
                .on_thread_park(inflight::strand::forget_ended)
                .enable_all()
                .build()
        })
    }

    fn start_by(&self, build: impl FnOnce() -> io::Result<Runtime> + std::panic::UnwindSafe) -> io::Result<Handle> {
        let mut started = lock_std(&self.started);
        if let Some(runtime) = *started {
            return Ok(runtime.handle().clone());
        }
        // tokio panics where it cannot start a thread.
        let built = catch_unwind(build).unwrap_or_else(|_| Err(io::Error::other("a thread could not be started")))?;
        let runtime: &'static Runtime = Box::leak(Box::new(built));
        *started = Some(runtime);
        Ok(runtime.handle().clone())
    }
}

/// What `make` makes, which may take a while: off the application's threads. `None` if it cannot be made.
pub(in crate::profile) async fn apart<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    CLERK.handle().ok()?.spawn_blocking(make).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a start that fails or panics is an error, and the next one may succeed; then there is one runtime for good.
    #[test]
    fn starts_that_fail() {
        let apart = Apart::new("heeler-test");
        assert!(apart.start_by(|| Err(io::ErrorKind::OutOfMemory.into())).is_err());
        let error = apart.start_by(|| panic!("OS can't spawn worker thread")).unwrap_err();
        assert_eq!(error.to_string(), "a thread could not be started");
        let (one, other) = (apart.handle().unwrap(), apart.handle().unwrap());
        assert_eq!(one.id(), other.id());
        assert_eq!(one.metrics().num_workers(), 1);
        assert_eq!(one.runtime_flavor(), tokio::runtime::RuntimeFlavor::MultiThread);
    }

    /// Guards: its threads can be told by name, those of the blocking pool, too.
    #[test]
    fn threads_have_names() {
        let handle = Apart::new("heeler-test").handle().unwrap();
        let name = || std::thread::current().name().map(str::to_owned);
        let names = (handle.spawn(async move { name() }), handle.spawn_blocking(name));
        let names = futures::executor::block_on(async { (names.0.await.unwrap(), names.1.await.unwrap()) });
        assert_eq!(names, (Some("heeler-test".to_owned()), Some("heeler-test".to_owned())));
    }
}
