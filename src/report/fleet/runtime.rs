//! The runtime of all fleets of the process: a thread of heeler's own, so that a slow store delays nothing else.

use std::io;
use std::panic::catch_unwind;
use std::sync::Mutex;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::capture::PerProcess;
use crate::sync::lock_std;

static RUNTIME: PerProcess<Mutex<Option<&'static Runtime>>> = PerProcess::new(|| Mutex::new(None));

/// Returns the runtime. Starts it if it isn't running; it stays.
///
/// # Errors
///
/// Returns an error if it cannot be started, because there are no threads or file descriptors left. The next call tries
/// again.
pub(super) fn handle() -> io::Result<Handle> {
    let mut started = lock_std(RUNTIME.get());
    if let Some(runtime) = *started {
        return Ok(runtime.handle().clone());
    }
    let build = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(8).thread_name("heeler-fleet").enable_all();
        builder.thread_keep_alive(crate::capture::KEEP_ALIVE);
        builder.on_thread_start(crate::capture::sys::block_signals).build()
    };
    // tokio panics if it cannot start a thread.
    let built = catch_unwind(build).unwrap_or_else(|_| Err(io::Error::other("a thread could not be started")))?;
    let runtime: &'static Runtime = Box::leak(Box::new(built));
    *started = Some(runtime);
    Ok(runtime.handle().clone())
}
