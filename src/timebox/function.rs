//! A function whose every call is boxed.

use super::{Limit, Timebox, timebox};

/// Boxes every call of an async function: what a decorator is elsewhere.
///
/// Each call gets the whole limit, beginning with the first poll of its future. Calls boxed by one
/// [`Quota`](crate::Quota) share it, and a deadline is the same for all.
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
/// assert_eq!(lookup("photos.example").await?, 14);
/// assert_eq!(lookup("mail.example").await?, 12);
/// # Ok::<(), heeler::Interrupted>(())
/// # }).unwrap();
/// ```
pub fn function<A, F: Future>(limit: impl Into<Limit>, f: impl Fn(A) -> F) -> impl Fn(A) -> Timebox<F> {
    let limit = limit.into();
    move |argument| timebox(limit.clone(), f(argument))
}
