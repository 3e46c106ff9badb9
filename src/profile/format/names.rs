//! Names of frames and states.

use std::time::Duration;

use crate::profile::{Profile, State};
use crate::report::Frame;
use crate::text::escape;
use crate::text::units::duration;

/// The most characters of a request's method that a title shows.
const MAX_METHOD: usize = 32;
const MAX_URI: usize = 200;

/// Returns at most `max` characters of `text`: its beginning and its end.
#[cfg(feature = "callgraph")]
pub(super) fn short(text: &str, max: usize) -> String {
    let length = text.chars().count();
    if length <= max {
        return text.to_owned();
    }
    let front = max / 2;
    let back = max.saturating_sub(front + 1);
    text.chars().take(front).chain(['…']).chain(text.chars().skip(length - back)).collect()
}

/// Returns whether the frame isn't a function but a remark in brackets: `[unattributed]`, `[any of 3]`.
pub(crate) fn is_remark(frame: &Frame) -> bool {
    let bracketed = |function: &str| function.starts_with('[') && function.ends_with(']');
    frame.address.is_empty() && frame.function.as_deref().is_some_and(bracketed)
}

/// Returns `GET /slow/lock: 2.51 s` or `20 × GET /slow/lock: 2.51 s`. Escaped, and of a bounded length.
pub(super) fn title(profile: &Profile) -> String {
    let runs = if profile.runs > 1 { format!("{} × ", profile.runs) } else { String::new() };
    let request = &profile.request;
    let (method, uri) = (escape(&request.method, MAX_METHOD), escape(&request.uri, MAX_URI));
    format!("{runs}{method} {uri}: {}", duration(Duration::from_nanos(profile.wall_nanos)))
}

/// Returns the same names as in the reports' flamegraphs: `on CPU`, `blocked in a poll`, `waiting`,
/// `woken, not polled`; and also `runnable, no CPU`.
pub(crate) const fn state_name(state: State) -> &'static str {
    match state {
        State::OnCpu => "on CPU",
        State::Blocked => "blocked in a poll",
        State::NoCpu => "runnable, no CPU",
        State::Waiting => "waiting",
        State::Runnable => "woken, not polled",
    }
}

/// Returns the same colours as in the reports' flamegraphs: those of Okabe and Ito, which red-green colour-blind people
/// can tell apart. Black text is legible on all of them.
#[cfg(feature = "callgraph")]
pub(super) const fn color(state: State) -> [u8; 3] {
    match state {
        State::OnCpu => [0xe6, 0x9f, 0x00],
        State::Blocked => [0xe8, 0x6a, 0x1c],
        State::NoCpu => [0xf0, 0xe4, 0x42],
        State::Waiting => [0x56, 0xb4, 0xe9],
        State::Runnable => [0xcc, 0x79, 0xa7],
    }
}
