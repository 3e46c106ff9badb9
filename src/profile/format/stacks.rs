//! The stacks of a profile, each once.

use std::collections::HashMap;

use super::names::is_remark;
use crate::profile::{Profile, Slice, State};
use crate::report::{Frame, significant};

/// A stack and how long the request was in it, in one state.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    /// Indexes into [`Profile::frames`], outermost first. Empty if the profile is damaged.
    pub(crate) frames: Vec<u32>,
    pub(crate) state: State,
    pub(crate) nanos: u64,
    /// Samples or waits.
    pub(crate) count: u64,
}

/// Returns the stacks that `slices` of the profile refer to, each once per state, in the order of their first slices.
///
/// With `library_frames`, they have all frames. Without, they have the application's own, remarks in brackets, and
/// those that say what the innermost of them calls or waits for. Stacks that differ only in the other frames are then
/// one.
pub(super) fn stacks(profile: &Profile, slices: &[Slice], library_frames: bool) -> Vec<Stack> {
    let paths = Paths::of(profile);
    let mut by_node: HashMap<(u32, State), usize> = HashMap::new();
    let mut by_frames: HashMap<(Vec<u32>, State), usize> = HashMap::new();
    let mut stacks: Vec<Stack> = Vec::new();
    for slice in slices {
        let at = *by_node.entry((slice.stack, slice.state)).or_insert_with(|| {
            let frames = paths.frames(slice.stack, slice.state, library_frames);
            *by_frames.entry((frames, slice.state)).or_insert_with_key(|(frames, state)| {
                stacks.push(Stack { frames: frames.clone(), state: *state, nanos: 0, count: 0 });
                stacks.len() - 1
            })
        });
        stacks[at].nanos = stacks[at].nanos.saturating_add(slice.nanos);
        stacks[at].count += u64::from(slice.count);
    }
    stacks
}

/// The way from a node of a profile to its root. Safe even if the profile's indexes are invalid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paths<'a>(&'a Profile);

impl<'a> Paths<'a> {
    pub(crate) fn of(profile: &'a Profile) -> Self {
        Self(profile)
    }

    /// Returns indexes of the stack's frames, outermost first. For `library_frames` see [`stacks()`].
    pub(crate) fn frames(self, stack: u32, state: State, library_frames: bool) -> Vec<u32> {
        let mut innermost_first = self.all(stack);
        if !library_frames {
            let frames: Vec<&Frame> = innermost_first.iter().map(|&at| &self.0.frames[at as usize]).collect();
            let mut significant = significant(&frames, state == State::Waiting).into_iter();
            innermost_first
                .retain(|&at| significant.next().unwrap_or_default() | is_remark(&self.0.frames[at as usize]));
        }
        innermost_first.reverse();
        innermost_first
    }

    fn all(self, stack: u32) -> Vec<u32> {
        let mut frames = Vec::new();
        let mut next = Some(stack);
        while let Some(at) = next {
            let Some(node) = self.0.nodes.get(at as usize) else { break };
            if self.0.frames.get(node.frame as usize).is_some() {
                frames.push(node.frame);
            }
            // Parents come first. Otherwise the loop might never end.
            next = node.parent.filter(|&parent| parent < at);
        }
        frames
    }
}
