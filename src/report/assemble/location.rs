//! Finds the frame that an engineer should look at first.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::awaiting::awaited_by;
use super::churn;
use super::phrases::Awaited;
use super::yielding::says_so;
use crate::capture::{Frame, is_std, origin};
use crate::monitor::Verdict;
use crate::report::model::words::StackKind;
use crate::report::model::{Location, Report, Stack};
use crate::text::units::at;

/// Innermost functions of a branch that only waits for a time or for the end of the program.
///
/// `Notified`, channels and `watch` are not among them. They often signal a shutdown, but just as often a request is
/// stuck on them.
const IDLE: [&str; 8] = [
    "tokio::time::sleep::Sleep",
    "tokio::time::interval::Interval",
    "tokio::runtime::time::",
    "tokio::signal::",
    // Not the whole module: `run_until_cancelled` holds the work itself.
    "tokio_util::sync::cancellation_token::WaitForCancellation",
    "tokio_util::time::delay_queue::DelayQueue",
    "async_io::Timer",
    "futures_timer::",
];

/// How many of the innermost frames are searched for [`IDLE`]. The frames that register a waker come before the timer,
/// a dozen frames deep.
const LEAF: usize = 32;

/// Parts of names of functions that register a waker. They are innermost in every wait, and don't explain any.
const REGISTERING: [&str; 7] =
    ["Waker", "atomic_waker", "catch_unwind", "__rust_try", "::loom::", "UnsafeCell", "AssertUnwindSafe"];

/// Crates that every request runs on. Their frames don't say what this one does.
const LIBRARY_CRATES: [&str; 16] = [
    "std",
    "tokio",
    "tokio_util",
    "tokio_stream",
    "futures",
    "futures_core",
    "futures_util",
    "hyper",
    "hyper_util",
    "h2",
    "http_body_util",
    "tower",
    "tower_http",
    "axum",
    "axum_core",
    "tracing",
];

/// Returns `photos::load at src/slow.rs:88`, as far as known.
pub(crate) fn place(location: &Location) -> String {
    let at = at(location.file.as_deref(), location.line);
    match (location.function.as_deref(), at) {
        (Some(function), Some(at)) => format!("{function} at {at}"),
        (Some(function), None) => function.to_owned(),
        (None, at) => at.unwrap_or_else(|| "an unknown place".to_owned()),
    }
}

/// Sorts the stacks into reading order, and updates the timeline's references. The order depends only on what the
/// stacks say, not on the order in which `select!` polled its branches.
///
/// Stacks of the capture come before older ones. For *starved*, the culprits come first. Otherwise the work's own
/// stacks come first, then its children's. Branches that only wait for a timer or a shutdown come after the others.
pub(crate) fn arrange(report: &mut Report) {
    // By function, because a busy thread is on a different line each time.
    let name = |place: &Location| place.function.clone().or_else(|| place.file.clone());
    let mut holders: HashMap<Option<String>, usize> = HashMap::new();
    for stack in report.stacks.iter().filter(|stack| stack.kind == StackKind::Culprit) {
        *holders.entry(location_of(stack).as_ref().and_then(name)).or_default() += 1;
    }
    let key = |stack: &Stack| {
        let place = location_of(stack);
        let group = match (stack.kind, &stack.child, report.verdict) {
            (StackKind::Culprit, _, Verdict::Starved) => 0,
            (StackKind::Culprit, ..) => 3,
            (_, None, _) => 1,
            (_, Some(_), _) => 2,
        };
        // The place that holds the most workers explains the most.
        let holds = match stack.kind {
            StackKind::Culprit => holders.get(&place.as_ref().and_then(name)).copied().unwrap_or(0),
            _ => 0,
        };
        let at = place.map(|place| (place.file, place.line, place.function));
        // The branch that says the most of a place is shown for it.
        let rank = awaited_by(stack).map_or((usize::MAX, 0), Awaited::rank);
        let path: Vec<_> = stack.frames.iter().map(|frame| (frame.function.clone(), frame.line)).collect();
        let works = report.verdict == Verdict::Yielding && says_so(stack);
        (
            group,
            stack.child.clone(),
            Reverse(holds),
            !works,
            is_idle(stack),
            leading_frame(stack).is_none(),
            at,
            rank,
            path,
            stack.branch,
        )
    };
    let mut order: Vec<usize> = (0..report.stacks.len()).collect();
    // Older stacks keep their order, which is the timeline's.
    order.sort_by_cached_key(|&at| match &report.stacks[at] {
        stack if stack.current => (false, Some(key(stack))),
        _ => (true, None),
    });
    let mut new_place = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        new_place[old] = new;
    }
    // The branches of the current wait stand together. The timeline refers to the one that is now first.
    let is_branch = |stack: &Stack| stack.current && stack.kind == StackKind::Await && stack.child.is_none();
    let leading = order.iter().position(|old| is_branch(&report.stacks[*old]));
    let new_place_of = |old: usize| match report.stacks.get(old) {
        Some(stack) if is_branch(stack) => leading,
        Some(_) => new_place.get(old).copied(),
        None => None,
    };
    for interval in &mut report.timeline {
        interval.stack = interval.stack.and_then(new_place_of);
    }
    let mut stacks: Vec<Option<Stack>> = std::mem::take(&mut report.stacks).into_iter().map(Some).collect();
    report.stacks = order.into_iter().filter_map(|old| stacks[old].take()).collect();
}

/// The function, file and line of a frame.
type Line<'a> = (Option<&'a str>, Option<&'a str>, Option<u32>);

impl Stack {
    /// Returns the kind of stack, whose it is, and its lines of the application's own code. If there are none, returns
    /// all lines.
    pub(in crate::report) fn place(&self) -> (StackKind, Option<&str>, Vec<Line<'_>>) {
        (self.kind, self.child.as_deref(), self.lines().collect())
    }

    /// Returns whether two stacks have the same [`place`](Self::place). Stacks without own code must be equal
    /// throughout.
    pub(in crate::report) fn is_at_same_place_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.child == other.child && self.lines().eq(other.lines())
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let all = own_frame(self).is_none();
        let frames = self.frames.iter().filter(move |frame| all || frame.own);
        frames.map(|frame| (frame.function.as_deref(), frame.file.as_deref(), frame.line))
    }
}

/// Returns the place that matters most in an [arranged](arrange) report: the place of its [leading stack](leading_stack).
pub(crate) fn locate(report: &Report) -> Option<Location> {
    if report.verdict == Verdict::Churning
        && let Some(place) = churn::place(report)
    {
        return Some(place);
    }
    leading_stack(report).and_then(location_of)
}

/// Returns the stack that an [arranged](arrange) report is about: the first with an own frame that
/// [leads](leading_frame), or else the first that has a place at all.
pub(in crate::report) fn leading_stack(report: &Report) -> Option<&Stack> {
    // A starved request isn't at fault, so its own frames don't explain anything.
    let relevant = |stack: &&Stack| report.verdict != Verdict::Starved || stack.kind == StackKind::Culprit;
    let current = || report.stacks.iter().filter(|stack| stack.current).filter(relevant);
    let leads = current().find(|stack| leading_frame(stack).is_some());
    leads.or_else(|| current().find(|stack| location_of(stack).is_some()))
}

/// Returns the place of the first child work with an own frame, if the report's location isn't in child work itself.
pub(crate) fn locate_child(report: &Report) -> Option<Location> {
    child_stack(report).and_then(leading_frame).map(place_of)
}

/// Returns the stack that [`locate_child`] is about.
pub(in crate::report) fn child_stack(report: &Report) -> Option<&Stack> {
    let mut current = report.stacks.iter().filter(|stack| stack.current && stack.kind != StackKind::Culprit);
    let own = current.clone().any(|stack| stack.child.is_none() && leading_frame(stack).is_some());
    let child = current.find(|stack| stack.child.is_some() && leading_frame(stack).is_some())?;
    own.then_some(child)
}

/// Returns the place of one stack: its innermost own frame, or else the nearest frame of a library that does the work
/// (a database's client rather than the lock that it waits for), or else the nearest frame that has a name.
pub(crate) fn location_of(stack: &Stack) -> Option<Location> {
    // Nobody should have to look at heeler's own frames, wherever they are.
    let named = || stack.frames.iter().filter(|frame| frame.function.is_some() && !frame.is_heelers());
    leading_frame(stack)
        .or_else(|| extractor(stack))
        .or_else(|| named().find(|frame| !is_library(frame)))
        .or_else(|| named().find(|frame| !is_std(frame) && !is_registering(frame)))
        .or_else(|| named().next())
        .map(place_of)
}

/// Returns the own frame that says where the work is: the innermost, except on a wait for a body. There, the
/// application's own body that only wraps another isn't at fault, and neither is a middleware that has called a handler
/// which waits for it.
pub(crate) fn leading_frame(stack: &Stack) -> Option<&Frame> {
    leading(stack).map(|at| &stack.frames[at])
}

/// Returns which frame [leads](leading_frame).
pub(in crate::report) fn leading(stack: &Stack) -> Option<usize> {
    let frames = &stack.frames;
    let innermost = frames.iter().position(|frame| frame.own)?;
    if stack.kind != StackKind::Await || !frames[..innermost].iter().any(polls_body) {
        return Some(innermost);
    }
    let mut own = (innermost..frames.len()).filter(|&at| frames[at].own);
    let leads = own.find(|&at| !polls_body(&frames[at]));
    match leads {
        Some(at) if frames[..at].iter().any(is_called_by_middleware) => None,
        // A body that nobody else's code waits for, like one that a server sends, is at fault itself.
        leads => Some(leads.unwrap_or(innermost)),
    }
}

/// Returns whether a frame asks a body for more.
fn polls_body(frame: &Frame) -> bool {
    frame.function.as_deref().is_some_and(|name| name.ends_with("::poll_frame"))
}

/// Returns whether a frame is one between middlewares and a handler.
fn is_called_by_middleware(frame: &Frame) -> bool {
    const BETWEEN: [&str; 3] =
        ["axum::middleware::from_fn::Next", "axum::routing::route::RouteFuture", "axum::handler::"];
    let name = frame.function.as_deref().unwrap_or_default().trim_start_matches('<');
    BETWEEN.iter().any(|between| name.starts_with(between))
}

/// Returns the function that reads a request for a handler, on a wait for a body.
fn extractor(stack: &Stack) -> Option<&Frame> {
    let is_extractor = |frame: &&Frame| frame.function.as_deref().is_some_and(|name| name.ends_with("::from_request"));
    let waits = stack.kind == StackKind::Await && stack.frames.iter().any(polls_body);
    stack.frames.iter().rfind(is_extractor).filter(|_| waits)
}

/// Returns the innermost of the application's own frames.
pub(crate) fn own_frame(stack: &Stack) -> Option<&Frame> {
    stack.frames.iter().find(|frame| frame.own)
}

/// Returns whether a frame only registers a waker.
pub(crate) fn is_registering(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    !frame.own && REGISTERING.iter().any(|part| function.contains(part))
}

/// Returns whether a frame belongs to the runtime, the server or similar, or to an unknown crate.
fn is_library(frame: &Frame) -> bool {
    // If the crate isn't known, `origin` returns the module.
    let package = origin(frame).filter(|package| frame.module.as_ref() != Some(package));
    is_std(frame)
        || is_registering(frame)
        || frame.is_heelers()
        || package.is_none_or(|package| LIBRARY_CRATES.contains(&&*package))
}

pub(in crate::report) fn place_of(frame: &Frame) -> Location {
    Location { function: frame.function.clone(), file: frame.file.clone(), line: frame.line }
}

/// Returns whether a branch only waits for a timer or a shutdown.
pub(in crate::report) fn is_idle(stack: &Stack) -> bool {
    let leaf = stack.frames.iter().take_while(|frame| !frame.own).take(LEAF);
    let mut functions = leaf.filter_map(|frame| frame.function.as_deref());
    // `<tokio::time::sleep::Sleep as Future>::poll` begins with a bracket.
    stack.kind == StackKind::Await
        && functions.any(|function| IDLE.iter().any(|idle| function.trim_start_matches('<').starts_with(idle)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::testing::{await_stack, culprit, library, own, report};
    use crate::report::{Activity, Interval};

    fn place(report: &mut Report) -> Option<String> {
        arrange(report);
        locate(report).map(|place| place.to_string())
    }

    #[test]
    fn the_innermost_own_frame_is_the_place() {
        let mut report = report();
        assert_eq!(place(&mut report).unwrap(), "photos::wait_for_import examples/photos/slow.rs:88");
        report.stacks.clear();
        assert_eq!(place(&mut report), None);
        let registering = library("tokio::sync::task::atomic_waker::AtomicWaker::do_register");
        report.stacks.push(await_stack(&[
            library("core::task::Waker::clone"),
            registering,
            library("tokio::sync::Notify::poll"),
        ]));
        assert!(place(&mut report).unwrap().starts_with("tokio::sync::Notify::poll"), "the nearest name");
    }

    /// Guards: without an own frame, the library that does the work says more than the lock that it waits for, or the
    /// server that called it.
    #[test]
    fn a_working_library_is_named_before_a_lock() {
        let lock = || library("<tokio::sync::watch::Receiver<T>>::changed");
        let bare = Frame { file: None, ..library("__clone3") };
        let server =
            [library("<tower::util::Oneshot<S, R> as core::future::Future>::poll"), library("heeler::x"), bare];
        let stack = |frames: &[Frame]| await_stack(&[frames, &server[..]].concat());
        let at = |stack: &Stack| location_of(stack).unwrap().function.unwrap();
        let library = stack(&[lock(), library("tonic_health::server::watch"), library("tonic::server::streaming")]);
        assert_eq!(at(&library), "tonic_health::server::watch");
        assert_eq!(at(&stack(&[lock()])), "<tokio::sync::watch::Receiver<T>>::changed");
        let mut own = library;
        own.frames.push(crate::report::testing::own("app::health", 1));
        assert_eq!(at(&own), "app::health");
    }

    /// Guards: a report never points to heeler, even if heeler was captured there.
    #[test]
    fn no_report_points_to_heeler() {
        let heelers = || library("heeler::inflight::poll::Watched::poll");
        let lock = || library("<tokio::sync::watch::Receiver<T>>::changed");
        let at = |frames: &[Frame]| location_of(&await_stack(frames)).and_then(|place| place.function);
        assert_eq!(at(&[heelers(), lock(), heelers()]).unwrap(), "<tokio::sync::watch::Receiver<T>>::changed");
        assert_eq!(at(&[heelers(), library("core::ptr::copy")]).unwrap(), "core::ptr::copy");
        assert_eq!(at(&[heelers(), own("app::load", 1), heelers()]).unwrap(), "app::load");
        assert_eq!(at(&[heelers(), heelers()]), None, "rather nothing");
        let mut held = report();
        held.verdict = Verdict::Starved;
        held.stacks = vec![culprit(&[heelers(), library("std::thread::sleep"), heelers()])];
        assert!(place(&mut held).unwrap().starts_with("std::thread::sleep "));
    }

    /// Guards: in `select! { work, sleep, cancelled }` the work leads, whichever was polled first.
    #[test]
    fn idle_branches_come_last() {
        let branch = |number, leaf: &str, line| {
            let mut stack = await_stack(&[library("core::task::Waker::clone"), library(leaf), own("app::run", line)]);
            stack.branch = number;
            stack
        };
        let branches = [
            branch(0, "<tokio::time::sleep::Sleep as core::future::Future>::poll", 1),
            branch(1, "tokio_util::sync::cancellation_token::WaitForCancellationFuture::poll", 2),
            branch(2, "<tokio::sync::oneshot::Receiver<T> as core::future::Future>::poll", 9),
            branch(3, "tokio::sync::mpsc::Receiver<T>::recv", 8),
        ];
        for turn in 0..branches.len() {
            let mut report = report();
            report.stacks = branches.to_vec();
            report.stacks.rotate_left(turn);
            for (number, stack) in (0..).zip(&mut report.stacks) {
                stack.branch = number;
            }
            assert_eq!(place(&mut report).unwrap(), "app::run src/app.rs:8");
            let lines: Vec<_> = report.stacks.iter().map(|stack| own_frame(stack).unwrap().line.unwrap()).collect();
            assert_eq!(lines, [8, 9, 1, 2]);
        }
        let mut report = report();
        report.stacks = branches[..1].to_vec();
        assert_eq!(place(&mut report).unwrap(), "app::run src/app.rs:1", "a request that only sleeps is stuck there");
    }

    #[test]
    fn the_timeline_follows_reordered_stacks() {
        let mut report = report();
        let mut old = await_stack(&[own("app::earlier", 1)]);
        old.current = false;
        let mut child = await_stack(&[own("app::child", 2)]);
        child.child = Some("resize".to_owned());
        report.stacks = vec![old, child, await_stack(&[own("app::now", 3)])];
        let interval =
            |stack| Interval { activity: Activity::Waiting, stack, waits: 1, time: Duration::from_millis(1) };
        report.timeline = [Some(0), Some(1), Some(2), Some(99), None].map(interval).to_vec();
        assert_eq!(place(&mut report).unwrap(), "app::now src/app.rs:3");
        assert_eq!(
            report.timeline.iter().map(|interval| interval.stack).collect::<Vec<_>>(),
            [Some(2), Some(1), Some(0), None, None]
        );
        assert_eq!(locate_child(&report).unwrap().to_string(), "app::child src/app.rs:2");
        report.stacks.remove(0);
        assert_eq!(locate(&report).unwrap().to_string(), "app::child src/app.rs:2");
        assert_eq!(locate_child(&report), None, "said already");
    }

    #[test]
    fn starved_work_is_located_at_the_culprits() {
        let mut report = report();
        report.verdict = Verdict::Starved;
        report.stacks.push(culprit(&[own("app::a_rare_one", 1)]));
        report.stacks.push(culprit(&[library("regex::exec"), own("app::is_valid_tag", 5)]));
        report.stacks.push(culprit(&[library("regex::step"), own("app::is_valid_tag", 5)]));
        assert_eq!(place(&mut report).unwrap(), "app::is_valid_tag src/app.rs:5");
        report.stacks.retain(|stack| stack.kind != StackKind::Culprit);
        assert_eq!(place(&mut report), None, "its own await point is not where it is stuck");
    }

    #[test]
    fn a_place_is_told_as_far_as_it_is_known() {
        let mut location =
            Location { function: Some("app::f".to_owned()), file: Some("a.rs".to_owned()), line: Some(3) };
        assert_eq!(super::place(&location), "app::f at a.rs:3");
        location.line = None;
        assert_eq!(super::place(&location), "app::f at a.rs");
        location.function = None;
        assert_eq!(super::place(&location), "a.rs");
        location.file = None;
        assert_eq!(super::place(&location), "an unknown place");
    }
}
