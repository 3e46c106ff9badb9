//! Stacks with names, as a profile has them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError};

use super::stacks::{EMPTY, Stacks};
use crate::capture::{Address, PerProcess, Symbols, disown_wrappers, drop_copying, drop_own, drop_polling, is_of};
use crate::profile::Node;
use crate::report::Frame;
use crate::sync::lock_std;
use crate::text::units::at;

/// Names places. All profiles share it, because most of them go through the same places.
#[derive(Debug)]
pub(super) struct Names(Symbols);

static NAMES: PerProcess<Mutex<Names>> = PerProcess::new(|| Mutex::new(Names(Symbols::new())));

impl Names {
    /// Waits while others are being named.
    fn get() -> MutexGuard<'static, Self> {
        lock_std(NAMES.get())
    }

    /// Returns `None` while others are being named, which may take long.
    pub(super) fn try_get() -> Option<MutexGuard<'static, Self>> {
        match NAMES.get().try_lock() {
            Ok(names) => Some(names),
            Err(TryLockError::Poisoned(names)) => Some(names.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Returns the application's innermost function, in words. `addresses` are innermost first.
    pub(super) fn own_place(&mut self, addresses: &[Address], own_crates: &[String]) -> Option<String> {
        let is_own = |frame: &&Frame| frame.own || is_of(frame, own_crates);
        let frames = self.0.frames(addresses);
        self.0.trim();
        frames.iter().find(is_own).map(in_words)
    }
}

/// Returns the function and its place, as on the page of the result: with the path as short as possible.
fn in_words(frame: &Frame) -> String {
    let place = at(frame.file.as_deref(), frame.line);
    let words: Vec<&str> = [frame.function.as_deref(), place.as_deref()].into_iter().flatten().collect();
    words.join(" ")
}

/// The frames and nodes of a profile, as they are added.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    stacks: &'a Stacks,
    frames: Vec<Frame>,
    nodes: Vec<Node>,
    frame_of: HashMap<Frame, u32>,
    node_of: HashMap<Node, u32>,
    /// By parent and place.
    placed: HashMap<(Option<u32>, u32), Option<u32>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(stacks: &'a Stacks) -> Self {
        Names::get().0.learn(&stacks.addresses());
        Self {
            stacks,
            frames: Vec::new(),
            nodes: Vec::new(),
            frame_of: HashMap::new(),
            node_of: HashMap::new(),
            placed: HashMap::new(),
        }
    }

    /// Returns the frames, and the nodes that refer to them.
    pub(super) fn finish(self) -> (Vec<Frame>, Vec<Node>) {
        Names::get().0.trim();
        (self.frames, self.nodes)
    }

    /// Adds a remark on top of `parent`.
    pub(super) fn label(&mut self, parent: Option<u32>, text: &str) -> u32 {
        self.node(parent, &Frame { function: Some(text.to_owned()), own: true, ..Frame::default() })
    }

    /// Adds the stack of a place on top of `parent`. Returns `parent` if the whole stack is heeler's own, and `None` if
    /// both are empty.
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

    /// Returns the frames of a stack, outermost first, without heeler's own.
    fn named(&mut self, at: u32) -> Vec<Frame> {
        let addresses = self.stacks.path(at);
        let mut frames = Names::get().0.frames(&addresses);
        // Up to here they are innermost first.
        drop_copying(&mut frames);
        disown_wrappers(&mut frames);
        frames.reverse();
        drop_polling(&mut frames);
        drop_own(&mut frames);
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: paths of the build machine are hidden while a request runs, as they are afterwards.
    #[test]
    fn build_paths_are_shortened() {
        let here = std::env::current_dir().unwrap();
        let registry = "/home/me/.cargo/registry/src/index-0123456789abcdef/tokio-1.2.3/src/lib.rs".to_owned();
        for (function, file, line, words) in [
            (Some("app::load"), Some(here.join("src/a.rs").display().to_string()), Some(7), "app::load src/a.rs:7"),
            (Some("tokio::run"), Some(registry), None, "tokio::run tokio-1.2.3/src/lib.rs"),
            (None, Some("src/b.rs".to_owned()), Some(1), "src/b.rs:1"),
            (Some("app::load"), None, None, "app::load"),
        ] {
            let frame = Frame { function: function.map(str::to_owned), file, line, ..Frame::default() };
            assert_eq!(in_words(&frame), words);
        }
    }
}
