//! Code during which this process does not fork.
//!
//! A child has a copy of every lock, held or not, and none of the threads that would release it. heeler's own locks
//! belong to one process (see `fork.rs`). Locks of others do not: glibc 2.36 keeps its loader's lock locked in the child
//! if another thread was inside `dl_iterate_phdr`, and whoever calls that next waits for ever, be it heeler, an unwinder
//! or a profiler. The lock of the `backtrace` crate is another one. So a fork waits until heeler's threads are outside of
//! such code, for a while.
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use crate::capture::fork::{MAX_PROCESSES, notice_forks, process_number};

    /// How long a fork waits for such code, and such code for a fork. Without a limit, two threads could wait for each
    /// other for ever, because others have handlers, too.
    const LONGEST: Duration = Duration::from_secs(5);
    /// How often they look whether they may go on.
    const PAUSE: Duration = Duration::from_micros(100);

    /// How long such code gives way to forks that wait for it.
    const COURTESY: Duration = Duration::from_millis(10);

    struct Gate {
        /// Read by code that must not be forked in the middle, and written by a thread that forks.
        lock: RwLock<()>,
        /// How many forks wait.
        waiting: AtomicU32,
    }

    /// A child has its own, because its parent's may be in any state.
    static GATES: [Gate; MAX_PROCESSES + 1] =
        [const { Gate { lock: RwLock::new(()), waiting: AtomicU32::new(0) } }; MAX_PROCESSES + 1];

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
            if INSIDE.get() > 1 || FORKING.get() > 0 {
                return Self(None);
            }
            notice_forks();
            let (gate, began) = (gate(), Instant::now());
            while gate.waiting.load(Ordering::Relaxed) > 0 && began.elapsed() < COURTESY {
                sleep(PAUSE);
            }
            Self(within(LONGEST, || gate.lock.try_read()))
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

    /// Has forks wait for [`unforked`] code from here on. If there is no memory for that, they do not. Twice does no harm.
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
            let gate = gate();
            gate.waiting.fetch_add(1, Ordering::Relaxed);
            let closed = within(longest, || gate.lock.try_write());
            gate.waiting.fetch_sub(1, Ordering::Relaxed);
            HELD.with_borrow_mut(|held| *held = ManuallyDrop::new(closed));
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
        use std::sync::mpsc;

        use super::*;
        use crate::capture::fork::{in_child, in_own_process, is_well};

        /// Does `first` on another thread, then `work` here, and then lets the other thread do `last`.
        fn between(first: impl FnOnce() + Send, work: impl FnOnce(), last: impl FnOnce() + Send) {
            let ((done, is_done), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    first();
                    done.send(()).unwrap();
                    let _ = may_go_on.recv();
                    last();
                });
                is_done.recv().unwrap();
                work();
                drop(go_on);
            });
        }

        fn enter() {
            std::mem::forget(Inside::enter());
        }

        /// Opens the gate as after a fork.
        fn open() {
            // SAFETY: it may be called in any thread.
            unsafe { after() };
        }

        /// Returns whether nobody who comes has to wait.
        fn is_open() -> bool {
            let began = Instant::now();
            unforked(|| ());
            close(LONGEST);
            open();
            began.elapsed() < LONGEST
        }

        /// Guards: a fork waits for such code. Afterwards the gate is open, in both processes.
        #[test]
        fn a_fork_waits_for_code_that_must_not_be_forked() {
            in_own_process(module_path!(), "a_fork_waits_for_code_that_must_not_be_forked", || {
                let (is_inside, inside) = mpsc::channel();
                std::thread::scope(|scope| {
                    let code = scope.spawn(move || {
                        unforked(|| {
                            is_inside.send(()).unwrap();
                            sleep(Duration::from_millis(200));
                            Instant::now()
                        })
                    });
                    inside.recv().unwrap();
                    in_child(is_open);
                    let forked = Instant::now();
                    assert!(code.join().unwrap() <= forked);
                });
                assert!(is_open());
            });
        }

        /// Guards: a fork does not wait for ever, and neither does whoever comes later in the child.
        #[test]
        fn a_fork_does_not_wait_for_ever() {
            in_own_process(module_path!(), "a_fork_does_not_wait_for_ever", || {
                unforked(|| ());
                between(enter, || in_child(is_open), || ());
            });
        }

        /// Guards: a child that was made without the handlers, while another thread forks, has a gate of its own.
        #[test]
        fn a_bare_child_finds_the_gate_open() {
            in_own_process(module_path!(), "a_bare_child_finds_the_gate_open", || {
                unforked(|| ());
                let fork = || {
                    // SAFETY: the child goes through the gate, which takes no other lock, and ends; no pointer is passed.
                    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
                    is_well(child as i32, is_open);
                };
                between(|| close(LONGEST), fork, open);
                assert!(is_open());
            });
        }

        /// Guards: neither a fork within such code nor such code within a fork waits for itself.
        #[test]
        fn no_thread_waits_for_itself() {
            in_own_process(module_path!(), "no_thread_waits_for_itself", || {
                let began = Instant::now();
                unforked(|| unforked(|| in_child(is_open)));
                close(LONGEST);
                unforked(|| in_child(is_open));
                open();
                assert!(began.elapsed() < LONGEST);
                assert!(is_open());
            });
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
