//! One line at the start: what works in this process, and what would make it better.

use std::sync::Arc;

use crate::capture::{Address, Frame, Symbols, sys};

/// How much debug information the binary has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Functions, inlined ones too, files and lines.
    All,
    /// Files and lines; inlined functions have no full names.
    LinesOnly,
    None,
}

impl Names {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "functions, files and lines",
            Self::LinesOnly => {
                "files and lines; set debug = \"limited\" in [profile.release] for the names of async functions"
            }
            Self::None => "none: set debug = \"limited\" in [profile.release] of Cargo.toml",
        }
    }
}

/// Logs the line.
pub(super) fn say(signal: Result<i32, &'static str>, symbols: &mut Symbols) {
    let threads = match signal {
        Ok(signal) => format!("copied, with signal {signal}"),
        Err(why) => format!("none: {why}"),
    };
    let tasks = if sys::SUPPORTED { "copied" } else { "walked" };
    let names = names(symbols);
    if names == Names::All && signal.is_ok() {
        tracing::info!(target: "heeler", await_stacks = tasks, thread_stacks = threads, debug_information = names.as_str(), "heeler watches");
    } else {
        tracing::warn!(target: "heeler", await_stacks = tasks, thread_stacks = threads, debug_information = names.as_str(), "heeler watches, with less than it could have");
    }
}

/// Looks at what the debug information says of a function of our own that is inlined into another.
#[inline(never)]
fn names(symbols: &mut Symbols) -> Names {
    #[inline(always)]
    fn inlined(symbols: &mut Symbols) -> Option<Names> {
        let mut found = None;
        backtrace::trace(|frame| {
            let address = Address { pc: frame.ip() as u64, is_return: true, module: None, relative: 0 };
            let frames: Arc<[Frame]> = symbols.name(&address);
            let path = |frame: &Frame| frame.function.as_deref().is_some_and(|name| name.contains("self_check::"));
            if frames.iter().any(path) {
                let has_lines = frames.iter().any(|frame| frame.line.is_some());
                let has_inlined = frames.len() > 1 && frames.iter().all(path);
                found = Some(match (has_lines, has_inlined) {
                    (true, true) => Names::All,
                    (true, false) => Names::LinesOnly,
                    (false, _) => Names::None,
                });
            }
            found.is_none()
        });
        found
    }
    inlined(symbols).unwrap_or(Names::None)
}
