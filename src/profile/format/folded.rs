//! Folded stacks, one line each: `on CPU;app::handler;app::load 1200000`, in nanoseconds. `inferno-flamegraph`,
//! `flamegraph.pl` and many other programs read this.

use std::fmt::Write as _;

use super::names::state_name;
use super::stacks::stacks;
use crate::profile::Profile;

pub(super) fn folded(profile: &Profile) -> String {
    // `;` separates frames. Perl's stackcollapse scripts write a colon for it, too.
    let names: Vec<String> = profile.frames.iter().map(|frame| frame.name().replace(';', ":")).collect();
    let mut out = String::new();
    for stack in stacks(profile, &profile.slices, true).iter().filter(|stack| stack.nanos > 0) {
        out.push_str(state_name(stack.state));
        for &frame in &stack.frames {
            out.push(';');
            out.push_str(names[frame as usize].trim());
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, " {}", stack.nanos);
    }
    out
}
