//! Plain code with a limit.

use super::core::Core;
use super::{Interrupted, Limit};
use crate::inflight::PolicyId;

/// Runs `f` with a limit that its [`checkpoint`](super::checkpoint)s know. Once the limit has passed, the next one
/// returns [`Interrupted`].
///
/// Nothing can stop plain code from outside. If `f` reaches no checkpoint for a while after its limit, a report with
/// the stack of its thread says so, once. This function returns what `f` returns: a late value still counts, and an
/// `Interrupted` of a box further out passes through. A limit of zero, or a deadline that has passed, interrupts before
/// `f` is called.
///
/// # Errors
///
/// Returns the error of `f`, or [`Interrupted`] if there is no time at all.
///
/// ```
/// use std::time::Duration;
/// use heeler::{Interrupted, checkpoint, timebox};
///
/// fn count(until: u64) -> Result<u64, Interrupted> {
///     timebox::blocking(Duration::from_millis(20), || {
///         let mut sum = 0_u64;
///         for number in 0..until {
///             checkpoint()?;
///             sum = sum.wrapping_add(number);
///         }
///         Ok(sum)
///     })
/// }
///
/// assert_eq!(count(10)?, 45);
/// assert!(count(u64::MAX).is_err());
/// # Ok::<(), Interrupted>(())
/// ```
pub fn blocking<T, E>(limit: impl Into<Limit>, f: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    E: From<Interrupted>,
{
    let mut core = Core::closed(limit.into());
    core.open(PolicyId::NONE, |_| {});
    if core.is_up() {
        let interrupted = core.interrupt();
        core.end();
        return Err(interrupted.into());
    }
    let result = core.run(f);
    core.end();
    result
}
