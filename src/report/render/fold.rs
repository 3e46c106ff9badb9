//! Selects the frames of a stack that a reader wants, and summarizes the others. The JSON form has all of them.

use std::borrow::Borrow;

use crate::capture::{Frame, is_std, origin};
use crate::report::assemble::location::is_registering;
use crate::report::{Stack, StackKind};

/// How many frames are shown of a stack without own frames.
pub(super) const WITHOUT_OWN: usize = 12;

/// How many crates a fold names.
const MAX_ORIGINS: usize = 4;

/// Crates whose functions only poll what they hold.
const CARRIERS: [&str; 2] = ["futures_core", "tracing"];

/// A part of a stack as it is shown.
pub(super) enum Part<'a> {
    /// A frame worth a line.
    Frame(&'a Frame),
    /// A run of other frames, never empty.
    Folded(&'a [Frame]),
}

/// Splits the stack into its parts, innermost first.
pub(super) fn readable(stack: &Stack) -> Vec<Part<'_>> {
    let all: Vec<&Frame> = stack.frames.iter().collect();
    let start = beginning(&all, stack.kind == StackKind::Await);
    let frames = &stack.frames[start..];
    let shown = shown(&all[start..]);
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(frame) = frames.get(at) {
        if shown[at] {
            parts.push(Part::Frame(frame));
            at += 1;
            continue;
        }
        let end = (at..shown.len()).find(|&next| shown[next]).unwrap_or(shown.len());
        parts.push(Part::Folded(&frames[at..end]));
        at = end;
    }
    parts
}

/// Returns which frames of a stack, innermost first, are worth a line. `waits` says that it is the stack of an await
/// point.
pub(crate) fn significant(frames: &[&Frame], waits: bool) -> Vec<bool> {
    let start = beginning(frames, waits);
    let mut significant = vec![false; start];
    significant.extend(shown(&frames[start..]));
    significant
}

/// Returns how many of the innermost frames only clone and keep an await point's waker.
fn beginning(frames: &[&Frame], waits: bool) -> usize {
    frames.iter().position(|frame| !waits || !(is_dull(frame) || frame.is_heelers())).unwrap_or(0)
}

/// Returns which frames are worth a line: the application's own, and of the frames that they call, the innermost and
/// the outermost that say what is waited on (`tokio::sync::Mutex::lock`), and the outermost of each crate in between: a
/// pool, the client in it, the socket of that.
fn shown(frames: &[&Frame]) -> Vec<bool> {
    let Some(own) = frames.iter().position(|frame| frame.own) else {
        // heeler's own frames don't explain anything, unless there are no others.
        let says = |frame: &Frame| !frame.is_heelers() || frames.iter().all(|frame| frame.is_heelers());
        return frames.iter().enumerate().map(|(at, frame)| at < WITHOUT_OWN && says(frame)).collect();
    };
    let mut shown: Vec<bool> = frames.iter().map(|frame| frame.own).collect();
    let leaf = &frames[..own];
    // A line of `tokio::select!` in the same function says less than what the branch polls.
    let says = |frame: &Frame| {
        let is_named = frame.function.is_some() && frame.function != frames[own].function;
        is_named && !is_dull(frame) && !frame.is_heelers()
    };
    let mut significant = (0..own).filter(|&at| says(leaf[at]));
    let innermost = significant.next();
    for at in [innermost, significant.next_back()].into_iter().flatten() {
        shown[at] = true;
    }
    let mut crates: Vec<String> = Vec::new();
    for at in (0..own).rev().filter(|&at| says(leaf[at]) && !is_std(leaf[at])) {
        let of = origin(leaf[at]).filter(|of| !CARRIERS.contains(&&**of) && !crates.contains(of));
        shown[at] |= of.is_some();
        crates.extend(of);
    }
    if innermost.is_none()
        && let Some(at) = leaf.iter().rposition(|frame| frame.function.is_some() && !frame.is_heelers())
    {
        shown[at] = true;
    }
    shown
}

/// Returns whether a frame says nothing. Nothing in `core` and `alloc` can wait, but `std` can. A frame without a name
/// may be anything.
pub(crate) fn is_dull(frame: &Frame) -> bool {
    let Some(function) = &frame.function else { return false };
    if is_registering(frame) {
        return true;
    }
    let function = function.trim_start_matches(['<', '&']);
    is_std(frame) && !function.starts_with("std::")
}

/// Returns `… 14 frames of tokio, hyper`.
pub(crate) fn describe_folded(frames: &[impl Borrow<Frame>]) -> String {
    let mut origins: Vec<String> = Vec::new();
    for origin in frames.iter().map(Borrow::borrow).filter_map(origin) {
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
