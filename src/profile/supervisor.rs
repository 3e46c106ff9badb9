//! The supervisor: a runtime that keeps the books of profiled requests. It writes down how far each is, stops it when
//! its time is up, and brings its profile to the store, whatever the application's own runtime is doing.

use std::io;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::sleep;

use super::jobs::{Either, either};
use crate::capture::{KEEP_ALIVE, PerProcess};
use crate::sync::lock_std;

/// Where jobs are supervised.
pub(in crate::profile) static SUPERVISOR: PerProcess<Supervisor> = PerProcess::new(Supervisor::new);

/// The stack size of a program's first thread. Work that fits on the application's threads, whose stack size nobody can
/// ask for, should fit on profile threads. Memory is used only as needed.
pub(in crate::profile) const STACK: usize = 8 << 20;

/// A runtime of one worker and a blocking pool of its own, which starts on first use and stays.
#[derive(Debug)]
pub(in crate::profile) struct Supervisor {
    started: Mutex<Option<&'static Runtime>>,
}

impl Supervisor {
    const fn new() -> Self {
        Self { started: Mutex::new(None) }
    }

    /// Returns the runtime. Starts it if it isn't running.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be started, because there are no threads or file descriptors left. The next call
    /// tries again.
    pub(in crate::profile) fn handle(&self) -> io::Result<Handle> {
        self.start_by(|| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("heeler-supervisor")
                .thread_stack_size(STACK)
                .thread_keep_alive(KEEP_ALIVE)
                .enable_all()
                .build()
        })
    }

    fn start_by(&self, build: impl FnOnce() -> io::Result<Runtime> + std::panic::UnwindSafe) -> io::Result<Handle> {
        let mut started = lock_std(&self.started);
        if let Some(runtime) = *started {
            return Ok(runtime.handle().clone());
        }
        // tokio panics if it cannot start a thread.
        let built = catch_unwind(build).unwrap_or_else(|_| Err(io::Error::other("a thread could not be started")))?;
        let runtime: &'static Runtime = Box::leak(Box::new(built));
        *started = Some(runtime);
        Ok(runtime.handle().clone())
    }
}

/// Runs `make`, which may take a while, off the application's threads. Returns `None` if that fails.
pub(in crate::profile) async fn apart<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    SUPERVISOR.get().handle().ok()?.spawn_blocking(make).await.ok()
}

/// Waits for `work`, but no longer than that. The timer is the supervisor's, because the application's runtime need not have any.
/// Without a supervisor it waits as long as it takes.
pub(in crate::profile) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let Ok(supervisor) = SUPERVISOR.get().handle() else { return Some(work.await) };
    let timer = supervisor.spawn(async move { sleep(limit).await });
    let stop = timer.abort_handle();
    let done = either(pin!(work), pin!(timer)).await;
    stop.abort();
    match done {
        Either::First(done) => Some(done),
        Either::Second(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a start that fails or panics is an error, and the next one may succeed. After that there is one runtime for
    /// good.
    #[test]
    fn a_failed_start_is_tried_again() {
        let supervisor = Supervisor::new();
        assert!(supervisor.start_by(|| Err(io::ErrorKind::OutOfMemory.into())).is_err());
        let error = supervisor.start_by(|| panic!("OS can't spawn worker thread")).unwrap_err();
        assert_eq!(error.to_string(), "a thread could not be started");
        let (one, other) = (supervisor.handle().unwrap(), supervisor.handle().unwrap());
        assert_eq!(one.id(), other.id());
        assert_eq!(one.metrics().num_workers(), 1);
    }
}
