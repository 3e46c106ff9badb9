//! Unwound stacks as a tree of addresses, with each place once.

use std::collections::HashMap;

use crate::capture::{Address, Snapshot, Unwinder};

/// The root of the tree: an empty stack.
pub(super) const EMPTY: u32 = 0;

/// The most places in the tree. A profile with this many different ones has run wild.
const MAX_NODES: usize = 1 << 20;

/// One place.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: u32,
    /// `None` for the root.
    pub(super) address: Option<Address>,
    depth: u32,
}

/// A tree of addresses, and an unwinder that adds to it.
#[derive(Debug)]
pub(super) struct Stacks {
    unwinder: Unwinder,
    places: Vec<Place>,
    known: HashMap<(u32, u64, bool), u32>,
    /// Await stacks by the session's number: the place, and whether it is complete.
    awaits: HashMap<u32, u32>,
    /// Stacks that are cut at their outer end.
    pub(super) truncated: u64,
}

impl Stacks {
    pub(super) fn new() -> Self {
        Self {
            unwinder: Unwinder::new(),
            places: vec![Place { parent: EMPTY, address: None, depth: 0 }],
            known: HashMap::new(),
            awaits: HashMap::new(),
            truncated: 0,
        }
    }

    /// Unwinds a stack, and returns the place of its innermost frame.
    pub(super) fn add(&mut self, snapshot: &Snapshot) -> u32 {
        let mut unwound = self.unwinder.unwind(snapshot);
        if unwound.addresses.iter().any(|address| address.module.is_none()) && self.unwinder.refresh() {
            unwound = self.unwinder.unwind(snapshot);
        }
        self.truncated += u64::from(!unwound.complete);
        let mut at = EMPTY;
        for address in unwound.addresses.into_iter().rev() {
            let key = (at, address.pc, address.is_return);
            at = match self.known.get(&key) {
                Some(known) => *known,
                None if self.places.len() == MAX_NODES => break,
                None => {
                    let depth = self.places[at as usize].depth + 1;
                    self.places.push(Place { parent: at, address: Some(address), depth });
                    let new = self.places.len() as u32 - 1;
                    self.known.insert(key, new);
                    new
                }
            };
        }
        at
    }

    /// Unwinds await stacks.
    pub(super) fn add_awaits(&mut self, raw: Vec<(u32, Snapshot)>) {
        for (number, snapshot) in raw {
            let place = self.add(&snapshot);
            self.awaits.insert(number, place);
        }
    }

    /// Returns the place of the await stack with that number.
    pub(super) fn awaited(&self, number: u32) -> Option<u32> {
        self.awaits.get(&number).copied().filter(|place| *place != EMPTY)
    }

    pub(super) fn place(&self, at: u32) -> &Place {
        &self.places[at as usize]
    }

    /// Returns the addresses of all places.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.places.iter().filter_map(|place| place.address.clone()).collect()
    }

    /// Returns the stack of a place, innermost first.
    pub(super) fn path(&self, mut at: u32) -> Vec<Address> {
        let mut path = Vec::new();
        while at != EMPTY {
            let place = self.place(at);
            path.extend(place.address.clone());
            at = place.parent;
        }
        path
    }

    /// Returns what two stacks have in common at their outer end.
    pub(super) fn common(&self, mut a: u32, mut b: u32) -> u32 {
        while a != b {
            let (of_a, of_b) = (self.place(a), self.place(b));
            match of_a.depth.cmp(&of_b.depth) {
                std::cmp::Ordering::Greater => a = of_a.parent,
                std::cmp::Ordering::Less => b = of_b.parent,
                std::cmp::Ordering::Equal => (a, b) = (of_a.parent, of_b.parent),
            }
        }
        a
    }
}
