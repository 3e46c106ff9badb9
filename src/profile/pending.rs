//! Profiles of work that is over, until they are kept: a process that ends must not lose them.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::ProfileLayer;
use super::jobs::both;
use super::supervisor::SUPERVISOR;
use crate::capture::PerProcess;

/// How many profiles of a layer are not kept yet.
#[derive(Clone)]
pub(super) struct Pending(Arc<PerProcess<Waiting>>);

#[derive(Default)]
struct Waiting {
    profiles: AtomicUsize,
    settled: Notify,
}

/// A profile that is not kept yet.
pub(super) struct Unkept(Pending);

impl Default for Pending {
    fn default() -> Self {
        Self(Arc::new(PerProcess::new(Waiting::default)))
    }
}

impl Pending {
    /// Counts a profile until the value is dropped.
    pub(super) fn begin(&self) -> Unkept {
        self.0.get().profiles.fetch_add(1, Ordering::Relaxed);
        Unkept(self.clone())
    }

    fn is_empty(&self) -> bool {
        self.0.get().profiles.load(Ordering::Acquire) == 0
    }

    /// Waits until there is none.
    async fn settled(&self) {
        loop {
            let mut settled = pin!(self.0.get().settled.notified());
            // From here on it is notified of everything.
            settled.as_mut().enable();
            if self.is_empty() {
                return;
            }
            settled.await;
        }
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let waiting = self.0.0.get();
        // A child of a fork has a count of its own, in which its parent's profiles are not.
        let less = |profiles: usize| profiles.checked_sub(1);
        let _ = waiting.profiles.fetch_update(Ordering::Release, Ordering::Relaxed, less);
        waiting.settled.notify_waiters();
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.0.get().profiles).finish()
    }
}

impl ProfileLayer {
    /// Waits until the profile of each request and job that is over is in the [store](Self::store), or could not be kept, and
    /// until Pyroscope has it, if the layer has one. Call it before the process ends: a profile is made and kept a moment after
    /// the work that it is about.
    ///
    /// It also waits for requests that are being profiled because somebody has asked. Returns false if all that takes longer
    /// than `timeout`: what is still on its way is then lost with the process. Pyroscope is tried again at once, if it failed
    /// before. Works on any executor.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use heeler::{ProfileLayer, authorize};
    /// # async fn import() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let layer = ProfileLayer::new(authorize::debug_builds());
    /// layer.job("nightly import", import()).await;
    /// if !layer.flush(Duration::from_secs(5)).await {
    ///     eprintln!("a profile was not kept in time");
    /// }
    /// # }
    /// ```
    #[must_use = "it says whether nothing is on its way any more"]
    pub async fn flush(&self, timeout: Duration) -> bool {
        if self.pending.is_empty() && self.push_to.is_empty() {
            return true;
        }
        // The calling executor may know nothing of tokio's time.
        let Ok(supervisor) = SUPERVISOR.get().handle() else { return false };
        let (pending, push_to) = (self.pending.clone(), self.push_to.clone());
        let flush = async move {
            // What waits for another attempt does not wait for profiles that are still made.
            both(pin!(pending.settled()), pin!(push_to.settled())).await;
            // These are pushed once they are made.
            push_to.settled().await;
        };
        let flushed = supervisor.spawn(async move { tokio::time::timeout(timeout, flush).await });
        flushed.await.is_ok_and(|ended| ended.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Guards: whoever waits is told when the last one is kept, and not before.
    #[test]
    fn the_last_one_is_waited_for() {
        let pending = Pending::default();
        assert!(pending.settled().now_or_never().is_some());
        let (one, other) = (pending.begin(), pending.begin());
        let mut waits = pin!(pending.settled());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(other);
        assert!(waits.as_mut().now_or_never().is_none());
        drop(one);
        assert!(waits.now_or_never().is_some());
    }
}
