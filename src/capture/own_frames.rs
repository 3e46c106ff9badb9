//! Tells which frames are heeler's own. This is the one place that knows its functions by name.
//!
//! heeler polls the application's futures and copies their stacks within a poll, so its functions are on nearly every
//! stack. They are never what a report is about, wherever they are.

use super::crates::{crate_of_function, dependency_of_path, is_std, is_std_crate};
use super::fork::PerProcess;
use super::frame::Frame;

/// The functions that copy a stack within the call of a waker, by the beginning of their names after the crate's. They
/// are innermost on a walked stack.
const COPIES: [&str; 5] = [
    "capture::task::clone",
    "capture::task::wake",
    "capture::task::Tracer",
    "capture::row_waker::clone",
    "capture::row_waker::wake",
];

/// The modules that poll work, by their paths after the crate's. They are outermost on a stack that ends at a poll.
const POLLS: [&str; 6] = [
    "capture::task::",
    "inflight::poll::",
    "inflight::recording::run::",
    "profile::jobs::run::",
    "profile::record::recording::",
    "children::",
];

/// [`COPIES`] are searched for among this many innermost frames.
const COPYING: usize = 24;

/// Returns the crate's name, which begins each of its functions' names.
fn crate_name() -> &'static str {
    module_path!().split("::").next().unwrap_or_default()
}

/// Returns whether the function in that file is heeler's. The name decides. If it names no crate, or one of the
/// standard library's, the file does.
pub(super) fn is_heelers(function: Option<&str>, file: Option<&str>) -> bool {
    match function.and_then(crate_of_function) {
        Some(name) if name == crate_name() => true,
        Some(name) if !is_std_crate(name) => false,
        _ => file.is_some_and(|file| is_heelers_file(&file.replace('\\', "/"))),
    }
}

impl Frame {
    /// Returns whether it is one of heeler's functions.
    pub(crate) fn is_heelers(&self) -> bool {
        is_heelers(self.function.as_deref(), self.file.as_deref())
    }

    fn begins_with_one_of(&self, list: &[&str]) -> bool {
        let name = self.function.as_deref().unwrap_or_default();
        let name = name.strip_prefix('<').unwrap_or(name);
        let within = name.strip_prefix(crate_name()).and_then(|name| name.strip_prefix("::"));
        within.is_some_and(|name| list.iter().any(|beginning| name.starts_with(beginning)))
    }
}

/// Removes the frames that cloned a waker for the copy. They are the innermost of a stack, given innermost first.
pub(crate) fn drop_copying(frames: &mut Vec<Frame>) {
    if let Some(last) = frames.iter().take(COPYING).rposition(|frame| frame.begins_with_one_of(&COPIES)) {
        frames.drain(..=last);
    }
}

/// Removes the frames in which heeler polls the work, up to where others begin. Expects a stack, outermost first. What
/// heeler does further in is a part of the work.
pub(crate) fn drop_polling(frames: &mut Vec<Frame>) {
    let around = frames.iter().take_while(|frame| frame.is_heelers() || is_std(frame)).count();
    if let Some(last) = frames[..around].iter().rposition(|frame| frame.begins_with_one_of(&POLLS)) {
        frames.drain(..=last);
    }
}

/// Removes all of heeler's frames from a stack, outermost first, wherever they are. That includes frames of the
/// standard library for heeler's types or between its functions. What heeler calls for the work stays.
pub(crate) fn drop_own(frames: &mut Vec<Frame>) {
    // In heeler's own tests, the code in them stands for the application.
    let is_tests = |frame: &Frame| frame.function.as_deref().is_some_and(|function| function.contains("::tests::"));
    let goes = |frame: &Frame| (frame.is_heelers() || is_glue(frame)) && !(cfg!(test) && is_tests(frame));
    let mut is_own: Vec<bool> = frames.iter().map(goes).collect();
    let mut last = None;
    for at in 0..is_own.len() {
        if is_own[at] {
            if let Some(last) = last {
                is_own[last..at].fill(true);
            }
            last = Some(at);
        } else if !is_std(&frames[at]) {
            last = None;
        }
    }
    // Without the function that was removed, the outermost function that was inlined into it has no frame around it at
    // that address.
    let mut around = None;
    let mut own = is_own.into_iter();
    frames.retain_mut(|frame| {
        if own.next().unwrap_or_default() {
            return false;
        }
        let address = (frame.module.clone(), frame.address.clone());
        frame.inlined &= around.as_ref() == Some(&address);
        around = Some(address);
        true
    });
}

/// Returns whether a function of the standard library belongs to one of heeler's types: `drop_in_place<heeler::..>`.
fn is_glue(frame: &Frame) -> bool {
    let names_own = |function: &str| {
        let own = function.match_indices(crate_name());
        let is_path = |(at, _): (usize, &str)| {
            let is_word = |before: char| before.is_alphanumeric() || matches!(before, '_' | ':');
            function[at + crate_name().len()..].starts_with("::") && !function[..at].ends_with(is_word)
        };
        own.into_iter().any(is_path)
    };
    is_std(frame) && frame.function.as_deref().is_some_and(names_own)
}

/// Returns whether the file is one of heeler's own sources: in a registry or a checkout, or where the compiler says
/// that this very file is. The latter is ignored if it is only `src/`, as for a package at its workspace's root,
/// because any of the application's files could be there, too.
fn is_heelers_file(file: &str) -> bool {
    static ROOT: PerProcess<Option<String>> = PerProcess::new(|| {
        let root = file!().replace('\\', "/").strip_suffix("capture/own_frames.rs")?.to_owned();
        (root != "src/").then_some(root)
    });
    let in_root = |root: &str| file.starts_with(root) || file.contains(&format!("/{root}"));
    dependency_of_path(file) == Some(crate_name()) || ROOT.settled().as_deref().is_some_and(in_root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: if one of heeler's modules or functions is renamed, it is renamed here, too.
    #[test]
    fn every_name_in_the_lists_is_that_of_a_function() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for name in POLLS.iter().chain(&COPIES) {
            let (module, item) = name.rsplit_once("::").expect("a module");
            let path = source.join(module.replace("::", "/"));
            let text = ["rs", "/mod.rs"].iter().find_map(|end| {
                let file = if end.starts_with('/') { path.join("mod.rs") } else { path.with_extension(end) };
                std::fs::read_to_string(file).ok()
            });
            let text = text.unwrap_or_else(|| panic!("no module {module}"));
            let is_there = ["fn ", "struct "].iter().any(|keyword| text.contains(&format!("{keyword}{item}")));
            assert!(is_there, "no {item} in {module}");
        }
    }

    /// Guards: heeler's frames are distinguished from the application's by the crate, wherever heeler was built.
    #[test]
    fn recognises_heelers_frames_by_the_crate() {
        let registry = "/r/registry/src/mirror-0123456789abcdef/heeler-0.1.0/src/inflight/poll.rs";
        let other = "/r/registry/src/mirror-0123456789abcdef/heeler-top-0.1.0/src/main.rs";
        let table = [
            (true, Some("heeler::capture::task::clone"), Some("src/capture/task.rs")),
            (true, Some("heeler::inflight::poll::Watched::poll"), None),
            (true, Some("<heeler::watchdog::job::Watch<F> as core::future::future::Future>::poll"), None),
            (true, Some("<&mut heeler::Timebox<F> as core::future::future::Future>::poll"), None),
            // With line tables only, an inlined function has no path, or no name at all.
            (true, Some("poll<..>"), Some(registry)),
            (true, None, Some(registry)),
            (true, None, Some(r"C:\r\registry\src\mirror-0123456789abcdef\heeler-0.1.0\src\lib.rs")),
            (true, Some("<core::option::Option<T> as heeler::Poll>::poll"), Some(registry)),
            (false, Some("heeler_app::load"), Some("/build/heeler_app/src/main.rs")),
            (false, Some("app::heeler::load"), Some("/build/app/src/heeler.rs")),
            (false, Some("<app::Sink as heeler::report::Sink>::deliver"), Some("/build/app/src/main.rs")),
            // A line of one of heeler's macros in one of the application's functions.
            (false, Some("app::load"), Some(registry)),
            (false, None, Some(other)),
            (false, Some("core::task::wake::Waker::wake"), Some("/rustc/5980/library/core/src/task/wake.rs")),
            (false, None, None),
        ];
        for (expected, function, file) in table {
            assert_eq!(is_heelers(function, file), expected, "{function:?} {file:?}");
        }
    }

    fn frame(name: &str) -> Frame {
        Frame { function: Some(name.to_owned()), ..Frame::default() }
    }

    /// Guards: the lists name functions and modules that exist, even after they are renamed.
    #[test]
    fn the_lists_match_the_source() {
        let (tracers, rows) = (super::super::task::names_of_callbacks(), super::super::row_waker::names_of_callbacks());
        let callbacks: Vec<Frame> = tracers.into_iter().chain(rows).map(frame).collect();
        assert!(callbacks.iter().all(|callback| callback.begins_with_one_of(&COPIES)), "{callbacks:?}");
        for copies in COPIES {
            assert!(callbacks.iter().any(|callback| callback.begins_with_one_of(&[copies])), "{copies}");
        }
        for polls in POLLS {
            let file = format!("src/{}.rs", polls.trim_end_matches("::").replace("::", "/"));
            assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).is_file(), "{file}");
        }
    }

    #[test]
    fn frames_that_copy_the_stack_are_left_out() {
        let leaf = ["tokio::runtime::context::defer", "heeler::capture::task::trace", "app::load"];
        let walked = ["backtrace::trace", "heeler::capture::task::clone", "heeler::capture::task::Tracer::walk"];
        let mut frames: Vec<Frame> = walked.iter().chain(&leaf).map(|name| frame(name)).collect();
        drop_copying(&mut frames);
        assert_eq!(frames, leaf.map(frame), "only the innermost");
        drop_copying(&mut frames);
        assert_eq!(frames.len(), leaf.len());
    }

    /// Guards: a watch within the work hides nothing that is around it.
    #[test]
    fn frames_that_poll_the_work_are_left_out() {
        let around = ["heeler::inflight::recording::run::TaskRecorder::poll", "core::ops::function::FnOnce::call_once"];
        let polls = ["heeler::capture::task::trace_branches"];
        let work = ["core::pin::Pin<P>::poll", "app::load", "heeler::inflight::poll::Watched::poll", "app::leaf"];
        let mut frames: Vec<Frame> = around.iter().chain(&polls).chain(&work).map(|name| frame(name)).collect();
        drop_polling(&mut frames);
        assert_eq!(frames, work.map(frame));
        drop_polling(&mut frames);
        assert_eq!(frames.len(), work.len());
    }

    fn left(frames: &[&str]) -> Vec<String> {
        let mut frames: Vec<Frame> = frames.iter().map(|name| frame(name)).collect();
        drop_own(&mut frames);
        frames.into_iter().filter_map(|frame| frame.function).collect()
    }

    /// Guards: none of heeler's frames is left, wherever it is. The frames around it and further in are all kept.
    #[test]
    fn all_frames_of_heeler_are_left_out() {
        let stack = [
            "core::ops::function::FnOnce::call_once",
            "<heeler::watchdog::job::Watch<F> as core::future::future::Future>::poll",
            "app::page",
            "<heeler::timebox::future::Timebox<F> as core::future::future::Future>::poll",
            "core::ops::function::FnOnce::call_once",
            "heeler::inflight::poll::Watched::poll",
            "<core::pin::Pin<P> as core::future::future::Future>::poll",
            "app::load",
            "core::ptr::drop_in_place<heeler::timebox::future::Timebox<F>>",
            "heeler::clock::now",
        ];
        let expected = [stack[0], stack[2], stack[6], stack[7]];
        assert_eq!(left(&stack), expected);
        assert_eq!(left(&stack[3..6]), [""; 0]);
        let others = ["app::heeler::load", "core::ptr::drop_in_place<app::heeler::Page>", "my_heeler::load"];
        assert_eq!(left(&others), others);
    }

    /// Guards: if a function is dropped that others were inlined into, the outermost of those takes its code.
    #[test]
    fn functions_inlined_into_heeler_are_kept() {
        let at = |name: &str, address: &str, inlined| Frame { address: address.to_owned(), inlined, ..frame(name) };
        let mut frames = vec![
            at("app::page", "0x1", false),
            at("heeler::timebox::poll", "0x2", false),
            at("app::load", "0x2", true),
            at("app::leaf", "0x2", true),
        ];
        drop_own(&mut frames);
        assert_eq!(frames.iter().map(|frame| frame.inlined).collect::<Vec<_>>(), [false, false, true]);
    }
}
