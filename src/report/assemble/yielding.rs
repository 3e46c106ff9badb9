//! Whether waiting work has only yielded.

use super::location::is_idle;
use crate::capture::{Frame, is_std, origin};
use crate::report::model::Stack;

/// Returns whether work with these branches continues at once: some gave way, and the others only wait for a timer.
///
/// `gave_way` says that one of them was seen to give way when it was polled. If functions have names, these say which
/// one.
pub(in crate::report) fn yields(stacks: &[Stack], gave_way: bool) -> bool {
    let (idle, others): (Vec<&Stack>, Vec<&Stack>) = stacks.iter().partition(|stack| is_idle(stack));
    match others[..] {
        [] => false,
        // Unless it was the timer that had no budget left.
        [one] => says_so(one) || (gave_way && !idle.into_iter().any(says_so)),
        _ => others.iter().all(|stack| says_so(stack) || (gave_way && !has_names(stack))),
    }
}

/// Returns the innermost significant frames. A debug build has more frames of std and heeler in between.
fn leaf(stack: &Stack) -> impl Iterator<Item = &Frame> {
    stack.frames.iter().filter(|frame| !is_std(frame) && !frame.is_heelers()).take(6)
}

/// Returns whether a stack's waker went to where tokio keeps the wakers that it wakes at once. Which of these functions
/// are there depends on what was inlined. Whether they have more than a file depends on the debug information.
pub(in crate::report) fn says_so(stack: &Stack) -> bool {
    let by_name = |name: &str| {
        let leads_to_it =
            ["tokio::runtime::context::defer", "tokio::task::coop::register", "tokio::task::yield_now::yield_now"];
        (name.contains("tokio::runtime::scheduler::") && name.contains("::defer"))
            || leads_to_it.iter().any(|part| name.contains(part))
    };
    let by_file = |file: &str| {
        let file = file.replace('\\', "/");
        ["/src/runtime/scheduler/defer.rs", "/src/task/yield_now.rs"].iter().any(|end| file.ends_with(end))
    };
    leaf(stack).any(|frame| {
        let is_tokios = || origin(frame).as_deref() == Some("tokio");
        frame.function.as_deref().is_some_and(by_name) || (frame.file.as_deref().is_some_and(by_file) && is_tokios())
    })
}

fn has_names(stack: &Stack) -> bool {
    leaf(stack).any(|frame| frame.function.is_some() || frame.file.is_some())
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, library, own};

    /// The stack of a `yield_now` within two watches, recorded in a debug build, with heeler's functions on top of the
    /// leaf.
    fn nested_yield() -> Stack {
        await_stack(&[
            library("<core::task::wake::Waker as core::clone::Clone>::clone"),
            library("heeler::capture::task::Tracer::clone_original"),
            library("heeler::capture::task::clone"),
            library("<core::task::wake::Waker as core::clone::Clone>::clone"),
            library("tokio::runtime::scheduler::defer::Defer::defer"),
            library("tokio::runtime::scheduler::current_thread::Context::defer"),
            library("tokio::runtime::context::with_scheduler"),
            library("std::thread::local::LocalKey<T>::try_with"),
            library("std::thread::local::LocalKey<T>::with"),
            library("tokio::runtime::context::defer"),
            library("<tokio::task::yield_now::YieldNow as core::future::future::Future>::poll"),
            own("app::give_way", 12),
        ])
    }

    /// Guards: frames of heeler and std, of which a debug build has many, don't hide that the leaf gave way.
    #[test]
    fn a_leaf_that_gives_way_yields() {
        let sleep = await_stack(&[library("tokio::time::sleep::Sleep::poll"), own("app::limited", 3)]);
        let lock = await_stack(&[library("tokio::sync::mutex::Mutex<T>::lock"), own("app::locked", 3)]);
        assert!(yields(&[nested_yield()], false));
        assert!(yields(&[nested_yield(), sleep.clone()], false), "beside a timer");
        for gave_way in [false, true] {
            assert!(!yields(&[nested_yield(), lock.clone()], gave_way), "the other one waits");
            assert!(!yields(&[], gave_way));
        }
        assert!(!yields(&[sleep], false));
    }

    /// Guards: the same in a release build, where only the innermost function is a function of its own.
    #[test]
    fn an_inlined_leaf_still_yields() {
        for leaf in ["tokio::runtime::scheduler::defer::Defer::defer", "tokio::task::yield_now::yield_now"] {
            assert!(yields(&[await_stack(&[library(leaf), own("app::give_way", 12)])], false), "{leaf}");
        }
        let nameless = |file: &str| {
            let file = Some(format!("/r/registry/src/mirror-0123456789abcdef/{file}"));
            await_stack(&[Frame { file, ..Frame::default() }, own("app::give_way", 12)])
        };
        assert!(yields(&[nameless("tokio-1.54.1/src/runtime/scheduler/defer.rs")], false));
        assert!(!yields(&[nameless("tokio-1.54.1/src/sync/mutex.rs")], false));
        assert!(!yields(&[nameless("other-1.0.0/src/task/yield_now.rs")], false));
    }

    /// Guards: an observed yield counts even if no function name says so.
    #[test]
    fn an_observed_yield_counts_without_names() {
        let of_app = await_stack(&[own("app::give_way", 12)]);
        let sleep = await_stack(&[library("tokio::time::sleep::Sleep::poll"), own("app::limited", 3)]);
        let nameless = await_stack(&[Frame::default(), Frame::default()]);
        for alone in [&of_app, &nameless] {
            assert!(yields(std::slice::from_ref(alone), true));
            assert!(yields(&[sleep.clone(), alone.clone()], true));
            assert!(!yields(&[sleep.clone(), alone.clone()], false));
        }
        assert!(yields(&[nameless.clone(), nameless], true), "which of the two it was, nobody can say");
        assert!(!yields(&[of_app, await_stack(&[own("app::locked", 3)])], true), "one of them waits");
        let no_budget = await_stack(&[
            library("tokio::runtime::context::defer"),
            library("tokio::time::sleep::Sleep::poll"),
            own("app::limited", 3),
        ]);
        assert!(!yields(&[no_budget, await_stack(&[own("app::locked", 3)])], true), "it was the timer");
    }
}
