//! Groups the recorded waits by place.

use std::collections::BTreeSet;

use crate::report::model::Stack;
use crate::report::model::words::Activity;

/// The waits at one place.
pub(in crate::report) struct Group {
    pub(in crate::report) activity: Activity,
    pub(in crate::report) current: bool,
    /// The branch that says most comes first: of those that are no timer, the one that was polled last.
    pub(in crate::report) stacks: Vec<Stack>,
    /// The places of the first stack.
    leading: Vec<Place>,
    /// The places of all stacks, sorted, because branches may be polled in any order.
    names: BTreeSet<Vec<Place>>,
    pub(in crate::report) waits: u32,
    pub(in crate::report) nanos: u64,
    /// The longest of the waits.
    pub(in crate::report) longest: u64,
    /// Whether some branch gave way.
    pub(in crate::report) gave_way: bool,
}

/// Function, file and line.
type Place = (Option<String>, Option<String>, Option<u32>);

impl Group {
    pub(in crate::report) fn new(
        activity: Activity,
        current: bool,
        stacks: Vec<Stack>,
        (waits, nanos, longest): (u32, u64, u64),
    ) -> Self {
        let names = |stack: &Stack| -> Vec<Place> {
            stack.frames.iter().map(|frame| (frame.function.clone(), frame.file.clone(), frame.line)).collect()
        };
        let leading = stacks.first().map(names).unwrap_or_default();
        let names = stacks.iter().map(names).collect();
        Self { activity, current, stacks, leading, names, waits, nanos, longest, gave_way: false }
    }

    /// Makes its stacks those of the capture, or those of the timeline.
    pub(in crate::report) fn set_current(&mut self, current: bool) {
        self.current = current;
        self.stacks.iter_mut().for_each(|stack| stack.current = current);
    }

    /// Adds these waits to the known ones. Other data on a stack than return addresses makes one place look like
    /// several, so they are compared by name.
    pub(in crate::report) fn join(self, known: &mut Vec<Self>) {
        match known.iter_mut().find(|known| known.is_like(&self)) {
            Some(known) => known.absorb(self),
            None => known.push(self),
        }
    }

    /// Returns whether both are at the same place, ignoring branches that ended with the poll.
    fn is_like(&self, other: &Self) -> bool {
        let one_in_the_other = self.names.is_subset(&other.names) || other.names.is_subset(&self.names);
        self.activity == other.activity
            && (self.names == other.names || (self.leading == other.leading && one_in_the_other))
    }

    /// Adds the waits of `other`. Takes over its stacks if they are current, or fewer.
    fn absorb(&mut self, other: Self) {
        let (waits, nanos) = (self.waits + other.waits, self.nanos + other.nanos);
        let gave_way = self.gave_way || other.gave_way;
        let longest = self.longest.max(other.longest);
        if other.current || (!self.current && other.stacks.len() < self.stacks.len()) {
            *self = other;
        }
        (self.waits, self.nanos, self.longest) = (waits, nanos, longest);
        self.gave_way = gave_way;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, own};

    fn group(current: bool, lines: &[u32]) -> Group {
        let stacks = lines.iter().map(|line| await_stack(&[own("app::page", *line)])).collect();
        Group::new(Activity::Waiting, current, stacks, (1, 10, 10))
    }

    fn joined(groups: impl IntoIterator<Item = Group>) -> Vec<(usize, u32, u64)> {
        let mut known = Vec::new();
        groups.into_iter().for_each(|group| group.join(&mut known));
        known.iter().map(|group| (group.stacks.len(), group.waits, group.nanos)).collect()
    }

    /// Guards: branches may be polled in any order, and a branch that ended with the poll isn't another place.
    #[test]
    fn waits_at_one_place_are_one_group() {
        assert_eq!(joined([group(false, &[1, 2]), group(false, &[2, 1])]), [(2, 2, 20)]);
        assert_eq!(joined([group(false, &[1, 2]), group(false, &[1])]), [(1, 2, 20)], "the fewer branches");
        assert_eq!(joined([group(false, &[1]), group(true, &[1, 2])]), [(2, 2, 20)], "those of this moment");
        assert_eq!(joined([group(false, &[1]), group(false, &[2])]), [(1, 1, 10), (1, 1, 10)]);
        let yielding = Group { activity: Activity::Yielding, ..group(false, &[1]) };
        assert_eq!(joined([group(false, &[1]), yielding]).len(), 2, "another activity");
    }
}
