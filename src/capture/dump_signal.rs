//! A signal that the application chooses, by which somebody outside asks for a dump.

use std::fs::File;
use std::io::Read as _;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::sync::atomic::{AtomicI32, Ordering};

/// What the handler writes to, and the process that it was installed in. A child of `fork` has the handler, and nobody who
/// reads.
static WRITTEN: AtomicI32 = AtomicI32::new(-1);
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Tells when the signal has arrived. Its descriptor is never closed, because the handler writes to it for the life of the
/// process.
#[derive(Debug)]
pub(crate) struct DumpSignal(ManuallyDrop<File>);

impl DumpSignal {
    /// Installs a handler for a signal that has none. It is never removed, because a late signal would find the default
    /// disposition, which ends the process.
    pub(crate) fn install(signal: i32) -> Result<Self, &'static str> {
        let may_be = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGQUIT, libc::SIGHUP].contains(&signal)
            || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal);
        if !may_be {
            return Err(
                "not a signal that may ask for a dump: choose SIGUSR1, SIGUSR2, SIGQUIT, SIGHUP or a real-time signal",
            );
        }
        // SAFETY: makes a file descriptor, or fails.
        let counter = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if counter < 0 {
            return Err("the system has no file descriptor for it");
        }
        // SAFETY: it was just made, and is nobody else's.
        let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(counter) });
        let refuse = |file: &mut ManuallyDrop<File>, why| {
            // SAFETY: no handler knows it, and it is not used again.
            unsafe { ManuallyDrop::drop(file) };
            Err(why)
        };
        let mut current = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: reads the disposition into `current`, or fails.
        let read = unsafe { libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()) } == 0;
        // SAFETY: filled in by the call, if that has succeeded.
        if !read || unsafe { current.assume_init_ref() }.sa_sigaction != libc::SIG_DFL {
            return refuse(&mut file, "the signal is in use, or ignored");
        }
        if WRITTEN.compare_exchange(-1, counter, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return refuse(&mut file, "dumps are sent at a signal already");
        }
        // SAFETY: takes nothing, and cannot fail.
        PROCESS.store(unsafe { libc::getpid() }, Ordering::Release);
        // SAFETY: a zeroed `sigaction` is valid. The handler is async-signal-safe (see `handler`).
        let installed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            // On the alternate stack, as for captures.
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if installed != 0 {
            WRITTEN.store(-1, Ordering::Release);
            return refuse(&mut file, "the system refuses it");
        }
        Ok(Self(file))
    }

    /// Waits until the signal has arrived, once or more often. Returns false if it never will.
    pub(crate) fn wait(&mut self) -> bool {
        let mut count = [0; 8];
        loop {
            match self.0.read_exact(&mut count) {
                Ok(()) => return true,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// Counts the signal. It is async-signal-safe: it uses atomics and one system call, and leaves `errno` as it was.
extern "C" fn handler(_signal: i32) {
    // SAFETY: `errno` is this thread's, the rest are system calls. The descriptor is never closed: see
    // `DumpSignal`.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        if libc::getpid() == PROCESS.load(Ordering::Acquire) {
            let one = 1_u64;
            libc::write(WRITTEN.load(Ordering::Acquire), (&raw const one).cast(), 8);
        }
        *errno = before;
    }
}
