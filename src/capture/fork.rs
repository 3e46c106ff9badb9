//! Which process this is. A child of `fork` has a copy of everything but the threads, and must not use any of it.
//!
//! At the moment of the fork, a lock may be held by a thread that the child does not have. The monitor and the reporter
//! are such threads. So what heeler keeps under locks, and the threads that use it, belong to one process. A
//! [`PerProcess`] starts anew in the child, and rows and thread slots carry the number of the process that made them.
//!
//! The kernel shows that there was a fork: one page of memory reads as zeros in the child (`MADV_WIPEONFORK`, Linux
//! 4.14), whichever system call made it. If the kernel does not know that advice, a handler of `pthread_atfork` stores
//! the zero. On platforms other than Linux a fork is not noticed.

use std::fmt;
use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

/// How many forks in a row, each the child of the one before, are distinguished. Work of later ones is not watched.
pub(crate) const MAX_PROCESSES: usize = 64;

/// How long a thread of heeler's own runtimes waits for more blocking work: not at all.
///
/// If tokio uses `parking_lot`, a thread that waits is in a table of the process. The child of a fork has a copy, which points to
/// the memory of threads that it does not have and that its own threads reuse, and wake-ups get lost.
pub(crate) const KEEP_ALIVE: Duration = Duration::ZERO;

/// The word before the first [`start`], and where the kernel doesn't wipe pages.
static PLAIN: AtomicU32 = AtomicU32::new(1);
/// The word: the process's number plus one, or zero right after a fork.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const PLAIN).cast_mut());
/// The number that was written last. It is the parent's until the child has its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Returns how many forks lie between this process and the one that loaded heeler first. It stops at [`MAX_PROCESSES`].
#[inline]
pub(crate) fn process_number() -> u32 {
    // SAFETY: it points to a static, or to a page that is never unmapped; both hold an aligned word that all threads
    // access as an atomic. After a fork the page is there, filled with zeros.
    let word = unsafe { &*WORD.load(Ordering::Acquire) };
    match word.load(Ordering::Relaxed) {
        0 => number_anew(word),
        number => number - 1,
    }
}

/// Assigns a number at the first call after a fork.
#[cold]
#[inline(never)]
fn number_anew(word: &AtomicU32) -> u32 {
    let parents = NUMBER.load(Ordering::Acquire);
    let next = (parents + 1).min(MAX_PROCESSES as u32);
    // If several threads get here, one writes the number, and the others take what it has written. This comes first,
    // because a child that another thread forks in between counts from it.
    let _ = NUMBER.compare_exchange(parents, next, Ordering::AcqRel, Ordering::Acquire);
    match word.compare_exchange(0, next + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(written) => written - 1,
    }
}

/// Makes forks noticed from here on, in this process and all its descendants, and has them wait for code that must not
/// be forked in the middle.
pub(crate) fn notice_forks() {
    // No lock, because a fork of another thread would copy it. What is done twice, by two threads, does no harm.
    #[cfg(target_os = "linux")]
    {
        static IS_NOTICED: AtomicBool = AtomicBool::new(false);
        if !IS_NOTICED.load(Ordering::Acquire) {
            match wiped_page() {
                Some(page) => {
                    page.store(1, Ordering::Relaxed);
                    let (plain, page) = ((&raw const PLAIN).cast_mut(), std::ptr::from_ref(page).cast_mut());
                    let _ = WORD.compare_exchange(plain, page, Ordering::AcqRel, Ordering::Relaxed);
                }
                // SAFETY: the handler stores one word, which is allowed between a fork and whatever comes next.
                None => drop(unsafe { libc::pthread_atfork(None, None, Some(wipe)) }),
            }
            super::unforked::have_forks_wait();
            IS_NOTICED.store(true, Ordering::Release);
        }
    }
}

/// Runs a test of this file's module, which forks or is in the way of others, in a process of its own.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn in_own_process(module: &str, test: &str, body: impl FnOnce()) {
    const ALONE: &str = "HEELER_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return body();
    }
    let name = format!("{}::{test}", module.split_once("::").expect("the crate comes first").1);
    let mut command = std::process::Command::new(std::env::current_exe().expect("it runs"));
    let output = command.args(["--exact", &name, "--nocapture"]).env(ALONE, test).output().expect("it starts");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{why}");
}

#[cfg(target_os = "linux")]
unsafe extern "C" fn wipe() {
    PLAIN.store(0, Ordering::Relaxed);
}

/// Maps a page of zeros, which is zeros again in each child of `fork`. It stays for the life of the process.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<&'static AtomicU32> {
    // SAFETY: takes no argument but a constant, and touches nothing.
    let size = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: asks for memory of its own, wherever the kernel puts it.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page mapped above, whole, which nothing else knows of.
    if unsafe { libc::madvise(page, size, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above.
        unsafe { libc::munmap(page, size) };
        return None;
    }
    // SAFETY: it is never unmapped, holds zeros, which are an atomic's, and is aligned for it. Only atomics use it.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

/// Forks. The child runs `work`, which returns whether all is well, and ends.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child goes on with this thread alone, which heeler supports.
    is_well(unsafe { libc::fork() }, work);
}

/// The same after a fork, of which `child` is the result.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn is_well(child: i32, work: impl FnOnce() -> bool) {
    if child == 0 {
        // SAFETY: ends the child if it hangs.
        unsafe { libc::alarm(60) };
        let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends the child without running destructors.
        unsafe { libc::_exit(i32::from(!is_well)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made before.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child is not well");
}

/// A value that each process has for itself, made when it is first used.
///
/// The parent's value stays where it is, untouched, because it may be in the middle of a change.
pub(crate) struct PerProcess<T: 'static, F = fn() -> T> {
    values: [OnceLock<Box<T>>; MAX_PROCESSES + 1],
    make: F,
}

impl<T, F> PerProcess<T, F> {
    pub(crate) const fn new(make: F) -> Self {
        Self { values: [const { OnceLock::new() }; MAX_PROCESSES + 1], make }
    }
}

impl<T, F> fmt::Debug for PerProcess<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

impl<T, F> Drop for PerProcess<T, F> {
    fn drop(&mut self) {
        let own = process_number() as usize;
        let of_others = self.values.iter_mut().enumerate().filter(|(number, _)| *number != own);
        of_others.filter_map(|(_, value)| value.take()).for_each(std::mem::forget);
    }
}

impl<T, F: Fn() -> T> PerProcess<T, F> {
    /// Returns this process's value.
    pub(crate) fn get(&self) -> &T {
        self.values[process_number() as usize].get_or_init(|| Box::new((self.make)()))
    }

    /// Returns this process's value, or else the one of the nearest ancestor that has one: for values that never change, which
    /// a child could perhaps not find out any more, and that hold no lock.
    pub(crate) fn settled(&self) -> &T {
        self.existing().or_else(|| self.parent()).unwrap_or_else(|| self.get())
    }

    /// Returns the value of the nearest ancestor that has one. Callers must not wait for a lock in it.
    pub(crate) fn parent(&self) -> Option<&T> {
        self.values[..process_number() as usize].iter().rev().find_map(OnceLock::get).map(|value| &**value)
    }

    /// Returns the value of that process, which is this one or an ancestor, if it has one. Callers must not wait for a
    /// lock in it.
    pub(crate) fn of(&self, process: u32) -> Option<&T> {
        self.values.get(process as usize)?.get().map(|value| &**value)
    }

    /// Returns this process's value, if it has one already.
    pub(crate) fn existing(&self) -> Option<&T> {
        self.values[process_number() as usize].get().map(|value| &**value)
    }
}
