//! The atomics and locks of the lock-free parts, so that loom can replace them (`HEELER_LOOM=1 cargo test --lib loom`).

#[cfg(not(all(test, heeler_loom)))]
pub(crate) use std::sync::atomic;

#[cfg(all(test, heeler_loom))]
pub(crate) use loom::sync::atomic;

/// A row's lock. It is held for some dozen instructions, almost always by the row's owner. The exceptions are the
/// monitor's rare looks, and threads that wake the row where its own waker is lent. So releasing it is a plain store,
/// where the standard library's lock has to look for sleepers.
#[cfg(not(all(test, heeler_loom)))]
pub(crate) type RowLock<T> = spin::mutex::SpinMutex<T, Patience>;
#[cfg(not(all(test, heeler_loom)))]
pub(crate) type RowGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;

#[cfg(all(test, heeler_loom))]
pub(crate) use loom::sync::{Mutex as RowLock, MutexGuard as RowGuard};

/// Takes a row's lock if it is free.
#[inline]
pub(crate) fn try_lock<T>(mutex: &RowLock<T>) -> Option<RowGuard<'_, T>> {
    #[cfg(not(all(test, heeler_loom)))]
    return mutex.try_lock();
    #[cfg(all(test, heeler_loom))]
    mutex.try_lock().ok()
}

/// Waits a little for a row's lock.
#[cold]
pub(crate) fn wait() {
    #[cfg(not(all(test, heeler_loom)))]
    <Patience as spin::RelaxStrategy>::relax();
    #[cfg(all(test, heeler_loom))]
    loom::thread::yield_now();
}

/// Waits for a row's lock. It sleeps, because the holder may have been interrupted and may have a lower priority.
#[cfg(not(all(test, heeler_loom)))]
#[derive(Debug)]
pub(crate) struct Patience;

#[cfg(not(all(test, heeler_loom)))]
impl spin::RelaxStrategy for Patience {
    #[cold]
    fn relax() {
        std::thread::sleep(std::time::Duration::from_micros(10));
    }
}

/// Takes a row's lock.
#[inline]
pub(crate) fn lock<T>(mutex: &RowLock<T>) -> RowGuard<'_, T> {
    #[cfg(not(all(test, heeler_loom)))]
    return mutex.lock();
    #[cfg(all(test, heeler_loom))]
    mutex.lock().unwrap()
}

/// Keeps a value for the life of the process. All of these values are on a list, because leak checkers report what
/// nothing points to.
pub(crate) fn keep<T: Send + Sync + 'static>(value: T) -> &'static T {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Kept<T> {
        value: T,
        before: AtomicUsize,
    }
    // Not under a lock: a child of `fork` would never get a lock that was held at the fork.
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let kept: &'static Kept<T> = Box::leak(Box::new(Kept { value, before: AtomicUsize::new(0) }));
    let (here, mut last) = (std::ptr::from_ref(kept).expose_provenance(), LAST.load(Ordering::Relaxed));
    loop {
        kept.before.store(last, Ordering::Relaxed);
        match LAST.compare_exchange_weak(last, here, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return &kept.value,
            Err(other) => last = other,
        }
    }
}

/// Adds one to a counter.
pub(crate) fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Adds `number` to a counter.
pub(crate) fn add(counter: &std::sync::atomic::AtomicU64, number: u64) {
    counter.fetch_add(number, std::sync::atomic::Ordering::Relaxed);
}

/// Locks, whether or not a holder has panicked. What heeler keeps under a lock is valid after every single statement.
pub(crate) fn lock_std<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
