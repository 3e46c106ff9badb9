//! Limits the boxes to as many as a browser can lay out at once: boxes too narrow to be seen are merged.

use inferno::flamegraph::color::Color;

use super::tree::{Tree, TreeNode};
use super::words;
use crate::flamegraph::picture::{GREY, Tile};
use crate::profile::State;

/// What a box looks like.
pub(super) struct Painted {
    pub(super) label: String,
    pub(super) figures: String,
    pub(super) color: Color,
}

/// Returns the width below which boxes are merged, so that at most `most` remain.
pub(super) fn narrowest(tree: &Tree, whole: u64, most: usize) -> u64 {
    let mut min = 0;
    while remaining(tree, &tree.roots, min) > most {
        // After some thirty rounds, `min` is the whole.
        min = if min == 0 { (whole >> 16).max(2) } else { min.saturating_add(min / 2) };
    }
    min
}

/// Returns how many boxes remain if narrower ones are merged.
fn remaining(tree: &Tree, at: &[u32], min: u64) -> usize {
    let mut boxes = 0;
    let mut left: Vec<&[u32]> = vec![at];
    while let Some(siblings) = left.pop() {
        let mut in_run = false;
        for &at in siblings {
            let tree_node = &tree.tree_nodes[at as usize];
            let narrow = tree_node.nanos < min;
            boxes += usize::from(!(narrow && in_run));
            in_run = narrow;
            if !narrow {
                left.push(&tree_node.children);
            }
        }
    }
    boxes
}

/// Makes tiles of boxes.
pub(super) struct Pruner<'a, P> {
    pub(super) tree: &'a Tree,
    /// Narrower boxes are merged.
    pub(super) min: u64,
    /// The step of merged boxes.
    pub(super) narrower: u32,
    /// What a box looks like. The second argument says whether it is directly on the whole.
    pub(super) paint: P,
}

impl<P: Fn(&TreeNode, bool) -> Painted> Pruner<'_, P> {
    /// Returns the tiles of the whole tree.
    pub(super) fn tiles(&self) -> Vec<Tile> {
        let mut tiles = self.of(&self.tree.roots, true);
        if tiles.is_empty() {
            // inferno draws no empty picture.
            let label = "no time was spent this way".to_owned();
            tiles.push(Tile { label, figures: String::new(), color: GREY, width: 1, children: Vec::new() });
        }
        tiles
    }

    /// Returns the tiles of some siblings and of everything above them. Recurses as deep as a stack has steps.
    fn of(&self, siblings: &[u32], root: bool) -> Vec<Tile> {
        let mut tiles = Vec::new();
        let mut rest = siblings;
        while let [first, after @ ..] = rest {
            let tree_node = &self.tree.tree_nodes[*first as usize];
            if tree_node.nanos >= self.min {
                let Painted { label, figures, color } = (self.paint)(tree_node, root);
                tiles.push(Tile {
                    label,
                    figures,
                    color,
                    width: tree_node.nanos,
                    children: self.of(&tree_node.children, false),
                });
                rest = after;
                continue;
            }
            let is_narrow = |at: &&u32| self.tree.tree_nodes[**at as usize].nanos < self.min;
            let (run, after) = rest.split_at(rest.iter().take_while(is_narrow).count());
            tiles.push(self.together(run));
            rest = after;
        }
        tiles.retain(|tile| tile.width > 0);
        tiles
    }

    /// Returns one tile for all of them, in the colour of their most common state.
    fn together(&self, run: &[u32]) -> Tile {
        let tree_nodes = || run.iter().map(|&at| &self.tree.tree_nodes[at as usize]);
        let of = |state| {
            tree_nodes()
                .filter(|tree_node| tree_node.state == state)
                .map(|tree_node| tree_node.nanos)
                .fold(0, u64::saturating_add)
        };
        let state = words::STATES.into_iter().max_by_key(|&state| of(state)).unwrap_or(State::OnCpu);
        let sum = TreeNode {
            step: self.narrower,
            state,
            start: tree_nodes().next().map_or(0, |tree_node| tree_node.start),
            nanos: total(tree_nodes().map(|tree_node| tree_node.nanos)),
            other: total(tree_nodes().map(|tree_node| tree_node.other)),
            // It has one unit only if they are in one state.
            count: 0,
            children: Vec::new(),
        };
        let Painted { label, figures, color } = (self.paint)(&sum, false);
        Tile {
            label: format!("{label} {} narrower", run.len()),
            figures,
            color,
            width: sum.nanos,
            children: Vec::new(),
        }
    }
}

/// Returns a sum. If a damaged profile has more, returns the largest number.
pub(super) fn total(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}
