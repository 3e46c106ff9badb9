//! Code during which this process does not fork.
//!
//! A child has a copy of every lock, held or not, and none of the threads that would release it. heeler's own locks
//! belong to one process (see `fork.rs`). Locks of others do not: glibc 2.36 keeps its loader's lock locked in the child
//! if another thread was inside `dl_iterate_phdr`, and whoever calls that next waits for ever, be it heeler, an unwinder
//! or a profiler. The lock of the `backtrace` crate is another one. So a fork waits until heeler's threads are outside of
//! such code.
//!
//! The C library runs the handlers below around `fork`. It does not for a bare `clone`, after which POSIX allows hardly any
//! call, nor for `vfork` and `posix_spawn`, whose child shares the parent's memory until it runs another program.

#[cfg(target_os = "linux")]
pub(super) use imp::have_forks_wait;
pub(crate) use imp::unforked;

#[cfg(target_os = "linux")]
mod imp {
    use std::cell::{Cell, RefCell};
    use std::mem::ManuallyDrop;
    use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use crate::capture::fork::{MAX_PROCESSES, process_number};

    /// How long a fork waits for such code, and such code for a fork. Without a limit, two threads could wait for each
    /// other for ever, because others have handlers, too.
    const LONGEST: Duration = Duration::from_secs(5);
    /// How often they look whether they may go on.
    const PAUSE: Duration = Duration::from_micros(100);

    type Gate = RwLock<()>;

    /// Read by code that must not be forked in the middle, and written by a thread that forks. A child has its own, because
    /// its parent's may be in any state.
    static GATES: [Gate; MAX_PROCESSES + 1] = [const { RwLock::new(()) }; MAX_PROCESSES + 1];

    thread_local! {
        /// How often this thread is within [`unforked`].
        static INSIDE: Cell<u32> = const { Cell::new(0) };
        /// How often this thread is within a fork: a handler of somebody else's may fork, too.
        static FORKING: Cell<u32> = const { Cell::new(0) };
        /// What it holds meanwhile. There is no destructor, because registering one would allocate.
        static HELD: RefCell<ManuallyDrop<Option<RwLockWriteGuard<'static, ()>>>> =
            const { RefCell::new(ManuallyDrop::new(None)) };
    }

    /// Within [`unforked`].
    struct Inside(#[expect(dead_code, reason = "it is held")] Option<RwLockReadGuard<'static, ()>>);

    impl Inside {
        fn enter() -> Self {
            INSIDE.set(INSIDE.get() + 1);
            // While this thread itself forks, or is inside already, no other one does.
            let is_safe = INSIDE.get() > 1 || FORKING.get() > 0;
            Self(if is_safe { None } else { within(LONGEST, || gate().try_read()) })
        }
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            INSIDE.set(INSIDE.get() - 1);
        }
    }

    fn gate() -> &'static Gate {
        &GATES[process_number() as usize]
    }

    /// Tries until it has the lock, but no longer than that. It does not queue, so nobody waits for one that waits.
    fn within<G>(longest: Duration, lock: impl Fn() -> TryLockResult<G>) -> Option<G> {
        let began = Instant::now();
        loop {
            match lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
                Err(TryLockError::WouldBlock) if began.elapsed() < longest => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }

    /// Runs `code`. Forks of other threads wait for its end, for [`LONGEST`] at most, so it should be short.
    pub(crate) fn unforked<T>(code: impl FnOnce() -> T) -> T {
        let _inside = Inside::enter();
        code()
    }

    /// Has forks wait for [`unforked`] code from here on. If there is no memory for that, they do not.
    pub(in crate::capture) fn have_forks_wait() {
        // SAFETY: the handlers take no argument, and may run in any thread that forks: they touch locks that never move
        // and variables of that thread. The C library forgets them if the library that they are in is unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    }

    unsafe extern "C" fn before() {
        close(LONGEST);
    }

    /// Closes the gate, unless that takes longer than `longest`.
    fn close(longest: Duration) {
        FORKING.set(FORKING.get() + 1);
        // Within such code it would wait for itself.
        if FORKING.get() == 1 && INSIDE.get() == 0 {
            let gate = within(longest, || gate().try_write());
            HELD.with_borrow_mut(|held| *held = ManuallyDrop::new(gate));
        }
    }

    /// Opens it, in the parent, and in the child, whose only thread is a copy of the one that has closed it.
    unsafe extern "C" fn after() {
        FORKING.set(FORKING.get() - 1);
        if FORKING.get() == 0 {
            HELD.with_borrow_mut(|held| held.take());
        }
    }

    #[cfg(all(test, not(heeler_loom)))]
    mod tests {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::sync::{Mutex, MutexGuard};

        use super::*;
        use crate::capture::notice_forks;
        use crate::sync::lock_std;

        /// One test at a time: they hold the gate for long.
        fn alone() -> MutexGuard<'static, ()> {
            static ALONE: Mutex<()> = Mutex::new(());
            notice_forks();
            lock_std(&ALONE)
        }

        /// Runs `work` while another thread is within such code, for that long. Returns whether it has waited for that.
        fn beside(time: Duration, work: impl FnOnce()) -> bool {
            let is_inside = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    unforked(|| {
                        is_inside.store(true, Ordering::Release);
                        sleep(time);
                        is_inside.store(false, Ordering::Release);
                    });
                });
                while !is_inside.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                work();
                !is_inside.load(Ordering::Acquire)
            })
        }

        /// Forks. The child runs `work`, which returns whether all is well.
        fn fork(work: impl FnOnce() -> bool) {
            // SAFETY: the child goes through the gate, which takes no other lock, and ends.
            forked(unsafe { libc::fork() }, work);
        }

        fn forked(child: i32, work: impl FnOnce() -> bool) {
            if child == 0 {
                // SAFETY: as above. The alarm ends a child that waits.
                unsafe { libc::alarm(20) };
                let failed = !work();
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(failed)) };
            }
            let mut status = 0;
            // SAFETY: waits for the child made above.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }

        /// Returns whether the gate is open: whoever comes does not wait.
        fn is_open() -> bool {
            let began = Instant::now();
            unforked(|| ());
            close(LONGEST);
            // SAFETY: it may be called in any thread, and does what follows a fork.
            unsafe { after() };
            began.elapsed() < LONGEST
        }

        /// Guards: a fork waits for such code. Afterwards the gate is open, in both processes.
        #[test]
        fn a_fork_waits_for_code_that_must_not_be_forked() {
            let _alone = alone();
            assert!(beside(Duration::from_millis(100), || fork(is_open)));
            assert!(is_open());
        }

        /// Guards: a fork does not wait for ever, and neither does whoever comes later, here or in the child.
        #[test]
        fn a_fork_does_not_wait_for_ever() {
            let _alone = alone();
            assert!(!beside(LONGEST + Duration::from_secs(4), || fork(is_open)));
            assert!(is_open());
        }

        /// Guards: a child that was made without the handlers, while another thread forks, has a gate of its own.
        #[test]
        fn a_bare_child_finds_the_gate_open() {
            let _alone = alone();
            let is_closed = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    close(LONGEST);
                    is_closed.store(true, Ordering::Release);
                    sleep(Duration::from_millis(100));
                    // SAFETY: as above.
                    unsafe { after() };
                });
                while !is_closed.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                // SAFETY: the child goes through the gate, which takes no other lock, and ends; no pointer is passed.
                forked(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 }, is_open);
            });
        }

        /// Guards: neither a fork within such code nor such code within a fork waits for itself.
        #[test]
        fn no_thread_waits_for_itself() {
            let _alone = alone();
            let began = Instant::now();
            unforked(|| unforked(|| fork(is_open)));
            close(LONGEST);
            unforked(|| fork(is_open));
            // SAFETY: as above.
            unsafe { after() };
            assert!(began.elapsed() < LONGEST);
            assert!(is_open());
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
