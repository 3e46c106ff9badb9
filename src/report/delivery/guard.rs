//! Waiting for futures of other people's code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::slot::panicked;
use crate::report::sink::{Delivery, SinkError};

/// No attempt may take longer, whatever timeouts a sink has of its own.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(5 * 60);

/// Waits for an attempt. A panic is a permanent failure, and an attempt that doesn't end is a transient one.
pub(super) async fn attempt<'a>(start: impl FnOnce() -> Delivery<'a>) -> Result<(), SinkError> {
    let mut delivery = DroppedSafely(Some(catch_unwind(AssertUnwindSafe(start)).map_err(panicked)?));
    let caught = std::future::poll_fn(move |context| {
        let Some(delivery) = &mut delivery.0 else { return Poll::Pending };
        let poll = catch_unwind(AssertUnwindSafe(|| Pin::new(delivery).poll(context)));
        poll.unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic))))
    });
    tokio::time::timeout(LONGEST_ATTEMPT, caught)
        .await
        .unwrap_or_else(|_| Err(SinkError::transient("it did not end within five minutes")))
}

/// An attempt that may panic when it is dropped. Such a panic says nothing about how the attempt ended.
struct DroppedSafely<'a>(Option<Delivery<'a>>);

impl Drop for DroppedSafely<'_> {
    fn drop(&mut self) {
        let delivery = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(delivery)));
    }
}
