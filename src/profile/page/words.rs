//! What pages say, in words.

use std::collections::HashMap;
use std::time::Duration;

use super::steps::{frames, significant};
use crate::flamegraph::label;
pub(super) use crate::flamegraph::picture::share;
use crate::profile::format::Times;
pub(super) use crate::profile::format::state_name as state;
use crate::profile::{Outcome, Profile, Quality, State};
use crate::report::Frame;
pub(super) use crate::text::units::count;
use crate::text::units::{self, at};

/// The states, in the order in which pages list them.
pub(super) const STATES: [State; 5] = Times::STATES;

/// Returns what the request did, for use in a list with commas.
pub(super) const fn in_list(it_was: State) -> &'static str {
    match it_was {
        State::Runnable => "woken but not polled",
        State::NoCpu => "runnable without a CPU",
        _ => state(it_was),
    }
}

/// Returns what that means, for somebody who reads it for the first time.
pub(super) const fn meaning(state: State) -> &'static str {
    match state {
        State::OnCpu => "a thread ran its code",
        State::Blocked => "a thread was inside its code and could not run: in a system call, or at a lock",
        State::NoCpu => "a thread was inside its code and could run, but others had the CPU",
        State::Waiting => "suspended at an await point",
        State::Runnable => "ready to go on, and no thread was free for it",
    }
}

/// Returns the name of a state in the style sheet.
pub(super) const fn class(state: State) -> &'static str {
    match state {
        State::OnCpu => "cpu",
        State::Blocked => "blocked",
        State::NoCpu => "nocpu",
        State::Waiting => "waiting",
        State::Runnable => "runnable",
    }
}

/// Returns the unit of what is counted.
pub(super) const fn unit(state: State) -> &'static str {
    match state {
        State::OnCpu | State::Blocked | State::NoCpu => "sample",
        State::Waiting => "wait",
        State::Runnable => "time",
    }
}

/// `2.51 s`.
pub(super) fn nanos(nanos: u64) -> String {
    units::duration(Duration::from_nanos(nanos))
}

/// Returns the time of one run of that many.
pub(super) fn each(nanos: u64, runs: u32) -> u64 {
    nanos / u64::from(runs.max(1))
}

/// `+410 ms`.
pub(super) fn difference(before: u64, after: u64) -> String {
    let sign = match after.cmp(&before) {
        std::cmp::Ordering::Greater => "+",
        std::cmp::Ordering::Equal => "±",
        std::cmp::Ordering::Less => "−",
    };
    format!("{sign}{}", nanos(after.abs_diff(before)))
}

/// `GET /albums/7`, shortened if long.
pub(in crate::profile) fn work(method: &str, uri: &str) -> String {
    format!("{} {}", label::safe(method, 20), label::safe(uri, 200))
}

/// Returns the time of each state, in the order of [`STATES`].
pub(super) fn sums(profile: &Profile) -> [u64; 5] {
    STATES.map(|state| {
        let slices = profile.slices.iter().filter(|slice| slice.state == state);
        slices.fold(0u64, |sum, slice| sum.saturating_add(slice.nanos))
    })
}

/// Returns tenths of a percent that sum to a thousand, each as close as possible to its part. All are 0 if there is
/// nothing.
pub(super) fn per_mille<const N: usize>(parts: [u64; N]) -> [u32; N] {
    let whole: u128 = parts.iter().map(|&part| u128::from(part)).sum();
    if whole == 0 {
        return [0; N];
    }
    // A thousand times a part divided by the whole, rounded down: at most 1000.
    let mut tenths = parts.map(|part| (u128::from(part) * 1000 / whole) as u32);
    let mut order: Vec<usize> = (0..N).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(u128::from(parts[at]) * 1000 % whole));
    let lack = 1000 - tenths.iter().sum::<u32>();
    for at in order.into_iter().take(lack as usize) {
        tenths[at] += 1;
    }
    tenths
}

/// `40.6 %`.
pub(super) fn percent(per_mille: u32) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

/// A place where the request spent time.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) state: State,
    pub(super) frame: &'a Frame,
    pub(super) nanos: u64,
    pub(super) count: u64,
}

/// Returns where the time went: the application's functions and await points, longest first.
pub(super) fn places(profile: &Profile) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    let mut known: HashMap<(State, &Option<String>, &Option<String>), usize> = HashMap::new();
    for (stack, sum) in super::tree::sums(&profile.slices) {
        let Some(frame) = significant(&frames(profile, stack)) else { continue };
        let at = *known.entry((sum.state, &frame.function, &frame.file)).or_insert(places.len());
        match places.get_mut(at) {
            Some(place) => {
                place.nanos = place.nanos.saturating_add(sum.nanos);
                place.count = place.count.saturating_add(sum.count);
            }
            None => places.push(Place { state: sum.state, frame, nanos: sum.nanos, count: sum.count }),
        }
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.nanos));
    places
}

/// Returns `photos::load` and `src/slow.rs:33`. For a thread that computes, one line of many says nothing.
pub(super) fn function_and_place(frame: &Frame, state: Option<State>) -> (String, Option<String>) {
    let line = frame.line.filter(|_| state != Some(State::OnCpu));
    let place = at(frame.file.as_deref(), line).map(|place| label::text(&place));
    let bare = Frame { file: None, line: None, ..frame.clone() };
    match (&frame.function, place) {
        (Some(_), place) => (label::frame(&bare), place),
        (None, Some(place)) => (place, None),
        (None, None) => (label::frame(&bare), None),
    }
}

/// Returns how it ended, in a sentence that says what that means for the profile. Returns `None` if it ended well.
pub(super) fn bad_end(outcome: &Outcome) -> Option<(&'static str, String)> {
    Some(match outcome {
        Outcome::Finished => return None,
        Outcome::Failed(why) => ("The request failed.", why.clone()),
        Outcome::Panicked(why) => ("The handler panicked.", why.clone()),
        Outcome::Cancelled => ("The request was cancelled.", "This is what it did until then.".to_owned()),
        Outcome::TooLong => {
            ("The request took too long, and was dropped.", "This is what it did until then.".to_owned())
        }
    })
}

/// Returns how it ended, in a word or two.
pub(in crate::profile) const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Failed(_) => "failed",
        Outcome::Panicked(_) => "panicked",
        Outcome::Cancelled => "cancelled",
        Outcome::TooLong => "took too long",
    }
}

/// Returns how much was seen, and at what cost.
pub(super) fn quality(profile: &Profile) -> Vec<String> {
    let Quality { polls, waits, expected, taken, lost, late, truncated, waits_lost, own_nanos, sampler_nanos } =
        profile.quality;
    let mut lines = vec![
        format!("{}, {} between them.", counted(polls, "poll"), counted(waits, "wait")),
        format!(
            "{} of {} taken at {} Hz, {} lost, {} late; {} cut at their outer end.",
            grouped(taken),
            counted(expected, "sample"),
            grouped(profile.rate_hz.into()),
            grouped(lost),
            grouped(late),
            count(truncated, "stack"),
        ),
        format!(
            "The profiler took {} of the request's own time ({}), and {} of CPU beside it.",
            nanos(own_nanos),
            share(own_nanos, profile.wall_nanos),
            nanos(sampler_nanos)
        ),
    ];
    if waits_lost > 0 {
        lines.push(format!("The stacks of {} were not kept.", count(waits_lost, "wait")));
    }
    lines
}

/// `12,345`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 sample`, `12,345 samples`.
pub(super) fn counted(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(number))
}

/// `340 bytes`, `12.3 kB`.
pub(super) fn bytes(number: u64) -> String {
    let in_units = |unit: f64, name: &str| {
        let number = number as f64 / unit;
        if number < 99.95 { format!("{number:.1} {name}") } else { format!("{number:.0} {name}") }
    };
    match number {
        0..1_000 => count(number, "byte"),
        1_000..1_000_000 => in_units(1e3, "kB"),
        1_000_000..1_000_000_000 => in_units(1e6, "MB"),
        _ => in_units(1e9, "GB"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::page::sample::album;
    use crate::profile::testing::{ProfileBuilder, library, own, remark};

    /// Guards: one is singular, and large numbers are readable.
    #[test]
    fn counts_are_written_readably() {
        let polls = [0, 1, 2, 12_345].map(|polls| counted(polls, "poll"));
        assert_eq!(polls, ["0 polls", "1 poll", "2 polls", "12,345 polls"]);
    }

    proptest! {
        /// Guards: percentages sum to the whole, and none is further from its exact value than a tenth of a percent.
        #[test]
        fn percentages_sum_to_the_whole(parts in any::<[u64; 5]>(), shift in 0u32..64) {
            let parts = parts.map(|part| part >> shift);
            let tenths = per_mille(parts);
            let whole: u128 = parts.iter().map(|&part| u128::from(part)).sum();
            prop_assert_eq!(tenths.iter().sum::<u32>(), if whole == 0 { 0 } else { 1000 });
            for (part, tenth) in parts.into_iter().zip(tenths).filter(|_| whole > 0) {
                prop_assert!((part as f64 / whole as f64 * 1000.0 - f64::from(tenth)).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn states_sum_to_the_wall_time() {
        let profile = album();
        assert_eq!(sums(&profile).iter().sum::<u64>(), profile.wall_nanos);
        assert_eq!(places(&profile).iter().map(|place| place.nanos).sum::<u64>(), profile.wall_nanos);
    }

    /// Guards: a stack is represented by a frame of the application, and by a remark only if there is nothing else.
    #[test]
    fn the_applications_frame_represents_the_stack() {
        let mut builder = ProfileBuilder::new();
        builder.slice(State::Waiting, 5, 1, &[own("app::page", 1), library("tokio::sync::Mutex::lock")]);
        builder.slice(State::Waiting, 4, 1, &[own("app::page", 1), remark("[any of 2]")]);
        builder.slice(State::OnCpu, 3, 1, &[library("hyper::proto::h1::poll"), library("core::ptr::drop")]);
        builder.slice(State::OnCpu, 2, 0, &[remark("[unattributed]")]);
        let profile = builder.build();
        let told: Vec<_> =
            places(&profile).iter().map(|place| (place.frame.function.clone().unwrap(), place.nanos)).collect();
        let expected = [("app::page", 9), ("hyper::proto::h1::poll", 3), ("[unattributed]", 2)];
        assert_eq!(told, expected.map(|(function, nanos)| (function.to_owned(), nanos)));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 7, 999, 1_000, 1_234_567].map(grouped), ["0", "7", "999", "1,000", "1,234,567"]);
        let sizes = [1, 999, 1_000, 12_345, 999_949, 5_000_000_000];
        assert_eq!(sizes.map(bytes), ["1 byte", "999 bytes", "1.0 kB", "12.3 kB", "1000 kB", "5.0 GB"]);
        assert_eq!((percent(406), percent(1000), percent(3)), ("40.6 %".into(), "100.0 %".into(), "0.3 %".into()));
        assert_eq!((difference(2_000_000, 5_000_000), difference(5, 5)), ("+3.0 ms".into(), "±0 ms".into()));
        assert_eq!(each(7, 0), 7);
    }
}
