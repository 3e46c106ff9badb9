//! Whether the store heeds conditions. Without them, no instance can be the only one to tell people.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::member::{Conditions, Member};
use super::records::encode;
use super::store::{Failure, Heeds};
use crate::log::{TARGET, log_safely};
use crate::sync::lock_std;

/// After which time it is tried out again whether a store heeds conditions that has failed each request with one.
const AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

impl Member {
    /// Returns whether the store heeds conditions. Tries it out the first time, and again after a while if the answer was not clear.
    pub(super) async fn find_conditions(self: &Arc<Self>) -> Result<Conditions, Failure> {
        let known = self.conditions();
        if known != Conditions::Unknown {
            let is_due = |at: &mut Instant| at.elapsed() >= AGAIN_AFTER;
            // Nobody waits for it meanwhile.
            if lock_std(&self.doubted).take_if(is_due).is_some() {
                let member = Arc::clone(self);
                self.runtime.spawn(async move {
                    if member.probe().await.is_err() {
                        *lock_std(&member.doubted) = Some(Instant::now());
                    }
                });
            }
            return Ok(known);
        }
        // One tries it out, and the others wait for it: two that did it with one object would mislead each other.
        let _probing = self.probing.lock().await;
        match self.conditions() {
            Conditions::Unknown => self.probe().await,
            known => Ok(known),
        }
    }

    /// Tries out whether the store heeds conditions.
    async fn probe(&self) -> Result<Conditions, Failure> {
        let path = self.layout.probe(&self.id);
        let heeds = self.store.heeds_conditions(&path, encode(&self.a_claim())).await?;
        let found = if heeds == Heeds::Yes { Conditions::Heeded } else { Conditions::Ignored };
        let before = self.conditions.swap(found as u8, Relaxed);
        *lock_std(&self.doubted) = (heeds == Heeds::ItFails).then(Instant::now);
        if found == Conditions::Ignored && before != found as u8 {
            log_safely(|| {
                tracing::error!(target: TARGET, "the store of the fleet ignores or rejects conditions (`PutMode::Create`): each instance tells people for itself");
            });
        }
        // What is left of it does no harm, and is removed with the rest.
        let _ = self.store.remove(&path).await;
        Ok(found)
    }
}
