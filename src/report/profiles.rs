//! Stored profiles, for a console, which does not know the tool that makes them.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use crate::capture::PerProcess;
use crate::sync::lock_std;

/// Where somebody keeps profiles. Both functions may wait for a store, a few seconds at most. Do not call them on a thread
/// that must not block.
pub(crate) trait Profiles: Send + Sync {
    /// Returns an address that only those have in common that keep them in the same place.
    fn place(&self) -> usize;

    /// Returns the last ones that `principal` may see, the latest first, or why there are none to be had.
    fn recent(&self, principal: Option<&str>) -> Result<Vec<ProfileLine>, String>;

    /// Returns one of them in that form, without what the client got, or `None` if there is none.
    fn read(&self, id: &str, principal: Option<&str>, form: ProfileForm) -> Result<Option<Vec<u8>>, String>;
}

/// A form of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProfileForm {
    /// A flamegraph.
    Svg,
    Json,
}

/// A profile, as a list shows it.
#[derive(Debug, Clone)]
pub(crate) struct ProfileLine {
    pub(crate) id: String,
    pub(crate) started_at: SystemTime,
    /// `GET /photos?page=2`
    pub(crate) request: String,
    /// The status, or how else it ended.
    pub(crate) ended: String,
    pub(crate) time: Duration,
    /// The instance that made it.
    pub(crate) instance: Option<String>,
    /// Why it was made, if a rule wanted it.
    pub(crate) reason: Option<String>,
}

static KNOWN: PerProcess<Mutex<Vec<Weak<dyn Profiles>>>> = PerProcess::new(Mutex::default);

/// Makes profiles known for as long as they exist.
#[cfg(feature = "profile")]
pub(crate) fn make_known(profiles: Weak<dyn Profiles>) {
    let mut known = lock_std(KNOWN.get());
    known.retain(|other| other.strong_count() > 0);
    known.push(profiles);
}

/// The number of lines in a list.
const MAX_LINES: usize = 100;

/// Returns the last profiles of the process that `principal` may see, the latest first, and what could not be read.
pub(crate) fn recent(principal: Option<&str>) -> (Vec<ProfileLine>, Vec<String>) {
    let (mut lines, mut errors) = (Vec::<ProfileLine>::new(), Vec::new());
    for profiles in known() {
        match profiles.recent(principal) {
            Ok(some) => lines.extend(some),
            Err(error) => errors.push(error),
        }
    }
    // Two stores may keep them in one place.
    lines.sort_by(|one, other| (other.started_at, &other.id).cmp(&(one.started_at, &one.id)));
    lines.dedup_by(|one, other| one.id == other.id);
    lines.truncate(MAX_LINES);
    errors.dedup();
    (lines, errors)
}

/// Returns one profile in that form, or why it cannot be had.
pub(crate) fn read(id: &str, principal: Option<&str>, form: ProfileForm) -> Result<Option<Vec<u8>>, String> {
    let mut result = Ok(None);
    for profiles in known() {
        match profiles.read(id, principal, form) {
            Ok(Some(profile)) => return Ok(Some(profile)),
            Ok(None) => {}
            Err(error) => result = Err(error),
        }
    }
    result
}

fn known() -> Vec<Arc<dyn Profiles>> {
    let mut known: Vec<Arc<dyn Profiles>> = lock_std(KNOWN.get()).iter().filter_map(Weak::upgrade).collect();
    // Layers may share a store, which need not be asked twice.
    known.sort_by_key(|profiles| profiles.place());
    known.dedup_by_key(|profiles| profiles.place());
    known
}
