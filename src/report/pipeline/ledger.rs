//! Counts the bytes that wait. A block that several share counts once.

use std::collections::HashMap;

/// The memory of one thing that waits.
#[derive(Debug, Default)]
pub(in crate::report) struct Weight {
    /// Bytes that only it has.
    pub(in crate::report) own: usize,
    /// Blocks that others may share: the address of each, and its bytes.
    pub(in crate::report) shared: Vec<(usize, usize)>,
}

/// The bytes of everything that waits. An address identifies a block for as long as something in here has it.
#[derive(Debug, Default)]
pub(in crate::report) struct Ledger {
    bytes: usize,
    /// By address: how many have the block.
    shared: HashMap<usize, usize>,
}

impl Ledger {
    pub(in crate::report) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::report) fn add(&mut self, weight: &Weight) {
        self.bytes += weight.own;
        for (address, bytes) in &weight.shared {
            let holders = self.shared.entry(*address).or_insert(0);
            self.bytes += if *holders == 0 { *bytes } else { 0 };
            *holders += 1;
        }
    }

    /// Takes out what was added.
    pub(in crate::report) fn remove(&mut self, weight: &Weight) {
        self.bytes -= weight.own;
        for (address, bytes) in &weight.shared {
            let Some(holders) = self.shared.get_mut(address) else { continue };
            *holders -= 1;
            if *holders == 0 {
                self.shared.remove(address);
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a stack that many requests share is counted once, until the last of them is gone.
    #[test]
    fn a_shared_block_is_counted_once() {
        let one = Weight { own: 10, shared: vec![(1, 100), (2, 1_000), (2, 1_000)] };
        let other = Weight { own: 20, shared: vec![(2, 1_000), (3, 300)] };
        let mut ledger = Ledger::default();
        ledger.add(&one);
        assert_eq!(ledger.bytes(), 1_110);
        ledger.add(&other);
        assert_eq!(ledger.bytes(), 1_430);
        ledger.remove(&one);
        assert_eq!(ledger.bytes(), 1_320);
        ledger.remove(&other);
        assert_eq!((ledger.bytes(), ledger.shared.len()), (0, 0));
    }
}
