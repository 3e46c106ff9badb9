//! Where the time went, by function and by await point.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::names::is_remark;
use super::stacks::{Stack, stacks};
use crate::profile::{Profile, State};
use crate::report::Frame;

/// Time, by what the request did in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    nanos: [u64; 5],
}

impl Times {
    pub(crate) const STATES: [State; 5] = [State::OnCpu, State::Blocked, State::NoCpu, State::Waiting, State::Runnable];

    /// Returns the nanoseconds in all states.
    pub(crate) fn sum(&self) -> u64 {
        self.nanos.iter().fold(0, |sum, &nanos| sum.saturating_add(nanos))
    }

    /// Returns the nanoseconds in one state.
    pub(crate) fn of(&self, state: State) -> u64 {
        self.nanos[place(state)]
    }

    /// Returns the state with the most time.
    pub(crate) fn mostly(&self) -> State {
        let most = Self::STATES.into_iter().rev().max_by_key(|&state| self.of(state));
        most.unwrap_or(State::OnCpu)
    }

    pub(crate) fn add(&mut self, state: State, nanos: u64) {
        let time = &mut self.nanos[place(state)];
        *time = time.saturating_add(nanos);
    }
}

fn place(state: State) -> usize {
    match state {
        State::OnCpu => 0,
        State::Blocked => 1,
        State::NoCpu => 2,
        State::Waiting => 3,
        State::Runnable => 4,
    }
}

/// A function or an await point.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Index into [`Profile::frames`] of the first frame of the function in the profile.
    pub(crate) frame: u32,
    /// The time while it was the innermost.
    pub(crate) own: Times,
    /// The time while it was on the stack. Counts once per stack, however often it was there.
    pub(crate) total: Times,
    /// The samples and waits with it on the stack.
    pub(crate) count: u64,
    /// The nanoseconds of [`Profile::beside`] with it on the stack. Never part of the others.
    pub(crate) beside: u64,
}

/// What [`tally()`] counts. Each list in order: most own time, then most total.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Includes remarks in brackets.
    pub(crate) functions: Vec<Row>,
    /// Lines of the application's own functions at which something was awaited. The state is always waiting. A line is
    /// innermost if no other line of the application's own is further in.
    pub(crate) awaits: Vec<Row>,
    /// All of the time.
    pub(crate) whole: Times,
}

/// Counts time by function and by await point. With `library_frames`, each frame counts, and the innermost has the time
/// as its own. Without, only those frames count that [`stacks()`] keeps.
pub(crate) fn tally(profile: &Profile, library_frames: bool) -> Tally {
    let seen = stacks(profile, &profile.slices, library_frames);
    let beside = stacks(profile, &profile.beside, library_frames);
    let mut functions = Counter::new(profile, Key::function);
    let mut awaits = Counter::new(profile, Key::line);
    let mut whole = Times::default();
    for stack in &seen {
        whole.add(stack.state, stack.nanos);
        functions.add(stack, &stack.frames, false);
        awaits.add_await(stack, false);
    }
    for stack in &beside {
        functions.add(stack, &stack.frames, true);
        awaits.add_await(stack, true);
    }
    Tally { functions: functions.rows(), awaits: awaits.rows(), whole }
}

/// What makes two frames count as one row.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Key<'a> {
    Function(&'a str),
    Line(Option<&'a str>, Option<&'a str>, Option<u32>),
    Address(Option<&'a str>, &'a str),
}

impl<'a> Key<'a> {
    fn function(frame: &'a Frame) -> Self {
        match (frame.function.as_deref(), frame.file.as_deref()) {
            (Some(function), _) => Self::Function(function),
            (None, Some(file)) => Self::Line(None, Some(file), frame.line),
            (None, None) => Self::Address(frame.module.as_deref(), &frame.address),
        }
    }

    fn line(frame: &'a Frame) -> Self {
        Self::Line(frame.function.as_deref(), frame.file.as_deref(), frame.line)
    }
}

/// Frames of the same function, whatever their lines.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// For each frame, its group.
    group: Vec<usize>,
    /// For each group, its first frame.
    first: Vec<u32>,
}

impl Groups {
    #[cfg(feature = "callgraph")]
    pub(super) fn of_functions(profile: &Profile) -> Self {
        Self::of(profile, Key::function)
    }

    fn of<'a>(profile: &'a Profile, key: impl Fn(&'a Frame) -> Key<'a>) -> Self {
        let mut groups = HashMap::new();
        let mut first = Vec::new();
        let group = profile.frames.iter().zip(0u32..).map(|(frame, at)| {
            *groups.entry(key(frame)).or_insert_with(|| {
                first.push(at);
                first.len() - 1
            })
        });
        Self { group: group.collect(), first }
    }

    /// Returns the first frame of the function of `frame`. `frame` is from a [`Stack`] of the same profile.
    #[cfg(feature = "callgraph")]
    pub(super) fn first(&self, frame: u32) -> u32 {
        self.first[self.group[frame as usize]]
    }
}

struct Counter<'a> {
    profile: &'a Profile,
    groups: Groups,
    rows: Vec<Row>,
    /// The number of the stack in which each group was last seen, so that recursion counts once.
    last: Vec<u64>,
    stack: u64,
}

impl<'a> Counter<'a> {
    fn new(profile: &'a Profile, key: impl Fn(&'a Frame) -> Key<'a>) -> Self {
        let groups = Groups::of(profile, key);
        let row = |&frame: &u32| Row { frame, own: Times::default(), total: Times::default(), count: 0, beside: 0 };
        let rows: Vec<Row> = groups.first.iter().map(row).collect();
        Self { profile, groups, last: vec![0; rows.len()], rows, stack: 0 }
    }

    /// Counts the stack whose frames are `frames`, outermost first.
    fn add(&mut self, stack: &Stack, frames: &[u32], beside: bool) {
        self.stack += 1;
        for &frame in frames {
            let group = self.groups.group[frame as usize];
            if std::mem::replace(&mut self.last[group], self.stack) == self.stack {
                continue;
            }
            let row = &mut self.rows[group];
            if beside {
                row.beside = row.beside.saturating_add(stack.nanos);
            } else {
                row.total.add(stack.state, stack.nanos);
                row.count += stack.count;
            }
        }
        if let Some(&innermost) = frames.last().filter(|_| !beside) {
            self.rows[self.groups.group[innermost as usize]].own.add(stack.state, stack.nanos);
        }
    }

    fn add_await(&mut self, stack: &Stack, beside: bool) {
        if stack.state == State::Waiting {
            let own = |&&at: &&u32| {
                let frame = &self.profile.frames[at as usize];
                frame.own && !is_remark(frame)
            };
            let frames: Vec<u32> = stack.frames.iter().filter(own).copied().collect();
            self.add(stack, &frames, beside);
        }
    }

    fn rows(self) -> Vec<Row> {
        let mut rows = self.rows;
        rows.retain(|row| row.total.sum() > 0 || row.count > 0 || row.beside > 0);
        rows.sort_by_key(|row| (Reverse(row.own.sum()), Reverse(row.total.sum()), row.frame));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{ProfileBuilder, library, own, remark};

    fn of<'a>(rows: &'a [Row], profile: &Profile, function: &str) -> &'a Row {
        let is = |row: &&Row| profile.frames[row.frame as usize].function.as_deref() == Some(function);
        rows.iter().find(is).unwrap_or_else(|| panic!("no {function} in {rows:?}"))
    }

    /// Guards: own times sum to the whole. Totals count a function once per stack, whatever its line, and recursion once.
    #[test]
    fn own_times_sum_to_the_whole() {
        let mut builder = ProfileBuilder::new();
        let deep = [own("app::handler", 1), own("app::walk", 5), own("app::walk", 6), own("app::walk", 5)];
        builder.slice(State::OnCpu, 300, 3, &deep);
        builder.slice(State::Blocked, 100, 1, &[own("app::handler", 2), library("std::fs::read")]);
        builder.slice(State::Waiting, 500, 2, &[own("app::handler", 3), library("tokio::time::Sleep::poll")]);
        builder.slice(State::Waiting, 50, 1, &[own("app::handler", 4), own("app::load", 9)]);
        builder.slice(State::Runnable, 7, 0, &[remark("[not scheduled]")]);
        builder.beside(State::OnCpu, 900, 9, &[own("app::child", 1)]);
        let profile = builder.build();
        for library_frames in [true, false] {
            let tally = tally(&profile, library_frames);
            assert_eq!(tally.whole.sum(), profile.wall_nanos);
            assert_eq!(tally.functions.iter().map(|row| row.own.sum()).sum::<u64>(), profile.wall_nanos);
            let walk = of(&tally.functions, &profile, "app::walk");
            assert_eq!((walk.own.sum(), walk.total.of(State::OnCpu), walk.count), (300, 300, 3));
            let handler = of(&tally.functions, &profile, "app::handler");
            assert_eq!((handler.own.sum(), handler.total.sum(), handler.count), (0, 950, 7));
            assert_eq!(handler.total.mostly(), State::Waiting);
            assert_eq!(of(&tally.functions, &profile, "[not scheduled]").own.of(State::Runnable), 7);
            let child = of(&tally.functions, &profile, "app::child");
            assert_eq!((child.total.sum(), child.beside), (0, 900));

            // Lines 3 and 4 of the handler are two await points. At one of them, it is the innermost of its own code.
            assert_eq!(tally.awaits.len(), 3);
            let line = |line| {
                let at = |row: &&Row| profile.frames[row.frame as usize].line == Some(line);
                tally.awaits.iter().find(at).map(|row| (row.own.sum(), row.total.sum(), row.count))
            };
            assert_eq!((line(3), line(4), line(9)), (Some((500, 500, 2)), Some((0, 50, 1)), Some((50, 50, 1))));
        }
    }

    /// Guards: without library frames, what the application calls keeps its name. What is around it and inside it does not.
    #[test]
    fn folding_keeps_the_library_calls_of_own_code() {
        let mut builder = ProfileBuilder::new();
        let stack = |leaf: &str| {
            [
                library("axum::handler::call"),
                own("app::handler", 1),
                library("tokio::sync::Mutex::lock"),
                library("tokio::sync::Mutex::acquire"),
                library(leaf),
            ]
        };
        builder.slice(State::Waiting, 10, 1, &stack("tokio::sync::batch_semaphore::Acquire::poll"));
        builder.slice(State::Waiting, 20, 1, &stack("tokio::sync::batch_semaphore::Acquire::poll"));
        let profile = builder.build();
        let few = stacks(&profile, &profile.slices, false);
        let names: Vec<_> =
            few[0].frames.iter().map(|&at| profile.frames[at as usize].function.as_deref().unwrap()).collect();
        assert_eq!(names, ["app::handler", "tokio::sync::Mutex::lock", "tokio::sync::batch_semaphore::Acquire::poll"]);
        assert_eq!((few.len(), few[0].nanos, few[0].count), (1, 30, 2));
        assert_eq!(stacks(&profile, &profile.slices, true)[0].frames.len(), 5);
    }

    /// Guards: a stored profile that was damaged, or written by another version, causes neither a panic nor an endless loop.
    #[test]
    fn a_damaged_profile_causes_no_panic() {
        let mut builder = ProfileBuilder::new();
        builder.slice(State::OnCpu, 10, 1, &[own("app::a", 1), own("app::b", 1)]);
        let mut profile = builder.build();
        profile.nodes[0].parent = Some(1);
        profile.nodes[1].frame = 77;
        profile.slices.push(crate::profile::Slice { stack: 1_000, nanos: u64::MAX, ..profile.slices[0] });
        let tally = tally(&profile, true);
        assert_eq!(tally.whole.sum(), u64::MAX);
        assert_eq!(tally.functions.len(), 1);
    }
}
