//! Boxes every call of a function.

use super::{Limit, Timebox, timebox};

/// Boxes every call of an async function, like a decorator in other languages.
///
/// `limit` is a duration, which each call gets whole, a deadline, which is the same for all, or a reference to a
/// [`Quota`](super::Quota), which they share. A function with several arguments takes them as a tuple.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use heeler::timebox;
///
/// async fn lookup(host: &'static str) -> usize {
///     host.len()
/// }
///
/// # let block_on = |future| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
/// # block_on(async {
/// let lookup = timebox::function(Duration::from_secs(2), lookup);
/// assert_eq!(lookup("photos.example").label("lookup").await?, 14);
/// assert_eq!(lookup("mail.example").await?, 12);
/// # Ok::<(), heeler::Interrupted>(())
/// # }).unwrap();
/// ```
pub fn function<A, F, L>(limit: L, f: impl Fn(A) -> F) -> impl Fn(A) -> Timebox<F>
where
    F: Future,
    L: Into<Limit> + Clone,
{
    move |argument| timebox(limit.clone(), f(argument))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::executor::block_on;

    use super::*;

    /// Guards: each call has a limit of its own, and only those that take too long end by it.
    #[test]
    fn every_call_has_the_whole_limit() {
        let wait = function(Duration::from_millis(20), async |rounds: u32| match rounds {
            0 => std::future::pending().await,
            _ => rounds,
        });
        for _ in 0..3 {
            assert!(block_on(wait(0)).is_err());
            assert_eq!(block_on(wait(7)).unwrap(), 7);
        }
    }

    #[test]
    fn accepts_several_arguments_and_shared_limits() {
        let add = function(std::time::Instant::now() + Duration::from_secs(3_600), async |(a, b): (u32, u32)| a + b);
        assert_eq!(block_on(add((3, 4))).unwrap(), 7);
        let quota = crate::timebox::Quota::new(Duration::from_secs(3_600)).unwrap();
        let add = function(&quota, async |(a, b): (u32, u32)| a + b);
        assert_eq!(block_on(add((3, 4))).unwrap(), 7);
        assert!(!quota.running());
    }
}
