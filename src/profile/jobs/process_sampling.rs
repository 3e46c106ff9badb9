//! What the rest of the process does while a job's request runs, where that is asked for.

use crate::profile::ProcessProfile;
#[cfg(feature = "pprof")]
use crate::profile::process_profile::Watching;
#[cfg(feature = "pprof")]
use crate::profile::supervisor::apart;

/// A look at the rest of the process, if there is one.
#[derive(Debug, Default)]
pub(super) struct ProcessSampling {
    #[cfg(feature = "pprof")]
    watching: Option<Result<Watching, String>>,
}

impl ProcessSampling {
    /// Begins.
    #[cfg(feature = "pprof")]
    pub(super) async fn start() -> Self {
        Self { watching: apart(Watching::start).await }
    }

    #[cfg(not(feature = "pprof"))]
    pub(super) async fn start() -> Self {
        Self::default()
    }

    /// What it saw. What went wrong is noted.
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
