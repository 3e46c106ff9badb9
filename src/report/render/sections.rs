//! The stacks of a report in reading order, under headings that say what they are.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::fold::is_dull;
use super::sentence::busy_with;
use super::stacks::{Line, lines};
use crate::report::assemble::awaiting::awaited_by;
use crate::report::assemble::location::{is_idle, place, place_of};
use crate::report::{Report, Stack, StackKind, Thread, Verdict};
use crate::text::units::count;

/// How many stacks of one kind are shown. The JSON form has all.
pub(super) const MAX_STACKS: usize = 16;

/// How many waits of one place are listed beside its stack.
const MAX_FOLDED: usize = 8;

/// The stacks under one heading.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) listings: Vec<Listing>,
}

/// One stack.
#[derive(Debug)]
pub(super) struct Listing {
    /// Used if a section has stacks of several kinds.
    pub(super) title: Option<String>,
    pub(super) lines: Vec<Line>,
}

impl Section {
    fn of(heading: String, stack: &Stack) -> Self {
        Self { heading, listings: vec![Listing { title: None, lines: lines(stack) }] }
    }
}

/// Returns the stacks of the capture: the culprits, the work itself, its child work.
pub(super) fn current_sections(report: &Report) -> Vec<Section> {
    let mut sections = culprits(report);
    sections.extend(branches(report));
    sections.extend(children(report));
    sections.extend(super::cause::section(report));
    sections
}

fn current(report: &Report) -> impl Iterator<Item = &Stack> {
    report.stacks.iter().filter(|stack| stack.current)
}

fn culprits(report: &Report) -> Vec<Section> {
    let culprits: Vec<&Stack> = current(report).filter(|stack| stack.kind == StackKind::Culprit).collect();
    let section = |stack: &&Stack| {
        let work = stack.work.as_ref().map(|work| format!(" by {work}")).unwrap_or_default();
        let thread = stack.thread.as_ref().map(|thread| format!(", thread {}", describe_thread(thread)));
        Section::of(format!("A worker is held{work}{}", thread.unwrap_or_default()), stack)
    };
    culprits.iter().take(MAX_STACKS).map(section).chain(more(culprits.len())).collect()
}

fn branches(report: &Report) -> Vec<Section> {
    // To a reader, branches that part only below the application's own code are at one place.
    let (mut places, mut known): (Vec<(&Stack, Vec<&Stack>)>, HashMap<_, usize>) = Default::default();
    for stack in current(report).filter(|stack| stack.kind != StackKind::Culprit && stack.child.is_none()) {
        match known.entry(stack.place()) {
            Entry::Occupied(known) => places[*known.get()].1.push(stack),
            Entry::Vacant(new) => {
                new.insert(places.len());
                places.push((stack, Vec::new()));
            }
        }
    }
    let section = |(number, (stack, more)): (usize, &(&Stack, Vec<&Stack>))| {
        let branch =
            if places.len() > 1 { format!(", branch {} of {}", number + 1, places.len()) } else { String::new() };
        let mut section = Section::of(format!("{}{branch}{}", title(stack, report.verdict), doubt(stack)), stack);
        section.listings[0].lines.extend(folded(more).into_iter().map(Line::Remark));
        section
    };
    places.iter().enumerate().take(MAX_STACKS).map(section).chain(more(places.len())).collect()
}

/// Returns a line per wait that goes through the lines of a stack that is shown.
fn folded(stacks: &[&Stack]) -> Vec<String> {
    let mut waits: Vec<(String, u64)> = Vec::new();
    let mut rest = 0_u64;
    for stack in stacks {
        let wait = wait_of(stack);
        match waits.iter().position(|(known, _)| *known == wait) {
            Some(at) => waits[at].1 += 1,
            None if waits.len() < MAX_FOLDED => waits.push((wait, 1)),
            None => rest += 1,
        }
    }
    let line = |(wait, times): (String, u64)| match times {
        1 => format!("and {wait}"),
        times => format!("and {} {wait}", count(times, "time")),
    };
    let rest = (rest > 0).then(|| format!("and {} through the same lines, in the JSON form", count(rest, "more wait")));
    waits.into_iter().map(line).chain(rest).collect()
}

/// Returns `waits for a lock, in tokio::sync::mutex::Mutex<T>::lock at tokio-1.54.1/src/sync/mutex.rs:439`.
fn wait_of(stack: &Stack) -> String {
    let awaited = awaited_by(stack);
    let leaf = stack.frames.iter().take_while(|frame| !frame.own);
    let mut telling = leaf.filter(|frame| frame.function.is_some() && !is_dull(frame) && !frame.is_heelers());
    let frame = awaited.and_then(|awaited| stack.frames.get(awaited.frame)).or_else(|| telling.next());
    let what = awaited.map(|awaited| format!(" for {}", awaited.phrase)).unwrap_or_default();
    let place = frame.map(|frame| format!(", in {}", place(&place_of(frame)))).unwrap_or_default();
    format!("waits{what}{place}")
}

fn children(report: &Report) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut number, mut before) = (0, None);
    for stack in current(report).filter(|stack| stack.kind != StackKind::Culprit) {
        let Some(child) = &stack.child else { continue };
        number += 1;
        if number > MAX_STACKS {
            continue;
        }
        if before != Some(child) {
            sections.push(Section { heading: format!("Its child work: {child}"), listings: Vec::new() });
            before = Some(child);
        }
        let title = format!("{}{}", title(stack, report.verdict), doubt(stack));
        if let Some(section) = sections.last_mut() {
            section.listings.push(Listing { title: Some(title), lines: lines(stack) });
        }
    }
    sections.extend(more(number));
    sections
}

/// Returns the stacks that only the timeline refers to.
pub(super) fn earlier_sections(report: &Report) -> Vec<Section> {
    let mut known: HashSet<_> = current(report).map(Stack::place).collect();
    let earlier = report.stacks.iter().filter(|stack| !stack.current);
    let earlier: Vec<&Stack> = earlier.filter(|stack| known.insert(stack.place())).collect();
    let section = |stack: &&Stack| {
        let child = stack.child.as_ref().map(|child| format!(", child work {child}")).unwrap_or_default();
        Section::of(format!("Earlier{child}{}", doubt(stack)), stack)
    };
    earlier.iter().take(MAX_STACKS).map(section).chain(more(earlier.len())).collect()
}

fn more(stacks: usize) -> Option<Section> {
    let more = stacks.checked_sub(MAX_STACKS).filter(|more| *more > 0)?;
    Some(Section { heading: format!("… {more} more, in the JSON form"), listings: Vec::new() })
}

fn title(stack: &Stack, verdict: Verdict) -> String {
    let thread =
        || stack.thread.as_ref().map(|thread| format!(", thread {}", describe_thread(thread))).unwrap_or_default();
    match (stack.kind, verdict) {
        (StackKind::Await, Verdict::Abandoned | Verdict::Interrupted | Verdict::NoWaker) => {
            "Where it last was".to_owned()
        }
        (StackKind::Await, Verdict::Yielding) if !is_idle(stack) => "Where it yields".to_owned(),
        (StackKind::Await, Verdict::Churning) => "Where it waits again and again".to_owned(),
        (StackKind::Await, _) => "Where it waits".to_owned(),
        (StackKind::Thread | StackKind::Culprit, _) => {
            let blocks = stack.thread.as_ref().is_some_and(|thread| thread.on_cpu == Some(false));
            format!("{}{}", if blocks { "Where it blocks" } else { "What runs" }, thread())
        }
    }
}

fn doubt(stack: &Stack) -> &'static str {
    if stack.reconstructed { " (reconstructed from what the last poll left behind: likely, not certain)" } else { "" }
}

/// Returns `4243 tokio-rt-worker, sleeping, in system call futex`.
pub(super) fn describe_thread(thread: &Thread) -> String {
    let mut text = format!("{} {}", thread.id, thread.name);
    let busy = busy_with(thread).filter(|busy| thread.state.as_ref() != Some(busy));
    for part in [thread.state.clone(), busy].into_iter().flatten() {
        text.push_str(", ");
        text.push_str(&part);
    }
    text
}
