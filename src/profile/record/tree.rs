//! Stacks with names, as a profile has them.

use std::collections::HashMap;
use std::sync::Arc;

use super::stacks::{EMPTY, Stacks};
use crate::capture::{Address, Symbols, is_of};
use crate::profile::Node;
use crate::report::{Frame, Location};

/// Names places.
#[derive(Debug)]
pub(super) struct Names(Symbols);

impl Names {
    pub(super) fn new() -> Self {
        Self(Symbols::new())
    }

    /// The innermost function of the application's own, in words. `addresses` are innermost first.
    pub(super) fn own_place(&mut self, addresses: &[Address], own_crates: &[String]) -> Option<String> {
        let is_own = |frame: &&Frame| frame.own || is_of(frame, own_crates);
        let own = addresses.iter().find_map(|address| self.0.name(address).iter().find(is_own).cloned())?;
        Some(Location { function: own.function, file: own.file, line: own.line }.to_string())
    }
}

/// The frames and nodes of a profile as they come.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    stacks: &'a Stacks,
    names: Names,
    pub(super) frames: Vec<Frame>,
    pub(super) nodes: Vec<Node>,
    frame_of: HashMap<Frame, u32>,
    node_of: HashMap<Node, u32>,
    /// By what it stands on and its place.
    placed: HashMap<(Option<u32>, u32), Option<u32>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(stacks: &'a Stacks) -> Self {
        Self {
            stacks,
            names: Names::new(),
            frames: Vec::new(),
            nodes: Vec::new(),
            frame_of: HashMap::new(),
            node_of: HashMap::new(),
            placed: HashMap::new(),
        }
    }

    /// Something that is said, on top of `parent`.
    pub(super) fn label(&mut self, parent: Option<u32>, text: &str) -> u32 {
        self.node(parent, &Frame { function: Some(text.to_owned()), own: true, ..Frame::default() })
    }

    /// The stack of a place on top of `parent`; `None` if both are empty.
    pub(super) fn place(&mut self, parent: Option<u32>, at: u32) -> Option<u32> {
        if at == EMPTY {
            return parent;
        }
        if let Some(node) = self.placed.get(&(parent, at)) {
            return *node;
        }
        let path = self.named(at);
        let node = path.iter().fold(parent, |parent, frame| Some(self.node(parent, frame)));
        self.placed.insert((parent, at), node);
        node
    }

    fn node(&mut self, parent: Option<u32>, frame: &Frame) -> u32 {
        let frame = match self.frame_of.get(frame) {
            Some(frame) => *frame,
            None => {
                self.frames.push(frame.clone());
                let new = self.frames.len() as u32 - 1;
                self.frame_of.insert(frame.clone(), new);
                new
            }
        };
        let node = Node { parent, frame };
        *self.node_of.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        })
    }

    /// The frames of a stack, outermost first, without heeler's own at its ends.
    fn named(&mut self, at: u32) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        for address in self.stacks.path(at) {
            let named: Arc<[Frame]> = self.names.0.name(&address);
            frames.extend(named.iter().cloned());
        }
        // Innermost first until here. How the waker was cloned and kept for the copy:
        let is_callback = |frame: &Frame| frame.function.as_deref().is_some_and(copies);
        if let Some(last) = frames.iter().take(16).rposition(is_callback) {
            frames.drain(..=last);
        }
        frames.reverse();
        if let Some(last) = frames.iter().rposition(|frame| frame.function.as_deref().is_some_and(polls)) {
            frames.drain(..=last);
        }
        frames
    }
}

/// Whether a function of heeler's copies the stack for a waker.
fn copies(name: &str) -> bool {
    ["clone", "wake", "wake_by_ref", "Tracer"]
        .iter()
        .any(|callback| name.strip_prefix("heeler::capture::task::").is_some_and(|name| name.starts_with(callback)))
}

/// Whether a function of heeler's polls recorded work.
fn polls(name: &str) -> bool {
    const POLLS: [&str; 6] = [
        "capture::task::",
        "inflight::poll::",
        "inflight::strand::run::",
        "profile::jobs::run::",
        "profile::record::recording::",
        "watchdog::child::",
    ];
    let name = name.strip_prefix('<').unwrap_or(name);
    name.strip_prefix("heeler::").is_some_and(|name| POLLS.iter().any(|prefix| name.starts_with(prefix)))
}
