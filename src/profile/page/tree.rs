//! Stretches of time as a tree of boxes, whose widths sum to the whole time.

use std::collections::HashMap;

use super::steps::Steps;
use crate::profile::format::state_name;
use crate::profile::{Profile, Slice, State};

/// A box, with the boxes above it.
#[derive(Debug)]
pub(super) struct TreeNode {
    /// Number of its step.
    pub(super) step: u32,
    pub(super) state: State,
    /// When its first stretch begins.
    pub(super) start: u64,
    pub(super) nanos: u64,
    /// Its time in the profile that this one is compared with.
    pub(super) other: u64,
    /// Samples or waits.
    pub(super) count: u64,
    /// Indices into [`Tree::tree_nodes`].
    pub(super) children: Vec<u32>,
}

/// A share of the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) state: State,
    pub(super) start: u64,
    pub(super) nanos: u64,
    pub(super) other: u64,
    pub(super) count: u64,
}

impl Share {
    pub(super) fn of(slice: &Slice) -> Self {
        let Slice { state, start_nanos: start, nanos, count, .. } = *slice;
        Self { state, start, nanos, other: 0, count: u64::from(count) }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.nanos = self.nanos.saturating_add(more.nanos);
        self.other = self.other.saturating_add(more.other);
        self.count = self.count.saturating_add(more.count);
    }
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) roots: Vec<u32>,
    pub(super) tree_nodes: Vec<TreeNode>,
    /// The box of a step, by the box below it.
    known: HashMap<(Option<u32>, u32, State), u32>,
}

impl Tree {
    /// Adds to the boxes on the path, wherever in the tree they are.
    pub(super) fn add(&mut self, path: impl IntoIterator<Item = u32>, share: &Share) {
        let mut parent = None;
        for step in path {
            let key = (parent, step, share.state);
            let at = self.known.get(&key).copied();
            let at = at.unwrap_or_else(|| {
                let at = self.grow(parent, step, share);
                self.known.insert(key, at);
                at
            });
            self.widen(at, share);
            parent = Some(at);
        }
    }

    /// Adds at the right end: extends only boxes that end there.
    pub(super) fn append(&mut self, path: impl IntoIterator<Item = u32>, share: &Share) {
        let mut parent = None;
        // If something new comes to the right of a box, that box is no longer at the end, nor are those above it.
        let mut at_end = true;
        for step in path {
            let last = if at_end { self.children(parent).last().copied() } else { None };
            let same = |&at: &u32| {
                let tree_node = &self.tree_nodes[at as usize];
                tree_node.step == step && tree_node.state == share.state
            };
            let at = last.filter(same).unwrap_or_else(|| {
                at_end = false;
                self.grow(parent, step, share)
            });
            self.widen(at, share);
            parent = Some(at);
        }
    }

    pub(super) fn children(&self, parent: Option<u32>) -> &[u32] {
        parent.map_or(&self.roots, |parent| &self.tree_nodes[parent as usize].children)
    }

    fn grow(&mut self, parent: Option<u32>, step: u32, share: &Share) -> u32 {
        let at = self.tree_nodes.len() as u32;
        let Share { state, start, .. } = *share;
        self.tree_nodes.push(TreeNode { step, state, start, nanos: 0, other: 0, count: 0, children: Vec::new() });
        match parent {
            Some(parent) => self.tree_nodes[parent as usize].children.push(at),
            None => self.roots.push(at),
        }
        at
    }

    fn widen(&mut self, at: u32, share: &Share) {
        let tree_node = &mut self.tree_nodes[at as usize];
        tree_node.nanos = tree_node.nanos.saturating_add(share.nanos);
        tree_node.other = tree_node.other.saturating_add(share.other);
        tree_node.count = tree_node.count.saturating_add(share.count);
    }

    /// Puts the longest first, so that a reader looks at the left.
    pub(super) fn sort(&mut self) {
        let keys: Vec<_> = self
            .tree_nodes
            .iter()
            .map(|tree_node| (std::cmp::Reverse((tree_node.nanos, tree_node.other)), tree_node.start))
            .collect();
        let key = |at: &u32| keys[*at as usize];
        self.roots.sort_by_key(key);
        for tree_node in &mut self.tree_nodes {
            tree_node.children.sort_by_key(key);
        }
    }
}

/// Merges stretches of the same state and stack, in the order of their first ones.
pub(super) fn sums<'a>(slices: impl IntoIterator<Item = &'a Slice>) -> Vec<(u32, Share)> {
    let mut sums: Vec<(u32, Share)> = Vec::new();
    let mut known: HashMap<(State, u32), usize> = HashMap::new();
    for slice in slices.into_iter().filter(|slice| slice.nanos > 0) {
        let share = Share::of(slice);
        let at = *known.entry((slice.state, slice.stack)).or_insert(sums.len());
        match sums.get_mut(at) {
            Some((_, sum)) => sum.add(&share),
            None => sums.push((slice.stack, share)),
        }
    }
    sums
}

/// Into how many cells a chart divides a long time. No picture has this many pixels.
const CELLS: u64 = 4_000;

/// How many stacks of one cell a chart shows separately.
const MAX_IN_CELL: usize = 4;

/// Returns stretches in their order. If they are too many and too short to be seen, sums them by stack within a cell of
/// the time. The smallest of a cell have no stack.
pub(super) fn in_order(profile: &Profile) -> Vec<(Option<u32>, Share)> {
    let slices = profile.slices.iter().filter(|slice| slice.nanos > 0);
    let cell = match profile.slices.len() as u64 {
        0..=CELLS => return slices.map(|slice| (Some(slice.stack), Share::of(slice))).collect(),
        _ => profile.wall_nanos / CELLS + 1,
    };
    let mut shares = Vec::new();
    let mut short: Vec<&Slice> = Vec::new();
    for slice in slices {
        let parted = short.first().is_some_and(|first| first.start_nanos / cell != slice.start_nanos / cell);
        if parted || slice.nanos >= cell {
            gather(&mut shares, &std::mem::take(&mut short));
        }
        if slice.nanos >= cell {
            shares.push((Some(slice.stack), Share::of(slice)));
        } else {
            short.push(slice);
        }
    }
    gather(&mut shares, &short);
    shares
}

fn gather(shares: &mut Vec<(Option<u32>, Share)>, short: &[&Slice]) {
    let sums = sums(short.iter().copied());
    let mut longest: Vec<u64> = sums.iter().map(|(_, share)| share.nanos).collect();
    longest.sort_unstable_by_key(|&nanos| std::cmp::Reverse(nanos));
    let least = longest.get(MAX_IN_CELL).copied().unwrap_or(0);
    let mut rest: Vec<Share> = Vec::new();
    for (stack, share) in sums {
        if share.nanos > least {
            shares.push((Some(stack), share));
            continue;
        }
        match rest.iter_mut().find(|sum| sum.state == share.state) {
            Some(sum) => sum.add(&share),
            None => rest.push(share),
        }
    }
    shares.extend(rest.into_iter().map(|share| (None, share)));
}

/// Returns the parts of a profile that a picture shows, as a tree, and their sum.
pub(super) fn tree(profile: &Profile, which: super::Which, steps: &mut Steps) -> (Tree, u64) {
    use super::Which;
    let mut tree = Tree::default();
    let mut whole = 0u64;
    let state_step = |steps: &mut Steps, state: State| steps.said(state_name(state));
    if which == Which::Chart {
        for (stack, share) in in_order(profile) {
            let root = state_step(steps, share.state);
            let path = stack.map(|stack| steps.path(profile, stack, share.state));
            let short = stack.is_none().then(|| steps.said("[many short ones]"));
            tree.append(
                [root].into_iter().chain(path.iter().flat_map(|path| path.iter().copied())).chain(short),
                &share,
            );
            whole = whole.saturating_add(share.nanos);
        }
        return (tree, whole);
    }
    let slices = if which == Which::Beside { &profile.beside } else { &profile.slices };
    let only = match which {
        Which::OnCpu => Some(State::OnCpu),
        Which::Waiting => Some(State::Waiting),
        Which::All | Which::Chart | Which::Beside => None,
    };
    for (stack, share) in sums(slices.iter().filter(|slice| only.is_none_or(|state| state == slice.state))) {
        // If there is only one state, the label of the whole says which.
        let root = only.is_none().then(|| state_step(steps, share.state));
        let path = steps.path(profile, stack, share.state);
        tree.add(root.into_iter().chain(path.iter().copied()), &share);
        whole = whole.saturating_add(share.nanos);
    }
    tree.sort();
    (tree, whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Which;
    use super::*;
    use crate::profile::format::Times;
    use crate::profile::testing::{ProfileBuilder, own};

    fn lines(profile: &Profile, which: Which) -> Vec<String> {
        fn push(tree: &Tree, steps: &Steps, at: &[u32], depth: usize, out: &mut Vec<String>) {
            for &at in at {
                let tree_node = &tree.tree_nodes[at as usize];
                let label = steps.get(tree_node.step).label.split(' ').next().unwrap().to_owned();
                out.push(format!("{:depth$}{label} {} x{}", "", tree_node.nanos, tree_node.count));
                push(tree, steps, &tree_node.children, depth + 1, out);
            }
        }
        let mut steps = Steps::new(false);
        let (tree, _) = tree(profile, which, &mut steps);
        let mut out = Vec::new();
        push(&tree, &steps, &tree.roots, 0, &mut out);
        out
    }

    fn back_and_forth() -> Profile {
        let mut builder = ProfileBuilder::new();
        for (state, nanos, function) in [
            (State::OnCpu, 3, "app::a"),
            (State::OnCpu, 4, "app::a"),
            (State::Waiting, 9, "app::a"),
            (State::OnCpu, 5, "app::b"),
            (State::OnCpu, 1, "app::a"),
        ] {
            builder.slice(state, nanos, 1, &[own("app::page", 1), own(function, 2)]);
        }
        builder.build()
    }

    #[test]
    fn boxes_are_summed_and_sorted() {
        let profile = back_and_forth();
        assert_eq!(
            lines(&profile, Which::All),
            [
                "on 13 x4",
                " app::page 13 x4",
                "  app::a 8 x3",
                "  app::b 5 x1",
                "waiting 9 x1",
                " app::page 9 x1",
                "  app::a 9 x1"
            ]
        );
        assert_eq!(lines(&profile, Which::Waiting), ["app::page 9 x1", " app::a 9 x1"]);
        assert_eq!(
            lines(&profile, Which::Chart),
            [
                "on 7 x2",
                " app::page 7 x2",
                "  app::a 7 x2",
                "waiting 9 x1",
                " app::page 9 x1",
                "  app::a 9 x1",
                "on 6 x2",
                " app::page 6 x2",
                "  app::b 5 x1",
                "  app::a 1 x1",
            ]
        );
        assert!(lines(&profile, Which::Beside).is_empty());
    }

    proptest! {
        /// Guards: however many stretches there are, a chart has all of their time, by state, in their order, and not many
        /// more boxes than it is pixels wide.
        #[test]
        fn a_chart_is_bounded_and_complete(lengths in prop::collection::vec((1u64..1 << 40, 0usize..4, 0usize..30), 1..400), times in 1usize..40) {
            let mut builder = ProfileBuilder::new();
            for _ in 0..times {
                for &(nanos, state, function) in &lengths {
                    builder.slice(Times::STATES[state], nanos, 1, &[own(&format!("app::f{function}"), 1)]);
                }
            }
            let profile = builder.build();
            let shares = in_order(&profile);
            let by_state = |state| shares.iter().filter(|(_, share)| share.state == state).map(|(_, share)| share.nanos).sum::<u64>();
            let expected = |state| profile.slices.iter().filter(|slice| slice.state == state).map(|slice| slice.nanos).sum::<u64>();
            for state in Times::STATES {
                prop_assert_eq!(by_state(state), expected(state));
            }
            prop_assert!(shares.len() as u64 <= CELLS * 10);
            // The stretches of a cell may begin in any order, but cells follow each other.
            let cell = profile.wall_nanos / CELLS + 1;
            prop_assert!(shares.windows(2).all(|two| two[0].1.start / cell <= two[1].1.start / cell));
        }
    }
}
