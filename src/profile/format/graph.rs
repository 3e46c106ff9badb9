//! Who calls whom: the call graph of a profile, small enough to look at.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::names::{short, title};
use super::stacks::stacks;
use super::tally::{Groups, Row, Times, tally};
use crate::profile::Profile;
use crate::report::Frame;
use crate::text::units::{at, duration};

/// Nobody reads more boxes than this.
const MAX_NODES: usize = 60;

/// Nor more arrows than this.
const MAX_EDGES: usize = 120;

/// A function is drawn if it was on the stack for at least one part in this many of the time.
const SMALLEST: u64 = 200;

/// The most characters of a function's name, and of its place.
const MAX_NAME: usize = 100;
const MAX_PLACE: usize = 60;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Graph {
    /// What it is about, and what it leaves out. One item per line.
    pub(super) heading: Vec<String>,
    /// Most total time first.
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    pub(super) whole: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    /// Shortened and escaped.
    pub(super) name: String,
    /// Its file, shortened and escaped.
    pub(super) place: Option<String>,
    pub(super) own: Times,
    pub(super) total: Times,
    /// Whether it calls itself.
    pub(super) recursive: bool,
}

/// A call, perhaps through functions that are not drawn.
#[derive(Debug)]
pub(super) struct Edge {
    /// Indexes into [`Graph::nodes`]; never the same.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Nanoseconds. Each stack counts once.
    pub(super) nanos: u64,
}

impl Node {
    /// `self 10 ms (10.0 %) of 95 ms (95.0 %)`.
    pub(super) fn figures(&self, whole: u64) -> String {
        format!("self {} of {}", part(self.own.sum(), whole), part(self.total.sum(), whole))
    }
}

/// `10 ms (10.0 %)`.
fn part(nanos: u64, whole: u64) -> String {
    format!("{} ({:.1} %)", time(nanos), share(nanos, whole) * 100.0)
}

pub(super) fn time(nanos: u64) -> String {
    duration(Duration::from_nanos(nanos))
}

/// From 0 to 1.
pub(super) fn share(nanos: u64, whole: u64) -> f64 {
    nanos as f64 / whole.max(1) as f64
}

pub(super) fn graph(profile: &Profile) -> Graph {
    let tally = tally(profile, false);
    let whole = tally.whole.sum();
    let mut rows: Vec<Row> = tally.functions.into_iter().filter(|row| row.total.sum() > 0).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.total.sum()), row.frame));
    let large = rows.iter().take(MAX_NODES).take_while(|row| row.total.sum() >= whole / SMALLEST).count();
    let dropped = rows.split_off(large);
    let groups = Groups::of_functions(profile);
    let node_of: HashMap<u32, usize> = rows.iter().enumerate().map(|(at, row)| (row.frame, at)).collect();
    let mut nodes: Vec<Node> = rows.iter().map(|row| node(row, &profile.frames[row.frame as usize])).collect();
    let (edges, left_out) = edges(profile, &groups, &node_of, &mut nodes);
    Graph { heading: heading(profile, &dropped, left_out, whole), nodes, edges, whole }
}

fn node(row: &Row, frame: &Frame) -> Node {
    let place = at(frame.file.as_deref(), None).filter(|_| frame.function.is_some());
    Node {
        name: short(&frame.name(), MAX_NAME),
        place: place.map(|place| short(&crate::text::escape(&place, usize::MAX), MAX_PLACE)),
        own: row.own,
        total: row.total,
        recursive: false,
    }
}

/// Returns the calls between `nodes`, heaviest first, and how many are too light to be drawn.
fn edges(profile: &Profile, groups: &Groups, node_of: &HashMap<u32, usize>, nodes: &mut [Node]) -> (Vec<Edge>, usize) {
    let mut weights: HashMap<(usize, usize), u64> = HashMap::new();
    for stack in stacks(profile, &profile.slices, false) {
        let mut seen = HashSet::new();
        let mut caller = None;
        for frame in stack.frames {
            let Some(&node) = node_of.get(&groups.first(frame)) else { continue };
            match caller.replace(node) {
                Some(same) if same == node => nodes[node].recursive = true,
                Some(caller) if seen.insert((caller, node)) => {
                    let weight = weights.entry((caller, node)).or_default();
                    *weight = weight.saturating_add(stack.nanos);
                }
                _ => {}
            }
        }
    }
    let mut edges: Vec<Edge> =
        weights.into_iter().map(|((from, to), nanos)| Edge { from, to, nanos }).filter(|edge| edge.nanos > 0).collect();
    edges.sort_by_key(|edge| (std::cmp::Reverse(edge.nanos), edge.from, edge.to));
    let left_out = edges.len().saturating_sub(MAX_EDGES);
    edges.truncate(MAX_EDGES);
    (edges, left_out)
}

fn heading(profile: &Profile, dropped: &[Row], left_out: usize, whole: u64) -> Vec<String> {
    let mut lines = vec![title(profile)];
    if whole == 0 {
        lines.push("no time was recorded".to_owned());
    }
    if let Some(largest) = dropped.iter().map(|row| row.total.sum()).max() {
        let own = dropped.iter().fold(0, |sum: u64, row| sum.saturating_add(row.own.sum()));
        let functions = if dropped.len() == 1 { "function is" } else { "functions are" };
        lines.push(format!(
            "{} {functions} not drawn: none of more than {}, together {} of their own",
            dropped.len(),
            part(largest, whole),
            part(own, whole)
        ));
    }
    if left_out > 0 {
        let calls = if left_out == 1 { "call is" } else { "calls are" };
        lines.push(format!("{left_out} {calls} not drawn: the lightest"));
    }
    lines
}
