//! Tracks which sinks have a report, and which are still to get it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::kept::Kept;
use super::spool::SpoolFile;
use crate::report::model::fleet::FleetIncident;
use crate::sync::lock_std;

/// What is kept about a report until every sink has it, or has given it up.
#[derive(Debug)]
pub(super) struct Receipt {
    /// The report's position in the order in which reports were accepted.
    pub(super) number: u64,
    left: Mutex<Left>,
    /// Its file in the spool, if there is a spool and it took the report.
    pub(super) file: Option<SpoolFile>,
}

#[derive(Debug)]
struct Left {
    /// Indices of the sinks that are still to get it.
    sinks: BTreeSet<usize>,
    given_up: bool,
}

/// The outcome for one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Outcome {
    Taken,
    GivenUp,
}

/// The state of a report after one more sink is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Other sinks are still to get it.
    Open,
    /// Every sink has it.
    Delivered,
    /// At least one sink gave it up, and none is left.
    Undelivered,
}

impl Receipt {
    pub(super) fn new(number: u64, sinks: BTreeSet<usize>, file: Option<SpoolFile>) -> Self {
        Self { number, left: Mutex::new(Left { sinks, given_up: false }), file }
    }

    /// Returns the sinks that are still to get it.
    pub(super) fn left(&self) -> BTreeSet<usize> {
        lock_std(&self.left).sinks.clone()
    }

    /// Records that one sink is done with it.
    pub(super) fn settle(&self, sink: usize, outcome: Outcome) -> Standing {
        let mut left = lock_std(&self.left);
        left.sinks.remove(&sink);
        left.given_up |= outcome == Outcome::GivenUp;
        match (left.sinks.is_empty(), left.given_up) {
            (false, _) => Standing::Open,
            (true, false) => Standing::Delivered,
            (true, true) => Standing::Undelivered,
        }
    }
}

impl Entry {
    /// Returns how many bytes the report takes in memory. For one that is only in the spool, these are about as many as its file has.
    pub(super) fn bytes(&self) -> usize {
        let in_file = || self.receipt.file.as_ref().map_or(0, |file| usize::try_from(file.bytes).unwrap_or(usize::MAX));
        self.report.as_ref().map_or_else(in_file, |kept| kept.bytes())
    }
}

/// A report in the queue of one sink.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) receipt: Arc<Receipt>,
    /// `None` if it is only in the spool.
    pub(super) report: Option<Arc<Kept>>,
    /// What it tells people about the other instances, for a sink that tells people.
    pub(super) fleet: Option<Arc<FleetIncident>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sink_decides_the_outcome() {
        let receipt = |sinks: &[usize]| Receipt::new(0, sinks.iter().copied().collect(), None);
        let one = receipt(&[0, 2]);
        assert_eq!(one.settle(2, Outcome::Taken), Standing::Open);
        assert_eq!(one.settle(0, Outcome::Taken), Standing::Delivered);
        let other = receipt(&[0, 1]);
        assert_eq!(other.settle(0, Outcome::GivenUp), Standing::Open);
        assert_eq!(other.settle(1, Outcome::Taken), Standing::Undelivered);
    }
}
