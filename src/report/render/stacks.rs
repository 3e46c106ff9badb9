//! Formats one stack as lines: marks the application's own frames, shows what they wait on, and folds the rest.

use super::fold::{Part, describe_folded, readable};
use crate::capture::Frame;
use crate::report::Stack;
use crate::text::units::at;

/// How many lines of a stack are shown, from its inner and from its outer end. More than that is a recursion.
const INNER: usize = 40;
const OUTER: usize = 12;

/// A line of a stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Frame {
        /// Whether it is the application's own.
        own: bool,
        /// The function, or anything else to find it by.
        name: String,
        /// `src/slow.rs:88`, if that isn't already the name.
        place: Option<String>,
        /// The line's text.
        source: Option<String>,
    },
    /// A remark on what isn't shown.
    Remark(String),
}

/// Returns the lines of the stack, innermost frame first.
pub(crate) fn lines(stack: &Stack) -> Vec<Line> {
    let mut lines: Vec<Line> = readable(stack)
        .into_iter()
        .map(|part| match part {
            Part::Frame(frame) => line(frame),
            Part::Folded(frames) => Line::Remark(describe_folded(frames)),
        })
        .collect();
    let middle = INNER..lines.len().saturating_sub(OUTER);
    if middle.len() > 1 {
        let folded = Line::Remark(format!("… {} lines, in the JSON form", middle.len()));
        lines.splice(middle, [folded]);
    }
    if stack.frames.is_empty() {
        lines.push(Line::Remark("no frames".to_owned()));
    }
    if stack.truncated {
        let missing = "… the outer frames are missing: the stack was too large, or could not be walked further";
        lines.push(Line::Remark(missing.to_owned()));
    }
    lines
}

fn line(frame: &Frame) -> Line {
    let at = at(frame.file.as_deref(), frame.line);
    let (name, place) = match (frame.function.as_deref(), at) {
        (Some(function), Some(place)) => (function.to_owned(), Some(place)),
        (Some(function), None) => (format!("{function}{}", module(frame, "  in ")), None),
        (None, Some(place)) => (place, None),
        (None, None) => {
            let build = frame.build_id.as_ref().map(|id| format!(" (build id {id})")).unwrap_or_default();
            (format!("{}{}{build}", frame.address, module(frame, " in ")), None)
        }
    };
    let left = if frame.tail_call { " (left by a tail call)" } else { "" };
    let place = place.map(|place| format!("{place}{left}"));
    Line::Frame { own: frame.own, name, place, source: frame.source.clone().filter(|_| !frame.tail_call) }
}

fn module(frame: &Frame, before: &str) -> String {
    frame.module.as_ref().map(|module| format!("{before}{module}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::fold::WITHOUT_OWN;
    use super::super::text::Text;
    use super::*;
    use crate::report::testing::{await_stack, library, own, report, thread_stack};

    fn print(stack: &Stack) -> Vec<String> {
        let mut text = Text::default();
        text.stack(&lines(stack), 2);
        text.finish().lines().map(str::to_owned).collect()
    }

    #[test]
    fn own_frames_are_marked_and_quoted() {
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
    fn library_frames_are_folded() {
        let frames = [
            library("syscall"),
            library("std::sys::sync::mutex::futex::Mutex::lock_contended"),
            library("std::sync::poison::mutex::Mutex<T>::lock"),
            library("core::ops::function::FnOnce::call_once"),
            own("photos::thumbnail_cache_entry", 5),
        ];
        let lines = print(&thread_stack(&frames));
        assert!(lines[0].contains("syscall") && lines[1].contains("… 1 frame of std"), "{lines:#?}");
        assert!(lines[2].contains("std::sync::poison::mutex::Mutex<T>::lock  std/src/task.rs:100"), "{lines:#?}");
        assert_eq!(lines[3..], ["     … 1 frame of std", "  => photos::thumbnail_cache_entry  src/app.rs:5"]);
    }

    /// Guards: the frame that explains is shown: what each library was called for.
    #[test]
    fn the_outermost_frame_of_each_crate_is_shown() {
        let frames = [
            library("tokio::runtime::io::scheduled_io::ScheduledIo::poll_readiness"),
            library("tokio::net::tcp::stream::TcpStream::connect_mio"),
            library("tokio::net::tcp::stream::TcpStream::connect"),
            library("sqlx_core::net::socket::connect_tcp"),
            library("sqlx_postgres::connection::establish::PgConnection::establish"),
            library("<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll"),
            library("sqlx_core::pool::inner::PoolInner<DB>::connect"),
            library("core::future::poll_fn::PollFn<F>::poll"),
            library("sqlx_core::pool::Pool<DB>::acquire"),
            own("app::load_invoice", 7),
        ];
        let names: Vec<String> = print(&await_stack(&frames))
            .iter()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        let shown = |at: usize| frames[at].function.clone().unwrap();
        assert_eq!(
            names,
            [shown(0), "…".to_owned(), shown(2), "…".to_owned(), shown(4), "…".to_owned(), shown(8), "=>".to_owned()]
        );
    }

    #[test]
    fn frames_that_keep_the_waker_are_left_out() {
        let frames = [
            library("<core::task::wake::Waker as core::clone::Clone>::clone"),
            library("tokio::sync::task::atomic_waker::AtomicWaker::do_register"),
            library("__rust_try"),
            library("tokio::runtime::time::entry::StateCell::poll"),
            library("<&core::task::wake::Waker as tokio::X>::into_waker"),
            library("photos::nap"),
            own("photos::nap", 5),
        ];
        let lines = print(&await_stack(&frames));
        assert_eq!(lines[0], "     tokio::runtime::time::entry::StateCell::poll  tokio-1.2.3/src/lib.rs:100");
        assert_eq!(lines.len(), 3);
        assert_eq!(print(&await_stack(&frames[..2])).len(), 2, "better than nothing");
    }

    /// Guards: heeler's own frames are not shown, wherever they are, unless there are no others.
    #[test]
    fn frames_of_heeler_are_folded() {
        let heelers = || library("<heeler::watchdog::job::Watch<F> as core::future::future::Future>::poll");
        let stack = await_stack(&[
            heelers(),
            library("tokio::sync::mutex::Mutex<T>::lock"),
            heelers(),
            own("photos::nap", 5),
            heelers(),
            own("photos::page", 9),
            heelers(),
        ]);
        let folded = "     … 1 frame of heeler";
        let lines = print(&stack);
        assert_eq!(lines[0], "     tokio::sync::mutex::Mutex<T>::lock  tokio-1.2.3/src/lib.rs:100");
        assert_eq!(
            lines[1..],
            [folded, "  => photos::nap  src/app.rs:5", folded, "  => photos::page  src/app.rs:9", folded]
        );
        assert_eq!(print(&await_stack(&[heelers(), library("tokio::x"), heelers()]))[1..], [folded]);
        assert_eq!(print(&thread_stack(&[heelers(), library("tokio::x")]))[0], folded);
        assert!(print(&await_stack(&[heelers()]))[0].contains("heeler::watchdog::job::Watch"), "better than nothing");
    }

    #[test]
    fn a_stack_without_own_frames_is_cut() {
        let mut stack = await_stack(&vec![library("tokio::x"); 20]);
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

    /// Guards: a recursion shows its two ends, and how much is between them.
    #[test]
    fn recursions_are_shortened() {
        let lines = print(&await_stack(&(0..10_000).map(|line| own("app::again", line)).collect::<Vec<_>>()));
        assert_eq!(lines.len(), INNER + 1 + OUTER);
        assert_eq!(lines[INNER], format!("     … {} lines, in the JSON form", 10_000 - INNER - OUTER));
        assert_eq!(lines.last().unwrap(), "  => app::again  src/app.rs:9999");
    }

    #[test]
    fn long_names_break_before_the_place() {
        let lines = print(&await_stack(&[own(&format!("app::{}", "x".repeat(120)), 5)]));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "         at src/app.rs:5");
    }
}
