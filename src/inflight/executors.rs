//! Tells which executor a waker belongs to. Wakers of tokio's tasks are recognised by their vtable, which is learned
//! from a task on a runtime of heeler's own.
//!
//! A tokio task lives until it is done or its runtime ends, no matter who has its waker. Tasks of other executors may
//! be dropped as soon as nobody can wake them any more.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

/// The vtable of task wakers.
static TASK: AtomicUsize = AtomicUsize::new(0);
/// The vtables of `block_on`, on a current-thread runtime's thread and on any other.
static BLOCK_ON: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn table_of(waker: &Waker) -> usize {
    std::ptr::from_ref(waker.vtable()).addr()
}

/// Returns whether it is the waker of a tokio task.
#[inline]
pub(crate) fn is_tokio_task(waker: &Waker) -> bool {
    table_of(waker) == TASK.load(Ordering::Relaxed)
}

/// Returns whether it is one of tokio's wakers: of a task, or of a thread in `block_on`.
pub(crate) fn is_tokio(waker: &Waker) -> bool {
    is_tokio_task(waker) || BLOCK_ON.iter().any(|table| table.load(Ordering::Relaxed) == table_of(waker))
}

/// Learns tokio's vtables. Does so on a separate thread, because this one may belong to a runtime. If that fails,
/// tokio's wakers are treated like all others.
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
        // The panic hook has reported a panic.
        let _ = learnt.join();
    }
}
