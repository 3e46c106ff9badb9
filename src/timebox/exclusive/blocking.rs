//! A job of plain code that never runs twice at once.

use std::path::Path;

use super::error::ExclusiveError;
use super::future::labelled;
use super::lock::Lock;
use crate::timebox::{Interrupted, Limit, blocking};

/// Runs a job of plain code that must never run twice at once, within a time limit.
///
/// It combines [`exclusive`](crate::timebox::exclusive) and [`blocking`](crate::timebox::blocking()). See there for
/// what `job` may be, where its lock is, and how the closure notices that its time is over. The lock is held until the
/// closure returns, which may be later than the limit.
///
/// # Errors
///
/// Returns the error of the closure. If another run holds the lock, or the lock cannot be taken at all, it returns an
/// [`ExclusiveError`] before the closure is called. `E` may be [`ExclusiveError`], [`std::io::Error`], a boxed error or
/// one of your own.
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
/// use heeler::timebox::{ExclusiveError, checkpoint, exclusive_blocking};
///
/// # fn parts() -> [u32; 2] { [3, 4] }
/// let sum = exclusive_blocking("/var/lib/app/sum.lock", Duration::from_secs(600), || {
///     let mut sum = 0;
///     for part in parts() {
///         checkpoint()?;
///         sum += part;
///     }
///     Ok::<_, ExclusiveError>(sum)
/// })?;
/// # Ok::<(), ExclusiveError>(())
/// ```
pub fn exclusive_blocking<T, E>(
    job: impl AsRef<Path>,
    limit: impl Into<Limit>,
    f: impl FnOnce() -> Result<T, E>,
) -> Result<T, E>
where
    E: From<Interrupted> + From<ExclusiveError>,
{
    let _lock = Lock::take(job.as_ref())?;
    blocking(labelled(limit.into(), job.as_ref()), f)
}
