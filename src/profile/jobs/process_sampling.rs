//! Samples what the rest of the process does while a job's request runs, if that was asked for.

use crate::profile::ProcessProfile;
#[cfg(feature = "pprof")]
use crate::profile::process_profile::Watching;
#[cfg(feature = "pprof")]
use crate::profile::supervisor::apart;

/// Samples of the rest of the process, if that was asked for.
#[derive(Debug, Default)]
pub(super) struct ProcessSampling {
    #[cfg(feature = "pprof")]
    watching: Option<Result<Watching, String>>,
}

impl ProcessSampling {
    /// Begins to sample.
    #[cfg(feature = "pprof")]
    pub(super) async fn start() -> Self {
        Self { watching: apart(Watching::start).await }
    }

    #[cfg(not(feature = "pprof"))]
    pub(super) async fn start() -> Self {
        Self::default()
    }

    /// Ends, and returns what it saw. Problems are noted.
    #[cfg(feature = "pprof")]
    pub(super) async fn finish(self, notes: &mut Vec<String>) -> Option<ProcessProfile> {
        let seen = match self.watching? {
            Ok(watching) => apart(|| watching.finish()).await?,
            Err(why) => Err(why),
        };
        seen.map_err(|why| notes.push(why)).ok()
    }

    #[cfg(not(feature = "pprof"))]
    pub(super) async fn finish(self, _: &mut Vec<String>) -> Option<ProcessProfile> {
        None
    }
}
