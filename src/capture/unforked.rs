//! Code during which this process does not fork.
//!
//! A child has a copy of every lock, held or not, and none of the threads that would release it. heeler's own locks
//! belong to one process (see `fork.rs`). Locks of others do not: glibc 2.36 keeps its loader's lock locked in the child
//! if another thread was inside `dl_iterate_phdr`, and whoever calls that next waits for ever, be it heeler, an unwinder
//! or a profiler. So a fork waits until heeler's threads are outside of such code.
//!
//! The C library runs the handlers below around `fork`. It does not for a bare `clone`, after which POSIX allows hardly any
//! call, nor for `vfork` and `posix_spawn`, whose child shares the parent's memory until it runs another program.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread::sleep;
use std::time::Duration;

use crate::sync::lock_std;

/// How often a fork looks whether it may go on, and the most looks. It would wait for ever for a thread that waits for
/// the one that forks.
const PAUSE: Duration = Duration::from_micros(100);
const MAX_LOOKS: u32 = 10_000;

/// Held by code that must not be forked in the middle, and by a thread that forks.
static GATE: Mutex<()> = Mutex::new(());

thread_local! {
    /// What a thread that forks holds meanwhile. It is never dropped here, so a thread that ends need not come by.
    static HELD: Cell<Option<ManuallyDrop<MutexGuard<'static, ()>>>> = const { Cell::new(None) };
}

/// Runs `code`, during which no thread forks. It should be short, and must not call this function again.
pub(crate) fn unforked<T>(code: impl FnOnce() -> T) -> T {
    let _gate = lock_std(&GATE);
    code()
}

/// Has forks wait for [`unforked`] code from here on. If there is no memory for that, they do not.
pub(super) fn have_forks_wait() {
    // SAFETY: the handlers take no argument, and may run in any thread that forks: they touch a lock and a variable of
    // that thread.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}

unsafe extern "C" fn before() {
    for _ in 0..MAX_LOOKS {
        match GATE.try_lock() {
            Ok(gate) => return HELD.set(Some(ManuallyDrop::new(gate))),
            Err(TryLockError::Poisoned(gate)) => return HELD.set(Some(ManuallyDrop::new(gate.into_inner()))),
            Err(TryLockError::WouldBlock) => sleep(PAUSE),
        }
    }
}

/// In the parent and in the child, whose only thread is a copy of the one that holds the lock.
unsafe extern "C" fn after() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::capture::notice_forks;

    /// Forks, and returns how long that took. The child opens the gate and ends.
    fn fork() -> Duration {
        let began = Instant::now();
        // SAFETY: the child calls nothing but the gate, which is open in it, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above. The alarm ends a child that waits.
            unsafe { libc::alarm(20) };
            unforked(|| ());
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        let (took, mut status) = (began.elapsed(), 0);
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child has found the gate closed");
        took
    }

    /// Guards: a fork waits for such code, but not for ever. Afterwards the gate is open, in both processes.
    #[test]
    fn a_fork_waits_for_the_gate_but_not_for_ever() {
        notice_forks();
        let (is_inside, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unforked(|| {
                    is_inside.store(true, Ordering::Release);
                    sleep(Duration::from_millis(100));
                    is_over.store(true, Ordering::Release);
                });
            });
            while !is_inside.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            fork();
            assert!(is_over.load(Ordering::Acquire));
        });
        // This thread itself is inside, as in a callback that forks.
        let took = unforked(|| {
            // SAFETY: the child ends at once.
            let (began, child) = (Instant::now(), unsafe { libc::fork() });
            if child == 0 {
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: waits for the child made above.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            began.elapsed()
        });
        assert!(took >= PAUSE * MAX_LOOKS);
        fork();
    }
}
