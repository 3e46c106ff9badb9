//! What else is in flight when a report is made, and who of it may be the cause.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::inflight::Usage;
use crate::report::model::Location;
use crate::report::model::words::Activity;
use crate::text::time::millis;

/// Other work that is in flight: who waits at the same place, and who may keep them all waiting.
///
/// It is read from records that exist anyway: of requests and jobs that are past an eighth of their threshold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Others {
    /// How many other requests and jobs are past an eighth of their threshold.
    pub in_flight: u32,
    /// How many of them wait at the same place.
    pub at_same_place: u32,
    /// How long the first of these has been there, as far as observed.
    #[serde(rename = "longest_at_same_place_ms", with = "millis")]
    pub longest_at_same_place: Duration,
    /// What the work waits for by name: see [`acquire`](crate::acquire()).
    pub resource: Option<Contended>,
    /// Who keeps it waiting, the longest first: for certain, or likely.
    pub holders: Vec<Holder>,
    /// Where the others are. The place of the oldest comes first.
    pub places: Vec<OtherPlace>,
    /// What the runtime's blocking threads do, if the work may wait for one of them.
    pub blocking_pool: Option<BlockingPool>,
}

/// The threads of tokio's blocking pools: for `spawn_blocking`, file operations and looking up names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockingPool {
    /// How many there are whose stack could be read. A thread that computes has none, unless it was
    /// [registered](crate::register_thread).
    pub threads: u32,
    /// How many of them have nothing to do.
    pub idle: u32,
    /// How many other threads with the same names sleep somewhere that could not be read.
    pub unknown: u32,
    /// Whether the work waits for one of them to be free: none is idle, and none does what the work waits for.
    pub is_awaited: bool,
    /// Where the others are, the place with the most threads first.
    pub busy: Vec<BusyThreads>,
}

/// Blocking threads at one place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BusyThreads {
    /// How many are there.
    pub count: u32,
    /// The place.
    pub location: Option<Location>,
    /// The library function that is called there.
    pub calls: Option<String>,
}

impl Others {
    /// Returns everything in it that came from a request or from the application.
    pub(in crate::report) fn names_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let holders =
            self.holders.iter_mut().flat_map(|holder| std::iter::once(&mut holder.work).chain(&mut holder.resource));
        let places = self.places.iter_mut().flat_map(|place| &mut place.work);
        holders.chain(places).chain(self.resource.as_mut().map(|resource| &mut resource.name))
    }
}

/// A named thing that work waits for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contended {
    /// Its name.
    pub name: String,
    /// Why the wait does not end.
    #[serde(default)]
    pub finding: Finding,
    /// Whether it is known which instance is meant. A bare name may stand for many.
    pub certain: bool,
    /// How much of it is in use, if the application [says](crate::Resource::usage) so.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// How many hold it.
    pub holding: u32,
    /// How many others wait for it.
    pub queue: u32,
    /// Where the work asks for it.
    pub asked_at: Option<Location>,
}

/// Why a wait for a named thing does not end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// Others hold it.
    Held,
    /// Its holders wait, directly or not, for what this work holds: nobody can move on.
    Deadlock,
    /// Its holders are in a deadlock, which this work is not a part of.
    BehindDeadlock,
    /// This work holds it itself.
    Itself,
    /// It is free, and the next in line is another future of this work that is not polled any more.
    HandedOver,
    /// Nobody is known to hold it.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One who keeps others waiting.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Holder {
    /// Its request or job, or its thread.
    pub work: String,
    /// The [`id`](crate::Report::id) of reports about it, if heeler watches it.
    pub id: Option<String>,
    /// How long it has been running.
    #[serde(rename = "elapsed_ms", with = "millis::optional")]
    pub elapsed: Option<Duration>,
    /// The name of what it holds.
    pub resource: Option<String>,
    /// Since when it holds that.
    #[serde(rename = "held_ms", with = "millis::optional")]
    pub held: Option<Duration>,
    /// Where it took it.
    pub taken_at: Option<Location>,
    /// What it does.
    pub activity: Option<Activity>,
    /// Where it is: the place to look at first.
    pub location: Option<Location>,
    /// The application's own frames there, innermost first.
    pub path: Vec<Location>,
    /// Whether it is only likely that it is the cause.
    pub likely: bool,
    /// Why it is named.
    pub reason: Option<String>,
}

/// A place where other work is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OtherPlace {
    /// How many are there.
    pub count: u32,
    /// How long the first of them has been there, as far as observed.
    #[serde(rename = "longest_ms", with = "millis")]
    pub longest: Duration,
    /// What they do.
    pub activity: Activity,
    /// The oldest of them.
    pub work: Vec<String>,
    /// The place.
    pub location: Option<Location>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Deadlock => "deadlock",
            Self::BehindDeadlock => "behind a deadlock",
            Self::Itself => "held by itself",
            Self::HandedOver => "handed to a future that is not polled",
            Self::Unknown => "nobody is known to hold it",
        })
    }
}
