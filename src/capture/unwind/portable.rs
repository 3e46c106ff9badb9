//! Where stacks are walked, there is nothing left to unwind.

use super::{Address, End, Unwound};
use crate::capture::snapshot::{Data, Snapshot};

/// Passes on what was walked.
#[derive(Debug)]
pub(crate) struct Unwinder;

impl Unwinder {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn refresh(&mut self) -> bool {
        false
    }

    /// Passes on what was walked, because no instruction is looked at.
    pub(crate) fn unwind_with_tail_calls(&mut self, snapshot: &Snapshot) -> Unwound {
        self.unwind(snapshot)
    }

    pub(crate) fn unwind(&mut self, snapshot: &Snapshot) -> Unwound {
        let Data::Walked(addresses) = &snapshot.data else {
            return Unwound { addresses: Vec::new(), complete: false, end: End::Known };
        };
        let addresses = addresses.iter().map(|pc| Address {
            pc: *pc,
            is_return: true,
            module: None,
            relative: *pc,
            has_left: false,
        });
        Unwound { addresses: addresses.collect(), complete: !snapshot.truncated, end: End::Known }
    }
}
