//! Finished profiles on their way to a Pyroscope server, where the layer has one.

use std::sync::Arc;
#[cfg(feature = "pyroscope")]
use std::time::Duration;

use super::Profile;
#[cfg(feature = "pyroscope")]
use super::{ProfileLayer, format, supervisor::SUPERVISOR};
#[cfg(feature = "pyroscope")]
use crate::{
    Error, Pyroscope,
    report::pyroscope::{Push, Pushes, Source, Target},
    report::{SinkError, SinkStats},
};

/// Where finished profiles are pushed, if anywhere.
#[derive(Debug, Clone, Default)]
pub(super) struct PushTo {
    #[cfg(feature = "pyroscope")]
    pub(super) pyroscope: Option<Arc<Pushes>>,
}

impl PushTo {
    /// Sends a finished profile on its way. Never waits. Failures are counted and logged.
    pub(super) fn push(&self, profile: &Arc<Profile>) {
        #[cfg(feature = "pyroscope")]
        if let Some(pushes) = &self.pyroscope {
            match SUPERVISOR.get().handle() {
                Ok(supervisor) => {
                    let profile = Arc::clone(profile);
                    pushes.push(&supervisor, move |target| made(&profile, target));
                }
                Err(error) => pushes.lost(&SinkError::permanent(error)),
            }
        }
        #[cfg(not(feature = "pyroscope"))]
        let _ = profile;
    }

    /// Returns whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        #[cfg(feature = "pyroscope")]
        let is_empty = self.pyroscope.as_ref().is_none_or(|pushes| pushes.stats().queued == 0);
        #[cfg(not(feature = "pyroscope"))]
        let is_empty = true;
        is_empty
    }

    /// Waits until each has arrived, or is given up.
    pub(super) async fn settled(&self) {
        #[cfg(feature = "pyroscope")]
        if let Some(pushes) = &self.pyroscope {
            pushes.settled().await;
        }
    }
}

#[cfg(feature = "pyroscope")]
impl ProfileLayer {
    /// Also pushes each profile to Pyroscope when it is done: see [`Pyroscope`]. Neither the request nor
    /// whoever waits for the profile waits for that.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting cannot be used, or if there is no way to verify certificates.
    #[cfg_attr(docsrs, doc(cfg(feature = "pyroscope")))]
    pub fn pyroscope(self, pyroscope: Pyroscope) -> Result<Self, Error> {
        let pushes = Arc::new(pyroscope.prepare_for_profiles()?);
        Ok(self.with(|layer| layer.push_to.pyroscope = Some(pushes)))
    }

    /// Returns how many profiles were pushed to Pyroscope, how many wait, and how many never will be. `None` without
    /// [`pyroscope`](Self::pyroscope).
    #[cfg_attr(docsrs, doc(cfg(feature = "pyroscope")))]
    #[must_use]
    pub fn pyroscope_stats(&self) -> Option<SinkStats> {
        self.push_to.pyroscope.as_ref().map(|pushes| pushes.stats())
    }
}

/// Returns what is pushed of a profile; `None` if it has no time.
#[cfg(feature = "pyroscope")]
fn made(profile: &Profile, target: &Target) -> Result<Option<Push>, SinkError> {
    let request = &profile.request;
    let job = request.is_job().then_some(&*request.uri);
    let labels =
        target.labels_of(request.route.as_deref(), job, request.trace_id.as_deref(), request.span_id.as_deref());
    let message = format::bounded_pprof(profile, &labels.each_ref().map(|(key, value)| (*key, &**value)));
    if message.sample.is_empty() {
        return Ok(None);
    }
    let wall = Duration::from_nanos(profile.wall_nanos);
    let until = profile.started_at.checked_add(wall).unwrap_or(profile.started_at);
    target.push(Source::Profile, &profile.process, &message, profile.started_at, until).map(Some)
}

#[cfg(all(test, feature = "pyroscope"))]
mod tests {
    use crate::profile::Request;

    /// Guards: a request with a method of a client's own choice does not pass for a job, whose name is a label.
    #[test]
    fn a_request_is_no_job_whatever_its_method() {
        let job = Request { method: "job".to_owned(), uri: "nightly import".to_owned(), ..Request::default() };
        assert!(job.is_job());
        assert!(!Request { version: "HTTP/1.1".to_owned(), ..job }.is_job());
    }
}
