//! Code during which this process does not fork.
//!
//! A child has a copy of every lock, held or not, and none of the threads that would release it. heeler's own locks
//! belong to one process (see `fork.rs`). Locks of others do not: glibc 2.36 keeps its loader's lock locked in the child
//! if another thread was inside `dl_iterate_phdr`, and whoever calls that next waits for ever, be it heeler, an unwinder
//! or a profiler. The lock of the crate `backtrace` is another one. So a fork waits until heeler's threads are outside of
//! such code.
//!
//! The C library runs the handlers below around `fork`. It does not for a bare `clone`, after which POSIX allows hardly any
//! call, nor for `vfork` and `posix_spawn`, whose child shares the parent's memory until it runs another program.

#[cfg(target_os = "linux")]
pub(super) use imp::have_forks_wait;
pub(crate) use imp::unforked;

#[cfg(target_os = "linux")]
mod imp {
    use std::cell::Cell;
    use std::mem::ManuallyDrop;
    use std::sync::{PoisonError, RwLock, RwLockWriteGuard, TryLockError};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    /// How long a fork waits. It would wait for ever for code that forks itself.
    const LONGEST: Duration = Duration::from_secs(5);
    /// How often it looks whether it may go on. It does not queue up, so such code never waits for a fork that waits.
    const PAUSE: Duration = Duration::from_micros(100);

    /// Read by code that must not be forked in the middle, and written by a thread that forks.
    static GATE: RwLock<()> = RwLock::new(());

    thread_local! {
        /// What a thread that forks holds meanwhile. It has no destructor, because a thread that forks has better things
        /// to do than to register one.
        static HELD: Cell<Option<ManuallyDrop<RwLockWriteGuard<'static, ()>>>> = const { Cell::new(None) };
    }

    /// Runs `code`, during which no thread forks. It should be short.
    pub(crate) fn unforked<T>(code: impl FnOnce() -> T) -> T {
        let _gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        code()
    }

    /// Has forks wait for [`unforked`] code from here on. If there is no memory for that, they do not.
    pub(in crate::capture) fn have_forks_wait() {
        // SAFETY: the handlers take no argument, and may run in any thread that forks: they touch a lock and a variable
        // of that thread.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    }

    unsafe extern "C" fn before() {
        close(LONGEST);
    }

    /// Closes the gate, unless that takes longer than `longest`.
    fn close(longest: Duration) {
        let began = Instant::now();
        loop {
            let gate = match GATE.try_write() {
                Ok(gate) => gate,
                Err(TryLockError::Poisoned(gate)) => gate.into_inner(),
                Err(TryLockError::WouldBlock) if began.elapsed() < longest => {
                    sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return,
            };
            return HELD.set(Some(ManuallyDrop::new(gate)));
        }
    }

    /// Opens it, in the parent and in the child, whose only thread is a copy of the one that has closed it.
    unsafe extern "C" fn after() {
        drop(HELD.take().map(ManuallyDrop::into_inner));
    }

    #[cfg(all(test, not(heeler_loom)))]
    mod tests {
        use std::sync::atomic::{AtomicBool, Ordering};

        use super::*;
        use crate::capture::notice_forks;

        /// Guards: a fork waits for such code. Afterwards the gate is open, in both processes.
        #[test]
        fn a_fork_waits_for_code_that_must_not_be_forked() {
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
                // SAFETY: the child goes through the gate, which takes no other lock, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: as above. The alarm ends a child that waits.
                    unsafe { libc::alarm(20) };
                    unforked(|| ());
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(0) };
                }
                assert!(is_over.load(Ordering::Acquire));
                let mut status = 0;
                // SAFETY: waits for the child made above.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "the child has found the gate closed");
            });
            unforked(|| ());
        }

        /// Guards: code that forks where it must not does not wait for itself for ever, nor does anybody else afterwards.
        #[test]
        fn a_fork_does_not_wait_for_ever() {
            unforked(|| {
                close(Duration::from_millis(20));
                // SAFETY: it is for any thread.
                unsafe { after() };
            });
            unforked(|| unforked(|| ()));
        }
    }
}

/// Elsewhere heeler does not notice forks.
#[cfg(not(target_os = "linux"))]
mod imp {
    /// Runs `code`.
    pub(crate) fn unforked<T>(code: impl FnOnce() -> T) -> T {
        code()
    }
}
