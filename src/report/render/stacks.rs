//! Stacks as text: the application's own frames marked, what they wait on shown, the rest folded.

use super::text::Page;
use super::units::at;
use crate::capture::{Frame, is_std, origin};
use crate::report::location::is_registering;
use crate::report::{Stack, StackKind};

/// How many frames are shown of a stack without a frame of the application's own.
const WITHOUT_OWN: usize = 12;

/// How many crates a fold names.
const MAX_ORIGINS: usize = 4;

/// A line up to this long holds function and place; a longer one is broken between them.
const WIDTH: usize = 120;

impl Page {
    /// One stack, innermost frame first, indented by `indent` columns.
    pub(super) fn stack(&mut self, stack: &Stack, indent: usize) {
        // How an await point's waker is cloned and kept says nothing: only the JSON form has it.
        let waits = stack.kind == StackKind::Await;
        let start = stack.frames.iter().position(|frame| !waits || !is_dull(frame)).unwrap_or(0);
        let frames = &stack.frames[start..];
        let shown = shown(frames);
        let mut at = 0;
        while let Some(frame) = frames.get(at) {
            if shown[at] {
                self.frame(frame, indent);
                at += 1;
                continue;
            }
            let end = (at..shown.len()).find(|&next| shown[next]).unwrap_or(shown.len());
            self.line(indent, &format!("   {}", fold(&frames[at..end])));
            at = end;
        }
        if frames.is_empty() {
            self.line(indent, "   no frames");
        }
        if stack.truncated {
            self.line(
                indent,
                "   … the outer frames are missing: the stack was too large, or could not be walked further",
            );
        }
    }

    fn frame(&mut self, frame: &Frame, indent: usize) {
        let mark = if frame.own { "=>" } else { "  " };
        let place = at(frame.file.as_deref(), frame.line);
        match (frame.function.as_deref(), place) {
            (Some(function), Some(place)) if indent + function.chars().count() + place.chars().count() + 5 > WIDTH => {
                self.line(indent, &format!("{mark} {function}"));
                self.line(indent, &format!("       at {place}"));
            }
            (Some(function), Some(place)) => self.line(indent, &format!("{mark} {function}  {place}")),
            (Some(function), None) => self.line(indent, &format!("{mark} {function}{}", module(frame, "  in "))),
            (None, Some(place)) => self.line(indent, &format!("{mark} {place}")),
            (None, None) => {
                let build = frame.build_id.as_ref().map(|id| format!(" (build id {id})")).unwrap_or_default();
                self.line(indent, &format!("{mark} {}{}{build}", frame.address, module(frame, " in ")));
            }
        }
        if let Some(source) = &frame.source {
            self.line(indent, &format!("       | {source}"));
        }
    }
}

fn module(frame: &Frame, before: &str) -> String {
    frame.module.as_ref().map(|module| format!("{before}{module}")).unwrap_or_default()
}

/// Which frames are worth a line: the application's own, and of what they call the innermost and the outermost that say
/// what is waited on (`tokio::sync::Mutex::lock`).
fn shown(frames: &[Frame]) -> Vec<bool> {
    let Some(own) = frames.iter().position(|frame| frame.own) else {
        return (0..frames.len()).map(|at| at < WITHOUT_OWN).collect();
    };
    let mut shown: Vec<bool> = frames.iter().map(|frame| frame.own).collect();
    let leaf = &frames[..own];
    // A line of `tokio::select!` in the same function says less than what the branch polls.
    let says = |frame: &Frame| frame.function.is_some() && frame.function != frames[own].function && !is_dull(frame);
    let mut telling = (0..own).filter(|&at| says(&leaf[at]));
    let innermost = telling.next();
    for at in [innermost, telling.next_back()].into_iter().flatten() {
        shown[at] = true;
    }
    if innermost.is_none()
        && let Some(at) = leaf.iter().rposition(|frame| frame.function.is_some())
    {
        shown[at] = true;
    }
    shown
}

/// `core` and `alloc` do nothing that one could wait for; `std` does. A frame without a name may be anything.
fn is_dull(frame: &Frame) -> bool {
    let Some(function) = &frame.function else { return false };
    if is_registering(frame) {
        return true;
    }
    let function = function.trim_start_matches(['<', '&']);
    is_std(frame) && !function.starts_with("std::")
}

/// `… 14 frames of tokio, hyper`.
fn fold(frames: &[Frame]) -> String {
    let mut origins: Vec<String> = Vec::new();
    for origin in frames.iter().filter_map(origin) {
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    if origins.len() > MAX_ORIGINS {
        origins.truncate(MAX_ORIGINS);
        origins.push("others".to_owned());
    }
    let of = if origins.is_empty() { String::new() } else { format!(" of {}", origins.join(", ")) };
    let plural = if frames.len() == 1 { "" } else { "s" };
    format!("… {} frame{plural}{of}", frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, own, plumbing, report, thread_stack};

    fn print(stack: &Stack) -> Vec<String> {
        let mut page = Page::default();
        page.stack(stack, 2);
        page.finish().lines().map(str::to_owned).collect()
    }

    #[test]
    fn own_frames_and_what_they_wait_on() {
        assert_eq!(
            print(&report().stacks[0]),
            [
                "     <tokio::sync::batch_semaphore::Acquire as core::future::future::Future>::poll  tokio-1.2.3/src/lib.rs:100",
                "     … 1 frame of tokio",
                "     tokio::sync::mutex::Mutex<T>::lock  tokio-1.2.3/src/lib.rs:100",
                "  => photos::wait_for_import  examples/photos/slow.rs:88",
                "         | let _import = self.import.lock().await;",
                "  => photos::lock_page  src/app.rs:40",
                "     … 14 frames of axum, hyper, std",
            ]
        );
    }

    #[test]
    fn dull_frames_are_folded() {
        let frames = [
            plumbing("syscall"),
            plumbing("std::sys::sync::mutex::futex::Mutex::lock_contended"),
            plumbing("std::sync::poison::mutex::Mutex<T>::lock"),
            plumbing("core::ops::function::FnOnce::call_once"),
            own("photos::thumbnail_cache_entry", 5),
        ];
        let lines = print(&thread_stack(&frames));
        assert!(lines[0].contains("syscall") && lines[1].contains("… 1 frame of std"), "{lines:#?}");
        assert!(lines[2].contains("std::sync::poison::mutex::Mutex<T>::lock  std/src/task.rs:100"), "{lines:#?}");
        assert_eq!(lines[3..], ["     … 1 frame of std", "  => photos::thumbnail_cache_entry  src/app.rs:5"]);
    }

    #[test]
    fn how_a_waker_is_kept_is_left_out() {
        let frames = [
            plumbing("<core::task::wake::Waker as core::clone::Clone>::clone"),
            plumbing("tokio::sync::task::atomic_waker::AtomicWaker::do_register"),
            plumbing("__rust_try"),
            plumbing("tokio::runtime::time::entry::StateCell::poll"),
            plumbing("<&core::task::wake::Waker as tokio::X>::into_waker"),
            plumbing("photos::nap"),
            own("photos::nap", 5),
        ];
        let lines = print(&await_stack(&frames));
        assert_eq!(lines[0], "     tokio::runtime::time::entry::StateCell::poll  tokio-1.2.3/src/lib.rs:100");
        assert_eq!(lines.len(), 3);
        assert_eq!(print(&await_stack(&frames[..2])).len(), 2, "better than nothing");
    }

    #[test]
    fn without_own_frames() {
        let mut stack = await_stack(&vec![plumbing("tokio::x"); 20]);
        stack.truncated = true;
        stack.frames[0].function = None;
        stack.frames[0].file = None;
        stack.frames[0].build_id = Some("abc".to_owned());
        let lines = print(&stack);
        assert_eq!(lines.len(), WITHOUT_OWN + 2);
        assert_eq!(lines[0], "     0x2f00 in photos (build id abc)");
        assert_eq!(lines[WITHOUT_OWN], "     … 8 frames of tokio");
        assert!(lines[WITHOUT_OWN + 1].contains("outer frames are missing"));
        assert_eq!(print(&await_stack(&[])), ["     no frames"]);
    }

    #[test]
    fn long_names_break_before_the_place() {
        let lines = print(&await_stack(&[own(&format!("app::{}", "x".repeat(120)), 5)]));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "         at src/app.rs:5");
    }
}
