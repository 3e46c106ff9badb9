//! Builds a tree of boxes from the timeline and its stacks. The widths sum to the work's time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::super::fold::{Part, describe_folded, readable};
use super::super::sentence::busy_with;
use super::state::State;
use crate::flamegraph::label;
use crate::report::{Activity, Interval, Report, Stack, StackKind};
use crate::text::units::count;

/// How many branches, children or culprits are drawn side by side. The JSON form has the others.
const MAX_COLUMNS: usize = 16;

/// How many boxes a stack has at most. Of a deep recursion, the ends are kept.
const MAX_STEPS: usize = 64;

/// One box and its children.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) label: String,
    pub(super) state: State,
    /// Whether it is the application's own code, or text of heeler's.
    pub(super) own: bool,
    /// Its width, in microseconds.
    pub(super) width: u64,
    /// The microseconds that it took. This is more than its width if it happened at the same time as its neighbours.
    pub(super) time: u64,
    /// How many waits or polls.
    pub(super) waits: u64,
    /// How it is known.
    pub(super) remark: String,
    pub(super) children: Vec<Node>,
}

/// The contents of a box.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    label: String,
    own: bool,
    remark: String,
}

/// A stack that is drawn beside others on the same box.
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

    /// Adds a share of time to all boxes of the path, and returns the last one.
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

    /// Adds what happened at the same time, side by side. Each took the whole time and gets an equal part of the width.
    fn add_columns(&mut self, columns: Vec<Column>, share: Share) {
        let many = columns.len() as u64;
        for (index, column) in (0..).zip(columns) {
            // The first gets the remainder.
            let width = share.width / many + if index == 0 { share.width % many } else { 0 };
            self.add(column, Share { width, ..share });
        }
    }

    /// Sorts the longest first and unobserved time last, so that the left is where to look.
    fn sort(&mut self) {
        self.children.sort_by_key(|child| (child.state == State::Unobserved, std::cmp::Reverse(child.width)));
        self.children.iter_mut().for_each(Self::sort);
    }
}

/// Builds the tree of the work's whole time.
///
/// The widths sum to the time. If the timeline's shares are less, the rest was not observed. If they are more, the
/// excess is taken from the shortest. If the report has no elapsed time, the sum of the shares is used.
pub(super) fn tree(report: &Report) -> Node {
    let shares: u64 = report.timeline.iter().map(|interval| micros(interval.time)).fold(0, u64::saturating_add);
    let whole = match micros(report.elapsed) {
        0 => shares.min(MAX_MICROS),
        elapsed => elapsed,
    };
    let mut root = Node::new(Step::said("all"), State::Unobserved);
    (root.width, root.time) = (whole, whole);
    let mut left = whole;
    for interval in &report.timeline {
        let width = micros(interval.time).min(left);
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

/// 285 years. Sums of such times are exact and don't overflow.
const MAX_MICROS: u64 = 1 << 53;

/// Rounds to whole microseconds.
fn micros(time: Duration) -> u64 {
    let rounded = time.saturating_add(Duration::from_nanos(500)).as_micros();
    u64::try_from(rounded).unwrap_or(u64::MAX).min(MAX_MICROS)
}

fn add_interval(root: &mut Node, interval: &Interval, width: u64, report: &Report) {
    let stack = interval.stack.and_then(|at| report.stacks.get(at));
    let thread = stack.and_then(|stack| stack.thread.as_ref()).or(report.thread.as_ref());
    let state = State::of(interval.activity, thread);
    let share = Share { state, width, time: width, waits: interval.waits };
    let branches = branches(interval, report);
    let (mut path, mut columns) = side_by_side(&branches);
    path.insert(0, Step::said(state.root(thread)));
    // What the wait is on, as far as heeler saw it at the capture.
    let beside: Vec<&Stack> = match interval.activity {
        Activity::Runnable => of_moment(report, |stack| stack.kind == StackKind::Culprit),
        Activity::Waiting if is_still_there(&branches, report) => {
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

/// Returns the stacks of one interval: one, or the branches of a `join!` or `select!`.
fn branches<'a>(interval: &Interval, report: &'a Report) -> Vec<&'a Stack> {
    let Some((at, first)) = interval.stack.and_then(|at| Some((at, report.stacks.get(at)?))) else { return Vec::new() };
    let is_branch = |stack: &&Stack| stack.kind == StackKind::Await && stack.child.is_none();
    if !is_branch(&first) {
        return vec![first];
    }
    if first.current {
        return of_moment(report, |stack| is_branch(&stack));
    }
    // In an earlier wait, the branch that was polled last comes first. They are numbered downwards to 0.
    let mut numbers = (0..=first.branch).rev();
    let stacks = report.stacks[at..].iter().take_while(is_branch);
    stacks.take_while(|stack| !stack.current && numbers.next() == Some(stack.branch)).collect()
}

/// Returns whether the work also waits at this place at the capture. Waits before it was observed may be a share of
/// their own.
fn is_still_there(branches: &[&Stack], report: &Report) -> bool {
    let current = of_moment(report, |stack| stack.kind == StackKind::Await && stack.child.is_none());
    branches.iter().any(|branch| current.iter().any(|current| current.is_at_same_place_as(branch)))
}

fn of_moment(report: &Report, is: impl Fn(&Stack) -> bool) -> Vec<&Stack> {
    report.stacks.iter().filter(|stack| stack.current && is(stack)).collect()
}

/// Returns the different places among the stacks, each with the number of further stacks there.
fn places<'a>(stacks: &[&'a Stack]) -> Vec<(&'a Stack, u64)> {
    let mut places: Vec<(&Stack, u64)> = Vec::new();
    let mut known: HashMap<_, usize> = HashMap::new();
    for &stack in stacks {
        match known.entry((stack.place(), stack.work.as_deref())) {
            Entry::Occupied(at) => places[*at.get()].1 += 1,
            Entry::Vacant(free) => {
                free.insert(places.len());
                places.push((stack, 0));
            }
        }
    }
    places
}

/// Splits branches into what they have in common, and a column for each.
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

/// Returns the column of child work, or of a culprit.
fn seen_at_capture(stack: &Stack, number: usize, many: usize, more: u64) -> Column {
    // The number keeps two of them from becoming one box.
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

/// Returns the labels of a stack's boxes, outermost first, and whether each is the application's own code.
pub(in crate::report::render) fn boxes(stack: &Stack) -> Vec<(String, bool)> {
    steps(stack).into_iter().map(|step| (step.label, step.own)).collect()
}

/// Returns a stack's boxes, outermost first.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::testing::{await_stack, culprit, library, own, report, thread_stack};

    /// Returns the tree as lines: label, width and, if it differs, time, in milliseconds.
    fn lines(node: &Node) -> Vec<String> {
        let time = if node.time == node.width { String::new() } else { format!("/{}", node.time / 1000) };
        let mut out = vec![format!("{} {}{time}", node.label, node.width / 1000)];
        for child in &node.children {
            out.extend(lines(child).into_iter().map(|line| format!(" {line}")));
        }
        out
    }

    fn draw(mut report: Report, elapsed: f64, stacks: Vec<Stack>, timeline: Vec<Interval>) -> Vec<String> {
        (report.elapsed, report.stacks, report.timeline) = (time(elapsed), stacks, timeline);
        let tree = tree(&report);
        assert_sums(&tree);
        lines(&tree)
    }

    /// Checks that nothing is wider than the box below it.
    fn assert_sums(node: &Node) {
        let children: u64 = node.children.iter().map(|child| child.width).sum();
        assert!(children <= node.width, "{node:#?}");
        assert!(node.children.iter().all(|child| child.time <= node.time), "{node:#?}");
        node.children.iter().for_each(assert_sums);
    }

    fn time(ms: f64) -> Duration {
        Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX)
    }

    fn interval(activity: Activity, stack: impl Into<Option<usize>>, ms: f64) -> Interval {
        Interval { activity, stack: stack.into(), waits: 1, time: time(ms) }
    }

    fn earlier(stack: Stack, branch: u32) -> Stack {
        Stack { current: false, branch, ..stack }
    }

    #[test]
    fn common_frames_of_intervals_share_a_box() {
        let at = |line| earlier(await_stack(&[own("app::load", line), own("app::page", 1), library("axum::x")]), 0);
        let timeline = vec![
            interval(Activity::Waiting, 0, 50.0),
            interval(Activity::Waiting, 1, 30.0),
            interval(Activity::Waiting, None, 5.0),
        ];
        assert_eq!(
            draw(report(), 100.0, vec![at(7), at(8)], timeline),
            [
                "all 100",
                " waiting 85",
                "  … 1 frame of axum 80",
                "   app::page src/app.rs:1 80",
                "    app::load src/app.rs:7 50",
                "    app::load src/app.rs:8 30",
                " not observed 15",
            ]
        );
    }

    /// Guards: branches wait at the same time, and no time counts twice. Branches of another wait are not among them.
    #[test]
    fn branches_are_drawn_side_by_side() {
        let at = |line| await_stack(&[own("app::branch", line), own("app::page", 1)]);
        let branches = [(5, 2), (6, 1), (7, 0), (8, 1), (9, 0)].map(|(line, branch)| earlier(at(line), branch));
        let timeline = vec![interval(Activity::Waiting, 0, 61.0), interval(Activity::Waiting, 3, 39.0)];
        let expected = [
            "all 100",
            " waiting 100",
            "  app::page src/app.rs:1 100",
            "   branch 1 of 3 20/61",
            "    app::branch src/app.rs:5 20/61",
            "   branch 2 of 3 20/61",
            "    app::branch src/app.rs:6 20/61",
            "   branch 3 of 3 20/61",
            "    app::branch src/app.rs:7 20/61",
            "   branch 1 of 2 19/39",
            "    app::branch src/app.rs:8 19/39",
            "   branch 2 of 2 19/39",
            "    app::branch src/app.rs:9 19/39",
        ];
        assert_eq!(draw(report(), 100.0, branches.to_vec(), timeline), expected);
        // Current stacks: all of them, in any order.
        let stacks = vec![at(5), at(6), at(6), Stack { child: Some("spawn".to_owned()), ..at(9) }];
        let lines = draw(report(), 90.0, stacks, vec![interval(Activity::Waiting, 1, 90.0)]);
        let expected = [
            "all 90",
            " waiting 90",
            "  app::page src/app.rs:1 90",
            "   branch 1 of 2 30/90",
            "    app::branch src/app.rs:5 30/90",
            "   branch 2 of 2 and 1 like it 30/90",
            "    app::branch src/app.rs:6 30/90",
            "   its child work: spawn 30/90",
            "    app::page src/app.rs:1 30/90",
            "     app::branch src/app.rs:9 30/90",
        ];
        assert_eq!(lines, expected);
    }

    /// Guards: child work is drawn below the wait for it, whether or not that wait was already running when it was
    /// first captured.
    #[test]
    fn child_work_is_part_of_its_wait() {
        let waits = || await_stack(&[own("app::page", 1)]);
        let mut child = thread_stack(&[own("app::resize", 2)]);
        child.child = Some("spawn_blocking".to_owned());
        let stacks = vec![waits(), child, earlier(waits(), 0), earlier(await_stack(&[own("app::other", 3)]), 0)];
        let timeline = [(2, 60.0), (3, 39.0), (0, 1.0)].map(|(stack, ms)| interval(Activity::Waiting, stack, ms));
        assert_eq!(
            draw(report(), 100.0, stacks, timeline.to_vec()),
            [
                "all 100",
                " waiting 100",
                "  app::page src/app.rs:1 61",
                "   its child work: spawn_blocking, running 61",
                "    app::resize src/app.rs:2 61",
                "  app::other src/app.rs:3 39",
            ]
        );
    }

    #[test]
    fn polls_show_what_their_thread_does() {
        let blocked = |on_cpu, syscall: Option<&str>| {
            let mut stack = thread_stack(&[own("app::read", 3)]);
            let thread = stack.thread.as_mut().unwrap();
            (thread.on_cpu, thread.syscall) = (on_cpu, syscall.map(str::to_owned));
            draw(report(), 10.0, vec![stack], vec![interval(Activity::Running, 0, 10.0)])[1..].join(",")
        };
        assert_eq!(blocked(Some(true), None), " on CPU 10,  app::read src/app.rs:3 10");
        assert_eq!(blocked(Some(true), Some("read")), " on CPU, in system call read 10,  app::read src/app.rs:3 10");
        assert_eq!(blocked(Some(false), None), " blocked in a poll 10,  app::read src/app.rs:3 10");
        assert_eq!(
            blocked(None, Some("futex")),
            " blocked in a poll, in system call futex 10,  app::read src/app.rs:3 10"
        );
        assert_eq!(blocked(None, None), " inside polls 10,  app::read src/app.rs:3 10");
        let stacks =
            vec![culprit(&[own("app::hog", 4)]), culprit(&[own("app::hog", 4)]), culprit(&[own("app::pig", 5)])];
        let timeline = vec![interval(Activity::Runnable, None, 8.0), interval(Activity::Yielding, None, 2.0)];
        assert_eq!(
            draw(report(), 10.0, stacks, timeline),
            [
                "all 10",
                " woken, not polled 8",
                "  what holds a worker 1 of 2: POST /tags, running, and 1 like it 4/8",
                "   app::hog src/app.rs:4 4/8",
                "  what holds a worker 2 of 2: POST /tags, running 4/8",
                "   app::pig src/app.rs:5 4/8",
                " yielding 2",
            ]
        );
    }

    #[test]
    fn doubtful_stacks_are_marked() {
        let doubtful = Stack { truncated: true, reconstructed: true, ..await_stack(&[own("app::load", 7)]) };
        let lines = draw(report(), 1.0, vec![doubtful, await_stack(&[])], vec![interval(Activity::Waiting, 0, 1.0)]);
        assert_eq!(
            lines[2..],
            [
                "  branch 1 of 2 0/1",
                "   likely, not certain: reconstructed from what the last poll left behind 0/1",
                "    … the outer frames are missing 0/1",
                "     app::load src/app.rs:7 0/1",
                "  branch 2 of 2 0/1",
            ]
        );
    }

    #[test]
    fn deep_and_wide_trees_are_bounded() {
        let deep: Vec<_> = (0..5_000).map(|line| own("app::recurse", line)).collect();
        let lines = draw(report(), 1.0, vec![await_stack(&deep)], vec![interval(Activity::Waiting, 0, 1.0)]);
        assert!(lines.len() <= 2 + MAX_STEPS);
        assert!(lines.iter().any(|line| line.trim().starts_with("… 49") && line.contains("frames")), "{lines:#?}");
        let wide: Vec<_> = (0..100).map(|line| await_stack(&[own("app::branch", line)])).collect();
        let lines = draw(report(), 1.0, wide, vec![interval(Activity::Waiting, 0, 1.0)]);
        assert_eq!(lines.len(), 2 + 2 * MAX_COLUMNS - 1);
        assert!(lines.iter().any(|line| line.starts_with("  85 more, in the JSON form")), "{lines:#?}");
    }

    #[test]
    fn odd_durations_are_drawn_without_panic() {
        let odd = [0.0, 0.0004, 40.0];
        let timeline = || odd.map(|ms| interval(Activity::Running, None, ms)).to_vec();
        assert_eq!(draw(report(), 100.0, vec![], timeline()), ["all 100", " inside polls 40", " not observed 60"]);
        // Without an elapsed time, the work took the sum of its shares.
        assert_eq!(draw(report(), 0.0, vec![], timeline()), ["all 40", " inside polls 40"]);
        assert_eq!(draw(report(), 0.0, vec![], vec![]), ["all 0"]);
        // If the shares exceed the whole, the shortest are reduced.
        let more = vec![interval(Activity::Waiting, 9, 90.0), interval(Activity::Running, 9, 20.0)];
        assert_eq!(draw(report(), 100.0, vec![], more), ["all 100", " waiting 90", " inside polls 10"]);
        let endless = vec![interval(Activity::Waiting, None, f64::INFINITY), interval(Activity::Running, None, 1e21)];
        draw(report(), f64::INFINITY, vec![], endless.clone());
        draw(report(), 0.0, vec![], endless);
    }

    proptest! {
        /// Guards: the widths sum to the time of the work, to the microsecond.
        #[test]
        fn widths_sum_to_the_elapsed_time(elapsed in 1..1_000_000_000_000_u64, shares in prop::collection::vec((0..1_000_000_000_u64, 0usize..6, 0usize..9), 0..40)) {
            let mut report = report();
            report.elapsed = Duration::from_micros(elapsed);
            let at = |line| await_stack(&[own("app::branch", line), own("app::page", 1)]);
            report.stacks = (0..4).map(at).chain([1, 0].map(|branch| earlier(at(branch), branch))).collect();
            let activities =
                [Activity::Waiting, Activity::Running, Activity::Runnable, Activity::Yielding, Activity::Unobserved];
            report.timeline = shares
                .into_iter()
                .map(|(micros, kind, stack)| interval(activities[kind % 5], stack, micros as f64 / 1e3))
                .collect();
            let tree = tree(&report);
            let roots: u64 = tree.children.iter().map(|child| child.width).sum();
            prop_assert_eq!((tree.width, roots), (elapsed, elapsed));
            assert_sums(&tree);
        }
    }
}
