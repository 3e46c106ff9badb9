//! `#[instrument]` turns an async function into two with the same name.
//!
//! The attribute moves the body into another future, and what is left of the function polls that future within its
//! span. The outer one has the line of the attribute, which is of no interest.

use super::crates::crate_of_function;
use super::frame::Frame;

/// Marks the frames that the attribute has made as not the application's own. Expects the frames of a stack, innermost
/// first.
pub(crate) fn disown_wrappers(frames: &mut [Frame]) {
    for index in 0..frames.len() {
        if let Some(wrapper) = wrapper_of(frames, index) {
            let (wrapper, body) = (frames[wrapper].clone(), frames[index].line);
            // With `err` or `ret`, a part of the body has the attribute's line, too.
            for frame in &mut frames[index..] {
                if frame.own && same_function(frame, &wrapper) && frame.line == wrapper.line && frame.line < body {
                    frame.own = false;
                }
            }
        }
    }
}

/// Returns the next of the application's frames outside of its frame `index`, if that has the same function, an earlier
/// line, and polls the inner one within a span. Frames of the same function in between belong to its body.
fn wrapper_of(frames: &[Frame], index: usize) -> Option<usize> {
    let body = &frames[index];
    if !body.own || body.function.is_none() {
        return None;
    }
    let mut in_span = false;
    for (at, frame) in frames.iter().enumerate().skip(index + 1) {
        in_span |= frame.function.as_deref().and_then(crate_of_function) == Some("tracing");
        if frame.own {
            let is_like = same_function(frame, body) && frame.line < body.line;
            if in_span || !is_like {
                return (in_span && is_like).then_some(at);
            }
        }
    }
    None
}

fn same_function(one: &Frame, other: &Frame) -> bool {
    one.function == other.function && one.file == other.file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(function: &str, line: u32) -> Frame {
        let (function, file) = (Some(function.to_owned()), Some("src/app.rs".to_owned()));
        Frame { function, file, line: Some(line), own: true, ..Frame::default() }
    }

    fn other(function: &str) -> Frame {
        Frame { function: Some(function.to_owned()), ..Frame::default() }
    }

    fn lines(mut frames: Vec<Frame>) -> Vec<u32> {
        disown_wrappers(&mut frames);
        frames.iter().filter(|frame| frame.own).filter_map(|frame| frame.line).collect()
    }

    /// Guards: a function with `#[instrument]` is one function to a reader, wherever it is on the stack.
    #[test]
    fn an_instrumented_function_is_shown_once() {
        let span = || other("<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll");
        let sleep = || other("tokio::time::sleep::Sleep::poll");
        assert_eq!(lines(vec![sleep(), own("app::load", 12), span(), own("app::load", 10)]), [12]);
        let two = vec![
            own("app::load", 12),
            span(),
            own("app::load", 10),
            own("app::page", 33),
            span(),
            own("app::page", 30),
        ];
        assert_eq!(lines(two), [12, 33]);
        let err = vec![own("app::load", 12), own("app::load", 10), span(), own("app::load", 10), own("app::page", 30)];
        assert_eq!(lines(err), [12, 30]);
    }

    /// Guards: functions that only look like an instrumented one are left alone.
    #[test]
    fn similar_functions_are_left_alone() {
        let span = || other("tracing::instrument::Instrumented<T>::poll");
        let recursion = vec![own("app::walk", 12), own("app::walk", 12), span(), own("app::walk", 12)];
        assert_eq!(lines(recursion).len(), 3);
        assert_eq!(lines(vec![own("app::load", 12), own("app::load", 10)]), [12, 10], "a closure, in no span");
        assert_eq!(lines(vec![own("app::load", 12), span(), own("app::page", 10)]), [12, 10]);
        assert_eq!(
            lines(vec![own("app::load", 12), span(), own("app::load", 20)]),
            [12, 20],
            "called from further down"
        );
        assert_eq!(
            lines(vec![Frame { function: None, ..own("", 12) }, span(), Frame { function: None, ..own("", 10) }]),
            [12, 10]
        );
    }
}
