//! What the work did during a share of its time: the root frames, and their colours.

use inferno::flamegraph::color::Color;

use super::super::sentence::busy_with;
use crate::report::{Activity, Thread};

/// What the work did, in more detail than [`Activity`]: a poll that blocks differs from one that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Blocked,
    OnCpu,
    /// It could run, but others have the CPU. Only profiles distinguish this; reports say that it blocks.
    NoCpu,
    /// Inside polls that were not observed.
    Running,
    Yielding,
    Runnable,
    Unobserved,
}

impl State {
    /// Returns the state. `thread` is the poll's, for a share inside polls.
    pub(super) fn of(activity: Activity, thread: Option<&Thread>) -> Self {
        match activity {
            Activity::Waiting => Self::Waiting,
            Activity::Yielding => Self::Yielding,
            Activity::Runnable => Self::Runnable,
            Activity::Unobserved => Self::Unobserved,
            Activity::Running => match thread.map(|thread| (thread.on_cpu, &thread.syscall, &thread.wchan)) {
                Some((Some(true), ..)) => Self::OnCpu,
                Some((Some(false), ..) | (None, Some(_), _) | (None, _, Some(_))) => Self::Blocked,
                Some((None, None, None)) | None => Self::Running,
            },
        }
    }

    /// Returns the label of the root frame: `waiting`, `blocked in a poll, in system call read`.
    pub(super) fn root(self, thread: Option<&Thread>) -> String {
        let word = match self {
            Self::Waiting => "waiting",
            Self::Blocked => "blocked in a poll",
            Self::OnCpu => "on CPU",
            Self::NoCpu => "runnable, no CPU",
            Self::Running => "inside polls",
            Self::Yielding => "yielding",
            Self::Runnable => "woken, not polled",
            Self::Unobserved => "not observed",
        };
        let busy = thread.and_then(busy_with).filter(|busy| busy.starts_with("in "));
        match (self, busy) {
            (Self::Blocked | Self::OnCpu, Some(busy)) => format!("{word}, {busy}"),
            _ => word.to_owned(),
        }
    }

    /// Returns what is counted: `wait`, `poll`.
    pub(super) const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("wait"),
            Self::Blocked | Self::OnCpu | Self::NoCpu | Self::Running => Some("poll"),
            Self::Yielding => Some("time"),
            Self::Runnable | Self::Unobserved => None,
        }
    }

    /// Returns a colour of Okabe and Ito's palette, which people with red-green colour blindness can tell apart. Frames
    /// that aren't own are paler. Black text is readable on all of them.
    pub(crate) fn color(self, own: bool) -> Color {
        let (r, g, b) = match self {
            Self::Waiting => (0x56, 0xb4, 0xe9),
            Self::Blocked => (0xe8, 0x6a, 0x1c),
            Self::OnCpu => (0xe6, 0x9f, 0x00),
            Self::Running => (0x3f, 0xb9, 0x94),
            Self::NoCpu | Self::Yielding => (0xf0, 0xe4, 0x42),
            Self::Runnable => (0xcc, 0x79, 0xa7),
            Self::Unobserved => (0xc8, 0xc8, 0xc8),
        };
        // Two thirds of the way to white.
        let pale = |part: u8| if own { part } else { 255 - (255 - part) / 3 };
        Color { r: pale(r), g: pale(g), b: pale(b) }
    }
}
