//! A function whose every call is boxed.

use super::{Limit, Timebox, timebox};

/// Boxes every call of an async function: what a decorator is elsewhere.
///
/// `limit` is a duration, which each call gets whole, a deadline, which is the same for all, or a quota, which they share. A
/// function of several arguments takes them as a tuple.
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
