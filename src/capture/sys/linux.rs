//! Linux: thread ids, stack bounds, clocks and `/proc`.

use std::ops::Range;

pub(crate) use super::arch::{copy_words, interrupted, read_at, registers, wipe_stack};
#[cfg(target_arch = "aarch64")]
pub(crate) use super::arch::{returns_from_signal, saved_by_signal};

/// Whether stacks can be copied and threads captured.
pub(crate) const SUPPORTED: bool = true;

/// Returns the kernel's id of this thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::gettid() }
}

/// Returns the id of this process.
pub(crate) fn process_id() -> i32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::getpid() }
}

/// Returns an address in the frame of the function that this is inlined into, above its stack pointer. It isn't that of
/// a local variable, because with the address sanitizer those are elsewhere.
#[inline(always)]
pub(crate) fn frame_address(_local: &u8) -> usize {
    super::arch::stack_pointer() + 16
}

/// Returns the addresses of this thread's stack. They are empty if the system does not tell. Then nothing of it is ever
/// read.
pub(crate) fn stack_bounds() -> Range<usize> {
    let here = super::arch::stack_pointer();
    let told = told_stack_bounds();
    // For the main thread's stack, musl returns what is mapped at this moment, and glibc returns nothing without
    // `/proc`.
    let is_vague = cfg!(target_env = "musl") || !told.contains(&here);
    match main_stack().filter(|main| is_vague && main.contains(&here)) {
        Some(main) => main.start.min(if told.is_empty() { main.start } else { told.start })..main.end.max(told.end),
        None => told,
    }
}

/// Returns the stack that the kernel has made for the first thread, as far as it may grow. Nothing else is mapped
/// there.
pub(super) fn main_stack() -> Option<Range<usize>> {
    /// The kernel leaves at least this much below it to grow into.
    const GAP: u64 = 64 << 20;
    const PAGE: usize = 4096;
    // The kernel has put the path there first, so it is at the very end.
    let path = started_with()?;
    let end = (path.as_ptr().addr() + path.count_bytes()).checked_next_multiple_of(PAGE)?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the limit, or fails.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } == 0;
    let size = if known { limit.rlim_cur.min(GAP) } else { GAP };
    Some(end.checked_sub(size as usize)?..end)
}

/// Returns the path that this program was started with.
pub(crate) fn started_path() -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    Some(std::ffi::OsStr::from_bytes(started_with()?.to_bytes()).into())
}

fn started_with() -> Option<&'static std::ffi::CStr> {
    const AT_EXECFN: libc::c_ulong = 31;
    // SAFETY: looks up a number, the address of a string that the kernel has put above the first frame, where it stays.
    unsafe {
        let path = libc::getauxval(AT_EXECFN) as usize;
        (path != 0).then(|| std::ffi::CStr::from_ptr(std::ptr::with_exposed_provenance(path)))
    }
}

fn told_stack_bounds() -> Range<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: `pthread_getattr_np` fills in the attributes of a living thread, this one, or fails.
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

/// Returns the CPU time that a thread of this process has used, in nanoseconds.
pub(crate) fn cpu_time(tid: i32) -> Option<u64> {
    // The kernel's encoding of "the scheduler's clock of thread `tid`": CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    let clock = (!tid << 3) | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`. It fails if the id is gone.
    let ok = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    ok.then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Returns the CPU time that the calling thread has used, in nanoseconds.
pub(crate) fn own_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns how often the calling thread has given up the CPU by itself, to sleep or to wait for a lock.
pub(crate) fn own_sleeps() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: fills one `rusage`, whose fields are numbers. They stay zero if the system refuses.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw as u64
}

/// Keeps signals off this thread, because they belong to the application's threads. The exceptions are those about what
/// the thread itself has done. If they were blocked, a fault that a handler would fix would end the process.
pub(crate) fn block_signals() {
    // SAFETY: fills a set and applies it to this thread alone.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
        for signal in [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP] {
            libc::sigdelset(&raw mut all, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}
