//! Linux: thread ids, stack bounds, clocks and `/proc`.

use std::ops::Range;

pub(crate) use super::arch::{copy_words, interrupted, registers, wipe_stack};

/// Stacks can be copied, threads captured.
pub(crate) const SUPPORTED: bool = true;

/// The kernel's id of this thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::gettid() }
}

/// The addresses of this thread's stack; empty if the system does not tell, and then nothing of it is ever read.
pub(crate) fn stack_bounds() -> Range<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: `pthread_getattr_np` fills in the attributes of a living thread, this one, or says that it failed.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return 0..0;
    }
    let mut address = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes were filled in above, and are destroyed once, here.
    let found = unsafe {
        let found = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut address, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        found
    };
    if found != 0 { 0..0 } else { address as usize..address as usize + size }
}

/// CPU time that a thread of this process has used, in nanoseconds.
pub(crate) fn cpu_time(tid: i32) -> Option<u64> {
    // The kernel's encoding of "the scheduler's clock of thread `tid`": CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    let clock = (!tid << 3) | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`; an id that is gone makes it fail.
    let ok = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    ok.then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CPU time that the calling thread has used, in nanoseconds.
pub(crate) fn own_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Keeps all signals off this thread: they belong to the application's threads.
pub(crate) fn block_signals() {
    // SAFETY: fills a set and applies it to this thread alone.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}
