//! Platforms on which threads cannot be captured.

use super::{Outcome, Sample};
use crate::capture::ThreadSlot;

const WHY: &str = "this platform or build has no thread stacks";

pub(crate) fn install(_signal: i32) -> Result<(), &'static str> {
    Err(WHY)
}

/// A sampler that captures nothing.
#[derive(Debug)]
pub(crate) struct Sampler;

impl Sampler {
    pub(crate) fn new(_signal: Option<i32>) -> Self {
        Self
    }

    pub(crate) fn signal(&self) -> Result<i32, &'static str> {
        Err(WHY)
    }

    pub(crate) fn capture(&mut self, _slot: &'static ThreadSlot, _sequence: u64) -> Outcome {
        Outcome::Unavailable(WHY)
    }

    pub(crate) fn capture_outside(
        &mut self,
        slot: &'static ThreadSlot,
    ) -> Option<(crate::capture::Activity, Option<crate::capture::Snapshot>)> {
        slot.with_life(|life| (crate::capture::look(life.tid), None))
    }

    pub(crate) fn look_at(&mut self, _activity: &crate::capture::Activity) -> Option<(crate::capture::Snapshot, bool)> {
        None
    }

    pub(crate) fn sample(&mut self, _slot: &'static ThreadSlot, _sequence: u64, _cpu: u64, _runs: bool) -> Sample {
        Sample::Lost
    }
}
