//! What the index says about a profile.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::profile::id::Id;
use crate::profile::{Outcome, Profile};
use crate::text::time::rfc3339;

/// A profile in one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) id: Id,
    #[serde(with = "rfc3339")]
    pub(crate) started_at: SystemTime,
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) route: Option<String>,
    /// The status of the response. `None` without one.
    pub(crate) status: Option<u16>,
    pub(crate) wall_nanos: u64,
    pub(crate) runs: u32,
    pub(crate) outcome: Outcome,
    /// The instance that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Why it was made, if a rule wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Summary {
    /// Summarises `profile`, whose id is `id`.
    pub(crate) fn new(id: Id, profile: &Profile) -> Self {
        Self {
            id,
            started_at: profile.started_at,
            method: profile.request.method.clone(),
            uri: profile.request.uri.clone(),
            route: profile.request.route.clone(),
            status: profile.response.as_ref().map(|response| response.status),
            wall_nanos: profile.wall_nanos,
            runs: profile.runs,
            outcome: profile.outcome.clone(),
            instance: Some(profile.process.instance_name()),
            reason: profile.reason.clone(),
        }
    }

    /// Returns whether somebody who may profile may see it. What a rule wanted belongs to everybody.
    pub(super) fn is_for(&self, principal: Option<&str>, owner: Option<&str>) -> bool {
        owner == principal || self.reason.is_some()
    }

    /// Returns whether each word of `query` is in the method, the URI or the route, ignoring case.
    pub(crate) fn matches(&self, query: &str) -> bool {
        let text = format!("{} {} {}", self.method, self.uri, self.route.as_deref().unwrap_or_default()).to_lowercase();
        query.split_whitespace().all(|word| text.contains(&word.to_lowercase()))
    }
}

impl fmt::Debug for Summary {
    /// Leaves out the request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Summary");
        debug.field("id", &self.id).field("wall_nanos", &self.wall_nanos).finish_non_exhaustive()
    }
}
