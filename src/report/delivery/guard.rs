//! Waiting for other people's futures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use super::slot::panicked;
use crate::report::sink::{Delivery, Failure};

/// No attempt takes longer, whatever timeouts a remote has of its own.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(5 * 60);

/// Waits for an attempt. A panic is a failure for good; one that does not end, a failure for now.
pub(super) async fn attempt<'a>(start: impl FnOnce() -> Delivery<'a>) -> Result<(), Failure> {
    let mut delivery = catch_unwind(AssertUnwindSafe(start)).map_err(panicked)?;
    let caught = std::future::poll_fn(move |context| {
        let poll = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut delivery).poll(context)));
        poll.unwrap_or_else(|panic| std::task::Poll::Ready(Err(panicked(panic))))
    });
    tokio::time::timeout(LONGEST_ATTEMPT, caught)
        .await
        .unwrap_or_else(|_| Err(Failure::transient("it did not end within five minutes")))
}
