//! Finds what waiting work is waiting for, at its place.

use super::location::{child_stack, is_idle, leading, leading_stack, location_of};
use super::phrases::{Awaited, awaited};
use crate::monitor::Verdict;
use crate::report::model::words::StackKind;
use crate::report::model::{Report, Stack};

/// Returns what an [arranged](super::location::arrange) report's work waits for, as a phrase that follows "waiting for".
///
/// The branches at the report's location count, whatever their order. A timer among them counts only if there is
/// nothing else. Work that only waits for child work waits for what that waits for.
pub(in crate::report) fn awaiting(report: &Report) -> Option<String> {
    if !matches!(report.verdict, Verdict::Waiting | Verdict::Abandoned | Verdict::Interrupted) {
        return None;
    }
    let own = awaited_at(report, leading_stack(report)?);
    let of_child = || child_stack(report).and_then(|stack| awaited_at(report, stack));
    let awaited = match own {
        Some(own) if own.is_task() => of_child().or(Some(own)),
        own => own,
    };
    awaited.map(|awaited| awaited.phrase.to_owned())
}

/// Returns a note if the work waits for a task whose stack heeler does not have.
pub(in crate::report) fn unseen_task(report: &Report) -> Option<&'static str> {
    let waits = report.awaiting.as_deref() == Some("another task");
    (waits && report.stacks.iter().all(|stack| stack.child.is_none())).then_some(
        "it waits for a task that heeler does not see: started by heeler::spawn or heeler::spawn_blocking, its stack would be here",
    )
}

/// Returns what a stack, and those beside it at the same place, wait for.
fn awaited_at(report: &Report, leading: &Stack) -> Option<Awaited> {
    let place = location_of(leading);
    let is_beside = |stack: &&Stack| {
        stack.current
            && (&stack.child, stack.kind, is_idle(stack)) == (&leading.child, StackKind::Await, is_idle(leading))
            && location_of(stack) == place
    };
    report.stacks.iter().filter(is_beside).filter_map(awaited_by).min_by_key(|awaited| awaited.rank())
}

/// Returns what one stack waits for.
pub(in crate::report) fn awaited_by(stack: &Stack) -> Option<Awaited> {
    // What has only been put together may be something else's.
    if stack.kind != StackKind::Await || stack.reconstructed {
        return None;
    }
    awaited(&stack.frames[..leading(stack).unwrap_or(stack.frames.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Frame;
    use crate::report::assemble::location::arrange;
    use crate::report::testing::{await_stack, library, own, report};

    const SLEEP: &str = "<tokio::time::sleep::Sleep as core::future::future::Future>::poll";
    const CHECKOUT: &str = "<hyper_util::client::legacy::pool::Checkout<T, K> as core::future::future::Future>::poll";
    const CONNECT: &str = "tokio::net::tcp::stream::TcpStream::connect_mio";

    fn of(stacks: &[Stack]) -> Option<String> {
        let mut forwards = Report { stacks: stacks.to_vec(), ..report() };
        let mut backwards = Report { stacks: stacks.iter().rev().cloned().collect(), ..report() };
        arrange(&mut forwards);
        arrange(&mut backwards);
        assert_eq!(awaiting(&forwards), awaiting(&backwards), "the order of branches makes no difference");
        awaiting(&forwards)
    }

    fn branch(leaf: &str, line: u32) -> Stack {
        await_stack(&[library("core::task::Waker::clone"), library(leaf), own("app::load", line)])
    }

    #[test]
    fn the_branch_that_says_most_counts() {
        let all = [branch(SLEEP, 1), branch(CHECKOUT, 1), branch(CONNECT, 1)];
        assert_eq!(of(&all).unwrap(), "a connection to be made");
        assert_eq!(of(&all[..2]).unwrap(), "a connection of the pool");
        assert_eq!(of(&all[..1]).unwrap(), "a timer");
        assert_eq!(of(&[branch("unknown::Wait::poll", 1), branch(SLEEP, 1)]), None, "nothing is known of the work");
        assert_eq!(of(&[]), None);
    }

    /// Guards: what another branch waits for is not said of the line that leads.
    #[test]
    fn only_branches_at_the_place_count() {
        let elsewhere = [branch("tokio::sync::mutex::Mutex<T>::lock", 1), branch(CONNECT, 2)];
        assert_eq!(of(&elsewhere).unwrap(), "a lock");
    }

    #[test]
    fn a_parent_waits_for_what_its_child_work_waits_for() {
        let parent = branch("<tokio::runtime::task::join::JoinHandle<T> as core::future::future::Future>::poll", 1);
        assert_eq!(of(std::slice::from_ref(&parent)).unwrap(), "another task");
        let child = Stack { child: Some("load".to_owned()), ..branch(CHECKOUT, 7) };
        assert_eq!(of(&[parent, child.clone()]).unwrap(), "a connection of the pool");
        assert_eq!(of(&[branch(CONNECT, 1), child]).unwrap(), "a connection to be made", "its own wait");
    }

    #[test]
    fn other_verdicts_await_nothing() {
        let with = |verdict| awaiting(&Report { verdict, stacks: vec![branch(CHECKOUT, 1)], ..report() });
        assert!(with(Verdict::Interrupted).is_some() && with(Verdict::Abandoned).is_some());
        for verdict in [Verdict::Blocking, Verdict::Starved, Verdict::Yielding, Verdict::NoWaker, Verdict::Unknown] {
            assert_eq!(with(verdict), None, "{verdict}");
        }
    }

    /// Guards: neither a body that wraps the request's nor a middleware is said to be slow where a handler waits for the
    /// client.
    #[test]
    fn a_wait_for_a_body_is_that_of_the_handler() {
        let body = || library("<hyper::body::incoming::Incoming as http_body::Body>::poll_frame");
        let axum = || library("<axum_core::body::Body as http_body::Body>::poll_frame");
        let wrapper = || own("<app::Counted<B> as http_body::Body>::poll_frame", 3);
        let extractor = || library("<bytes::bytes::Bytes as axum_core::extract::FromRequest<S>>::from_request");
        let place = |frames: &[Frame]| {
            let stack = await_stack(frames);
            let place = location_of(&stack).unwrap().function.unwrap();
            (place, awaited_by(&stack).map(|awaited| awaited.phrase))
        };
        let clients = Some("the client's body (the client has not sent it)");
        let reads = [body(), wrapper(), axum(), own("app::upload", 9), own("app::middleware", 1)];
        assert_eq!(place(&reads), ("app::upload".to_owned(), clients));
        let next = || library("axum::middleware::from_fn::Next::run");
        let extracts = [body(), wrapper(), axum(), extractor(), next(), own("app::middleware", 1)];
        assert_eq!(place(&extracts), (extractor().function.unwrap(), clients));
        let alone = [library("tokio::sync::mpsc::chan::Rx<T,S>::recv"), wrapper()];
        assert_eq!(place(&alone).0, wrapper().function.unwrap(), "it waits itself");
        let waits = [library(CONNECT), next(), own("app::middleware", 1)];
        assert_eq!(place(&waits).0, "app::middleware", "no body");
    }
}
