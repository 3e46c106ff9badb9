//! Stacks for a reader: the application's frames, and the significant ones among the others.

use std::collections::HashMap;
use std::rc::Rc;

use crate::flamegraph::label;
use crate::profile::format::{Paths, is_remark};
use crate::profile::{Profile, State};
use crate::report::Frame;
use crate::report::render::fold::{describe_folded, is_dull};
use crate::report::significant as shown;

/// The most boxes of a stack. Of a deep recursion, only the ends are shown.
const MAX_STEPS: usize = 64;

/// One box of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Step {
    pub(super) label: String,
    /// Whether it is the application's own code, or a remark of heeler's.
    pub(super) own: bool,
}

/// The stacks of profiles as steps. Equal steps have equal numbers.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Whether frames that aren't the application's are included.
    library_frames: bool,
    /// Whether the lines of steps count. If not, steps that differ only in their lines are one, because lines move
    /// between two versions of a program.
    lines: bool,
    steps: Vec<Step>,
    numbers: HashMap<Step, u32>,
    /// By index of the frame, and whether its line counts.
    frames: HashMap<(u32, bool), u32>,
    /// By stack and state.
    paths: HashMap<(u32, State), Rc<[u32]>>,
}

impl Steps {
    pub(super) fn new(library_frames: bool) -> Self {
        Self { library_frames, lines: true, ..Self::default() }
    }

    /// For two profiles that are compared.
    pub(super) fn without_lines(library_frames: bool) -> Self {
        Self { lines: false, ..Self::new(library_frames) }
    }

    /// Returns the step of that number.
    pub(super) fn get(&self, number: u32) -> &Step {
        &self.steps[number as usize]
    }

    /// Returns the number of a step that isn't a frame.
    pub(super) fn said(&mut self, text: &str) -> u32 {
        self.number(Step { label: label::text(text), own: true })
    }

    /// Returns the number of a step that stands for many.
    pub(super) fn foreign(&mut self, text: &str) -> u32 {
        self.number(Step { label: label::text(text), own: false })
    }

    /// Starts another profile, which has other stacks.
    pub(super) fn next_profile(&mut self) {
        self.frames.clear();
        self.paths.clear();
    }

    /// Returns a stack, outermost step first.
    pub(super) fn path(&mut self, profile: &Profile, stack: u32, state: State) -> Rc<[u32]> {
        if let Some(path) = self.paths.get(&(stack, state)) {
            return Rc::clone(path);
        }
        let frames = frames(profile, stack);
        let steps = if self.library_frames { full(&frames) } else { readable(&frames, state == State::Waiting) };
        // A thread that computes is at another line at each sample, so the lines of one function share a box. If
        // something waits or blocks, the line says in which of its calls.
        let lines = self.lines && state != State::OnCpu;
        let path: Rc<[u32]> = bounded(steps).into_iter().map(|part| self.part(part, lines)).collect();
        self.paths.insert((stack, state), Rc::clone(&path));
        path
    }

    fn part(&mut self, part: Part<'_>, line: bool) -> u32 {
        let (at, frame) = match part {
            Part::Said(text) => return self.foreign(&text),
            Part::Frame(frame) => frame,
        };
        if let Some(number) = self.frames.get(&(at, line)) {
            return *number;
        }
        let shown = Frame { line: frame.line.filter(|_| line), source: None, ..frame.clone() };
        let number = self.number(Step { label: label::frame(&shown), own: frame.own || is_remark(frame) });
        self.frames.insert((at, line), number);
        number
    }

    fn number(&mut self, step: Step) -> u32 {
        // There are fewer steps than nodes, and those are counted in this type.
        let next = self.steps.len() as u32;
        *self.numbers.entry(step).or_insert_with_key(|step| {
            self.steps.push(step.clone());
            next
        })
    }
}

/// A frame and its index.
type Indexed<'a> = (u32, &'a Frame);

/// Returns the frames of a stack, innermost first.
pub(super) fn frames(profile: &Profile, stack: u32) -> Vec<Indexed<'_>> {
    // All of them, whatever the state.
    let frames = Paths::of(profile).frames(stack, State::OnCpu, true);
    frames.into_iter().rev().filter_map(|at| Some((at, profile.frames.get(at as usize)?))).collect()
}

/// Returns the most significant frame of a stack: the innermost of the application's own, otherwise the innermost. A
/// remark counts only if there is nothing else.
pub(super) fn significant<'a>(frames: &[Indexed<'a>]) -> Option<&'a Frame> {
    let all = || frames.iter().map(|(_, frame)| *frame);
    let functions = || all().filter(|frame| !is_remark(frame));
    let own = functions().find(|frame| frame.own).or_else(|| functions().find(|frame| !is_dull(frame)));
    own.or_else(|| functions().next()).or_else(|| all().next())
}

/// A part of a stack.
enum Part<'a> {
    Frame(Indexed<'a>),
    Said(String),
}

fn full<'a>(frames: &[Indexed<'a>]) -> Vec<Part<'a>> {
    frames.iter().rev().map(|&frame| Part::Frame(frame)).collect()
}

/// Splits a stack for a reader. The frames around the application's outermost one are the same for every request, and
/// left out. Other runs of library frames are folded.
fn readable<'a>(frames: &[Indexed<'a>], waits: bool) -> Vec<Part<'a>> {
    // Remarks are not leaves. What is said about the frames around does not depend on them.
    let (remarks, frames) = frames.split_at(frames.iter().take_while(|(_, frame)| is_remark(frame)).count());
    // How an await point's waker is cloned and kept says nothing.
    let dull = frames.iter().take_while(|(_, frame)| waits && !frame.own && is_dull(frame)).count();
    let frames = if dull < frames.len() { &frames[dull..] } else { frames };
    let outermost = frames.iter().rposition(|(_, frame)| frame.own || is_remark(frame));
    let frames = outermost.map_or(frames, |at| &frames[..=at]);
    let plain: Vec<&Frame> = frames.iter().map(|(_, frame)| *frame).collect();
    let mut shown = shown(&plain, waits);
    for (shown, frame) in shown.iter_mut().zip(&plain) {
        *shown |= is_remark(frame);
    }
    let mut parts = Vec::new();
    let mut end = frames.len();
    while end > 0 {
        if shown[end - 1] {
            end -= 1;
            parts.push(Part::Frame(frames[end]));
            continue;
        }
        let start = shown[..end].iter().rposition(|&shown| shown).map_or(0, |at| at + 1);
        parts.push(Part::Said(describe_folded(&plain[start..end])));
        end = start;
    }
    parts.extend(remarks.iter().rev().map(|&frame| Part::Frame(frame)));
    parts
}

fn bounded(mut parts: Vec<Part<'_>>) -> Vec<Part<'_>> {
    if parts.len() > MAX_STEPS {
        let more = parts.len() - (MAX_STEPS - 1);
        parts.splice(MAX_STEPS / 2..MAX_STEPS / 2 + more, [Part::Said(format!("… {more} more frames"))]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{ProfileBuilder, library, own, remark};

    fn labels(state: State, library_frames: bool, frames: &[Frame]) -> Vec<String> {
        let mut builder = ProfileBuilder::new();
        builder.slice(state, 1, 1, frames);
        let profile = builder.build();
        let mut steps = Steps::new(library_frames);
        let path = steps.path(&profile, profile.slices[0].stack, state);
        path.iter().map(|&at| format!("{}{}", if steps.get(at).own { "" } else { "~" }, steps.get(at).label)).collect()
    }

    fn waiting() -> Vec<Frame> {
        vec![
            library("tokio::runtime::task::poll"),
            library("axum::handler::call"),
            own("app::page", 7),
            library("futures_util::future::join::poll"),
            own("app::load", 9),
            library("tokio::sync::Mutex::lock"),
            library("tokio::sync::batch_semaphore::Semaphore::close"),
            library("tokio::sync::batch_semaphore::Acquire::poll"),
            library("core::task::wake::Waker::clone"),
        ]
    }

    /// Guards: the application's frames lead, and what they wait for keeps its name.
    #[test]
    fn the_applications_frames_lead() {
        assert_eq!(
            labels(State::Waiting, false, &waiting()),
            [
                "app::page src/app.rs:7",
                "~… 1 frame of futures_util",
                "app::load src/app.rs:9",
                "~tokio::sync::Mutex::lock tokio-1.2.3/src/lib.rs:100",
                "~… 1 frame of tokio",
                "~tokio::sync::batch_semaphore::Acquire::poll tokio-1.2.3/src/lib.rs:100",
            ]
        );
        assert_eq!(labels(State::Waiting, true, &waiting()).len(), waiting().len());
        // A remark does not hide what else is known.
        let mut any = waiting();
        any.push(remark("[any of 3]"));
        let any = labels(State::Waiting, false, &any);
        assert_eq!((any.len(), any.last().unwrap().as_str()), (7, "[any of 3]"));
    }

    /// Guards: samples of one function share a box, whatever their line. Waits are separated by their line.
    #[test]
    fn only_waits_are_separated_by_line() {
        let frames = [own("app::page", 7), own("app::resize", 9)];
        assert_eq!(labels(State::OnCpu, false, &frames), ["app::page src/app.rs", "app::resize src/app.rs"]);
        assert_eq!(labels(State::Blocked, false, &frames), ["app::page src/app.rs:7", "app::resize src/app.rs:9"]);
    }

    #[test]
    fn deep_stacks_keep_their_ends() {
        let frames: Vec<Frame> = (0..5_000).map(|line| own("app::recurse", line)).collect();
        let labels = labels(State::Waiting, false, &frames);
        assert_eq!(labels.len(), MAX_STEPS);
        assert_eq!(labels[MAX_STEPS / 2], "~… 4937 more frames");
        assert!(labels[MAX_STEPS - 1].ends_with(":4999"));
    }

    /// Guards: a damaged profile causes neither a panic nor an endless loop.
    #[test]
    fn dangling_references_cause_no_panic() {
        let mut builder = ProfileBuilder::new();
        builder.slice(State::OnCpu, 1, 1, &[own("app::a", 1), own("app::b", 1)]);
        let mut profile = builder.build();
        profile.nodes[0].parent = Some(1);
        profile.nodes[1].frame = 77;
        let mut steps = Steps::new(false);
        for stack in [0, 1, 2, u32::MAX] {
            assert!(steps.path(&profile, stack, State::OnCpu).len() <= 1);
        }
    }
}
