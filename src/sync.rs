//! The atomics and locks of the lock-free parts, so that loom can take their place (`HEELER_LOOM=1 cargo test --lib loom`).

#[cfg(not(all(test, heeler_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, heeler_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

/// Locks, whether or not a holder has panicked: what heeler keeps under a lock is valid after every single statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// [`lock`] for a lock that loom does not model.
pub(crate) fn lock_std<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
