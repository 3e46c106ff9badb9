//! How a worker tells the profiler inside its service that a request was sent.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::request::SentRequest;
use crate::profile::ProfileStore;
use crate::profile::flag::Start;
use crate::profile::id::Id;
use crate::profile::store::{Phase, SentJob};
use crate::sync::lock_std;

/// Goes with a request through the worker's service, as an extension. No client can add one.
#[derive(Clone)]
pub(in crate::profile) struct Delivery {
    pub(in crate::profile) id: Id,
    pub(in crate::profile) start: Start,
    pub(in crate::profile) sent: SentJob,
    pub(in crate::profile) asked_at: SystemTime,
    /// Where the worker looks for the profile.
    pub(super) store: ProfileStore,
    pub(super) principal: Option<String>,
    tell: Arc<Mutex<Option<Tell>>>,
}

/// Tells the worker how the job has ended, or why it did not begin.
pub(super) type Tell = oneshot::Sender<Result<Phase, String>>;
pub(super) type Told = oneshot::Receiver<Result<Phase, String>>;

impl Delivery {
    pub(super) fn new(id: Id, start: Start, sent: SentJob, store: ProfileStore, request: &SentRequest) -> (Self, Told) {
        let (tell, told) = oneshot::channel();
        let (asked_at, principal) = (request.asked_at, request.principal.clone());
        (Self { id, start, sent, asked_at, store, principal, tell: Arc::new(Mutex::new(Some(tell))) }, told)
    }

    /// Takes it, so that nobody else can.
    pub(super) fn take(&self) -> Option<Tell> {
        lock_std(&self.tell).take()
    }

    pub(super) fn is_taken(&self) -> bool {
        lock_std(&self.tell).is_none()
    }
}

impl fmt::Debug for Delivery {
    /// Leaves out who has asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("id", &self.id).finish_non_exhaustive()
    }
}
