//! Incidents of all instances of a service, for a console, which does not know how instances share them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::report::{Report, Reports};

/// The incidents of the fleet.
#[derive(Debug, Default)]
pub(crate) struct FleetView {
    /// Those with the latest report first.
    pub(crate) incidents: Vec<Arc<SharedIncident>>,
    /// How many names of instances there are. An instance that was started again has the same name.
    pub(crate) instances: usize,
    pub(crate) reports: u64,
    /// Reports for which the indexes had no line left.
    pub(crate) others: u64,
    /// Objects that could not be read.
    pub(crate) unreadable: usize,
    /// Objects that were not read, because all of them together are too long.
    pub(crate) left_out: usize,
    pub(crate) days: u32,
}

/// Reports of one fingerprint, of all instances.
#[derive(Debug, Clone)]
pub(crate) struct SharedIncident {
    pub(crate) fingerprint: String,
    /// Of the worst.
    pub(crate) sentence: String,
    pub(crate) reports: u64,
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
    pub(crate) worst: Duration,
    /// The names of its instances, with their reports, those with the most first.
    pub(crate) names: Vec<(Arc<str>, u64)>,
    /// The same by version. Those with the most reports first.
    pub(crate) instances: Vec<Affected>,
    /// By the first report of each.
    pub(crate) releases: Vec<Release>,
}

/// An instance with such reports, in one version.
#[derive(Debug, Clone)]
pub(crate) struct Affected {
    pub(crate) name: Arc<str>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    pub(crate) reports: u64,
    pub(crate) last: SystemTime,
}

/// A build with such reports.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) version: Option<Arc<str>>,
    pub(crate) build_id: Option<Arc<str>>,
    pub(crate) first: SystemTime,
    pub(crate) reports: u64,
}

/// One incident, with its first and its worst report as far as the store has them.
#[derive(Debug)]
pub(crate) struct SharedReports {
    pub(crate) incident: Arc<SharedIncident>,
    pub(crate) first: Option<Report>,
    pub(crate) worst: Option<Report>,
}

impl Reports {
    /// Returns whether this instance shares its incidents with others.
    pub(crate) fn is_in_fleet(&self) -> bool {
        #[cfg(feature = "fleet")]
        return self.member().is_some();
        #[cfg(not(feature = "fleet"))]
        false
    }

    /// Returns the incidents of all instances, or why they cannot be had. Waits for a store, some seconds at most. Do not
    /// call it on a thread that must not block.
    pub(crate) fn shared_incidents(&self) -> Result<FleetView, String> {
        #[cfg(feature = "fleet")]
        if let Some(member) = self.member() {
            return member.view();
        }
        Err("this instance is in no fleet".to_owned())
    }

    /// Returns one of them, with its reports. Waits like [`shared_incidents`](Self::shared_incidents).
    pub(crate) fn shared_reports(&self, fingerprint: &str) -> Result<Option<SharedReports>, String> {
        #[cfg(feature = "fleet")]
        if let Some(member) = self.member() {
            return member.view_of(fingerprint);
        }
        let _ = fingerprint;
        Ok(None)
    }
}
