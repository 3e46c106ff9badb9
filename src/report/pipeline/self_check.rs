//! One line at the start that says what works in this process, and what would improve it.

use crate::capture::{DebugInformation, survey, sys};

/// Logs the line.
pub(in crate::report) fn say(signal: Result<i32, &'static str>) {
    let threads = match signal {
        Ok(signal) => format!("copied, with signal {signal}"),
        Err(why) => format!("none: {why}"),
    };
    let tasks = if sys::SUPPORTED { "copied" } else { "walked" };
    let found = survey();
    let names = in_words(found);
    if found == DebugInformation::Full && signal.is_ok() {
        tracing::info!(target: "heeler", await_stacks = tasks, thread_stacks = threads, debug_information = names, "heeler watches");
    } else {
        tracing::warn!(target: "heeler", await_stacks = tasks, thread_stacks = threads, debug_information = names, "heeler watches, with less than it could have");
    }
}

const fn in_words(found: DebugInformation) -> &'static str {
    match found {
        DebugInformation::Full => "functions, files and lines",
        DebugInformation::Lines => {
            "files and lines; set debug = \"limited\" in [profile.release] for the names of async functions"
        }
        DebugInformation::Unreadable => {
            "compressed with something other than zlib, or larger than 48 MB: only names of functions are available"
        }
        DebugInformation::SymbolTable => {
            "only names of functions: set debug = \"limited\" in [profile.release] of Cargo.toml"
        }
        DebugInformation::Nothing => {
            "none: set debug = \"limited\" in [profile.release] of Cargo.toml, or name reports later with the debug \
             information that you have kept apart (see examples/symbolize.rs)"
        }
    }
}
