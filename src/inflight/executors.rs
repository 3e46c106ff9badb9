//! Whose waker is it? Those of tokio's tasks are told by their table of functions, which a task of a runtime of heeler's own
//! shows.
//!
//! A task of tokio's lives until it is done or its runtime ends, whoever has its waker. Of others nobody knows: some are
//! dropped as soon as nobody can wake them any more.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

/// Of tasks.
static TASK: AtomicUsize = AtomicUsize::new(0);
/// Of `block_on`, on a runtime's only thread and on any other.
static BLOCK_ON: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn table_of(waker: &Waker) -> usize {
    std::ptr::from_ref(waker.vtable()).addr()
}

/// Whether it is the waker of a task of tokio's.
#[inline]
pub(crate) fn is_tokio_task(waker: &Waker) -> bool {
    table_of(waker) == TASK.load(Ordering::Relaxed)
}

/// Whether it is a waker of tokio's: of a task, or of what a thread blocks on.
pub(crate) fn is_tokio(waker: &Waker) -> bool {
    is_tokio_task(waker) || BLOCK_ON.iter().any(|table| table.load(Ordering::Relaxed) == table_of(waker))
}

/// Learns to know them. On a thread of its own, for this one may be a runtime's. Where that fails, tokio's wakers are treated
/// as everybody's.
pub(crate) fn learn() {
    if TASK.load(Ordering::Relaxed) != 0 {
        // A child of `fork` knows what its parent knew.
        return;
    }
    let ask = || poll_fn(|cx| Poll::Ready(table_of(cx.waker())));
    let learnt = std::thread::Builder::new().name("heeler-start".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let task = runtime.block_on(runtime.spawn(ask()));
        TASK.store(task.unwrap_or_default(), Ordering::Relaxed);
        BLOCK_ON[0].store(runtime.block_on(ask()), Ordering::Relaxed);
        BLOCK_ON[1].store(runtime.handle().block_on(ask()), Ordering::Relaxed);
    });
    if let Ok(learnt) = learnt {
        // A panic was said by the hook.
        let _ = learnt.join();
    }
}
