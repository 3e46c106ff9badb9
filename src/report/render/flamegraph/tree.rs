//! The timeline and its stacks as a tree of boxes, whose widths sum to the work's time.

use super::super::fold::{Part, describe_folded, readable};
use super::super::sentence::busy_with;
use super::super::units::count;
use super::label;
use super::state::State;
use crate::report::{Activity, Interval, Report, Stack, StackKind};

/// How many branches, children or culprits stand beside each other; what is more is in the JSON form.
const MAX_COLUMNS: usize = 16;

/// How many boxes a stack has at most: of a deep recursion, the ends.
const MAX_STEPS: usize = 64;

/// One box and what stands on it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) label: String,
    pub(super) state: State,
    /// Of the application's own code, or said by heeler.
    pub(super) own: bool,
    /// Microseconds that it is wide.
    pub(super) width: u64,
    /// Microseconds that it took: more than its width where it happened at the same time as what stands beside it.
    pub(super) time: u64,
    /// Waits or polls.
    pub(super) waits: u64,
    /// How it is known.
    pub(super) remark: String,
    pub(super) children: Vec<Node>,
}

/// What a box is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    label: String,
    own: bool,
    remark: String,
}

/// What stands beside something else on the same box.
type Column = Vec<Step>;

/// A share of the time.
#[derive(Clone, Copy)]
struct Share {
    state: State,
    width: u64,
    time: u64,
    waits: u32,
}

impl Step {
    fn said(label: impl AsRef<str>) -> Self {
        Self { label: label::text(label.as_ref()), own: true, remark: String::new() }
    }

    fn foreign(label: impl AsRef<str>) -> Self {
        Self { own: false, ..Self::said(label) }
    }
}

impl Node {
    fn new(step: Step, state: State) -> Self {
        let (width, time, waits, children) = (0, 0, 0, Vec::new());
        Self { label: step.label, state, own: step.own, width, time, waits, remark: step.remark, children }
    }

    /// Adds a share of time to what lies on the way, and hands out the last box of it.
    fn add(&mut self, path: impl IntoIterator<Item = Step>, share: Share) -> &mut Self {
        let mut node = self;
        for step in path {
            let known = node.children.iter().position(|child| child.label == step.label && child.own == step.own);
            let at = known.unwrap_or_else(|| {
                node.children.push(Self::new(step, share.state));
                node.children.len() - 1
            });
            node = &mut node.children[at];
            node.width += share.width;
            node.time += share.time;
            node.waits += u64::from(share.waits);
        }
        node
    }

    /// Adds what happened at the same time, side by side: each took the whole time and is as wide as its part.
    fn add_columns(&mut self, columns: Vec<Column>, share: Share) {
        let many = columns.len() as u64;
        for (index, column) in (0..).zip(columns) {
            // The first takes what cannot be shared evenly.
            let width = share.width / many + if index == 0 { share.width % many } else { 0 };
            self.add(column, Share { width, ..share });
        }
    }

    /// Longest first, what nobody saw last: so the left is where to look.
    fn sort(&mut self) {
        self.children.sort_by_key(|child| (child.state == State::Unobserved, std::cmp::Reverse(child.width)));
        self.children.iter_mut().for_each(Self::sort);
    }
}

/// The whole time of the work and what it was spent on.
///
/// The shares of the timeline sum to the time: what they lack was not observed, and what they have too much is taken from
/// the shortest. Without a time of the work's own, it is their sum.
pub(super) fn tree(report: &Report) -> Node {
    let shares: u64 = report.timeline.iter().map(|interval| micros(interval.ms)).fold(0, u64::saturating_add);
    let whole = match micros(report.elapsed_ms) {
        0 => shares.min(MAX_MICROS),
        elapsed => elapsed,
    };
    let mut root = Node::new(Step::said("all"), State::Unobserved);
    (root.width, root.time) = (whole, whole);
    let mut left = whole;
    for interval in &report.timeline {
        let width = micros(interval.ms).min(left);
        left -= width;
        if width > 0 {
            add_interval(&mut root, interval, width, report);
        }
    }
    if left > 0 {
        let share = Share { state: State::Unobserved, width: left, time: left, waits: 0 };
        root.add([Step::said(State::Unobserved.root(None))], share);
    }
    root.sort();
    root
}

/// 285 years: sums of these are exact, and fit.
const MAX_MICROS: u64 = 1 << 53;

/// Milliseconds as whole microseconds; 0 for what is no duration.
fn micros(ms: f64) -> u64 {
    if ms.is_nan() { 0 } else { ((ms * 1e3).round() as u64).min(MAX_MICROS) }
}

fn add_interval(root: &mut Node, interval: &Interval, width: u64, report: &Report) {
    let stack = interval.stack.and_then(|at| report.stacks.get(at));
    let thread = stack.and_then(|stack| stack.thread.as_ref()).or(report.thread.as_ref());
    let state = State::of(interval.activity, thread);
    let share = Share { state, width, time: width, waits: interval.waits };
    let (mut path, mut columns) = side_by_side(&branches(interval, report));
    path.insert(0, Step::said(state.root(thread)));
    // What the wait is on, as far as heeler saw it: at the capture.
    let beside: Vec<&Stack> = match interval.activity {
        Activity::Runnable => of_moment(report, |stack| stack.kind == StackKind::Culprit),
        Activity::Waiting if stack.is_some_and(|stack| stack.current) => {
            of_moment(report, |stack| stack.kind != StackKind::Culprit && stack.child.is_some())
        }
        _ => Vec::new(),
    };
    let beside = places(&beside);
    let many = beside.len();
    columns.extend((1..).zip(beside).map(|(number, (stack, more))| seen_at_capture(stack, number, many, more)));
    if columns.len() > MAX_COLUMNS {
        let more = columns.len() - (MAX_COLUMNS - 1);
        columns.truncate(MAX_COLUMNS - 1);
        columns.push(vec![Step::said(format!("{more} more, in the JSON form"))]);
    }
    root.add(path, share).add_columns(columns, share);
}

/// The stacks of one interval: one, or the branches of a `join!` or `select!`.
fn branches<'a>(interval: &Interval, report: &'a Report) -> Vec<&'a Stack> {
    let Some((at, first)) = interval.stack.and_then(|at| Some((at, report.stacks.get(at)?))) else { return Vec::new() };
    let is_branch = |stack: &&Stack| stack.kind == StackKind::Await && stack.child.is_none();
    if !is_branch(&first) {
        return vec![first];
    }
    if first.current {
        return of_moment(report, |stack| is_branch(&stack));
    }
    // Of an earlier wait, the branch that was polled last comes first: they are numbered downwards to 0.
    let mut numbers = (0..=first.branch).rev();
    let stacks = report.stacks[at..].iter().take_while(is_branch);
    stacks.take_while(|stack| !stack.current && numbers.next() == Some(stack.branch)).collect()
}

fn of_moment(report: &Report, is: impl Fn(&Stack) -> bool) -> Vec<&Stack> {
    report.stacks.iter().filter(|stack| stack.current && is(stack)).collect()
}

/// The different places among the stacks, each with how many more there are of it.
fn places<'a>(stacks: &[&'a Stack]) -> Vec<(&'a Stack, u64)> {
    let mut places: Vec<(&Stack, u64)> = Vec::new();
    for &stack in stacks {
        match places.iter_mut().find(|(known, _)| known.is_at_same_place_as(stack) && known.work == stack.work) {
            Some((_, more)) => *more += 1,
            None => places.push((stack, 0)),
        }
    }
    places
}

/// What all branches have in common, and where they part.
fn side_by_side(branches: &[&Stack]) -> (Vec<Step>, Vec<Column>) {
    let places = places(branches);
    if let [(stack, more)] = places[..] {
        let mut steps = steps(stack);
        if more > 0
            && let Some(last) = steps.last_mut()
        {
            last.remark = format!("and {} through the same lines", count(more, "more wait"));
        }
        return (steps, Vec::new());
    }
    let mut columns: Vec<Column> = places.iter().map(|(stack, _)| steps(stack)).collect();
    let common = (0..)
        .take_while(|&at| {
            columns
                .first()
                .and_then(|column| column.get(at))
                .is_some_and(|step| columns.iter().all(|column| column.get(at) == Some(step)))
        })
        .count();
    let path = columns.first().map(|column| column[..common].to_vec()).unwrap_or_default();
    let many = columns.len();
    for (number, (column, (_, more))) in (1..).zip(columns.iter_mut().zip(&places)) {
        let alike = if *more > 0 { format!(" and {more} like it") } else { String::new() };
        let head = Step {
            remark: "at the same time as the others".to_owned(),
            ..Step::said(format!("branch {number} of {many}{alike}"))
        };
        column.splice(..common, [head]);
    }
    (path, columns)
}

/// Child work, or what holds a worker.
fn seen_at_capture(stack: &Stack, number: usize, many: usize, more: u64) -> Column {
    // So that two of them are never one box.
    let number = if many > 1 { format!(" {number} of {many}") } else { String::new() };
    let mut head = match &stack.child {
        Some(child) => format!("its child work{number}: {child}"),
        None => format!("what holds a worker{number}"),
    };
    if let Some(work) = &stack.work {
        head.push_str(&format!(": {work}"));
    }
    if let Some(busy) = stack.thread.as_ref().and_then(busy_with) {
        head.push_str(&format!(", {busy}"));
    }
    if more > 0 {
        head.push_str(&format!(", and {more} like it"));
    }
    let mut column = vec![Step { remark: "as seen at the capture".to_owned(), ..Step::said(head) }];
    column.extend(steps(stack));
    column
}

/// A stack's boxes, outermost first.
fn steps(stack: &Stack) -> Vec<Step> {
    let mut steps: Vec<Step> = readable(stack)
        .into_iter()
        .rev()
        .map(|part| match part {
            Part::Frame(frame) => Step { label: label::frame(frame), own: frame.own, remark: String::new() },
            Part::Folded(frames) => Step::foreign(describe_folded(frames)),
        })
        .collect();
    if steps.len() > MAX_STEPS {
        let more = steps.len() - (MAX_STEPS - 1);
        steps.splice(MAX_STEPS / 2..MAX_STEPS / 2 + more, [Step::foreign(format!("… {more} more frames"))]);
    }
    if stack.truncated {
        steps.insert(0, Step::foreign("… the outer frames are missing"));
    }
    if stack.reconstructed {
        steps.insert(0, Step::foreign("likely, not certain: reconstructed from what the last poll left behind"));
    }
    steps
}
