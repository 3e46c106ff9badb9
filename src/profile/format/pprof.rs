//! `profile.proto`, gzipped: the format of `go tool pprof` and Pyroscope.
//!
//! Each sample has two values: how many samples or waits it is made of, and its wall-clock nanoseconds. There is a
//! third if work that the request had spawned did something beside it. The label `state` says what the request did,
//! `trace_id` and `span_id` which trace it belongs to, if that is known.

#[cfg(feature = "pyroscope")]
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use pprof::protos;

use super::names::title;
#[cfg(feature = "pyroscope")]
use super::stacks::Stack;
use super::stacks::stacks;
use crate::profile::{Profile, State};
#[cfg(feature = "pyroscope")]
use crate::report::pprof::{OTHER_STACKS, fitted};
use crate::report::pprof::{Writer, gzipped, int};

/// Returns the profile as a file.
pub(super) fn pprof(profile: &Profile) -> Result<Vec<u8>, String> {
    gzipped(&message(profile))
}

fn message(profile: &Profile) -> protos::Profile {
    let mut writer = Writer::new(&profile.frames, &profile.process.executable);
    let request = &profile.request;
    let ids = [("trace_id", request.trace_id.as_deref()), ("span_id", request.span_id.as_deref())];
    let labels = |state| {
        let [trace, span] = ids.map(|(key, id)| (key, id.unwrap_or_default()));
        [("state", state_word(state)), trace, span]
    };
    let types = types(profile);
    writer.sample_types(types);
    for stack in stacks(profile, &profile.slices, true) {
        let values = [int(stack.count), int(stack.nanos), 0];
        writer.sample(&stack.frames, values[..types.len()].to_vec(), &labels(stack.state));
    }
    for stack in stacks(profile, &profile.beside, true) {
        writer.sample(&stack.frames, vec![0, 0, int(stack.nanos)], &labels(stack.state));
    }
    let mut comment = vec![writer.text(&title(profile))];
    comment.extend(profile.notes.iter().filter(|note| !note.is_empty()).map(|note| writer.text(note)));
    protos::Profile { comment, ..timed(writer, profile) }
}

/// Returns the profile as a server accepts it, with these labels on each sample besides `state`. It has no comments, which
/// could say more about the request than its route.
#[cfg(feature = "pyroscope")]
pub(crate) fn bounded_pprof(profile: &Profile, labels: &[(&str, &str)]) -> protos::Profile {
    let mut rows: Vec<(Stack, [u64; 3])> = Vec::new();
    rows.extend(stacks(profile, &profile.slices, true).into_iter().map(|stack| {
        let values = [stack.count, stack.nanos, 0];
        (stack, values)
    }));
    rows.extend(stacks(profile, &profile.beside, true).into_iter().map(|stack| {
        let values = [0, 0, stack.nanos];
        (stack, values)
    }));
    rows.sort_by_key(|(stack, _)| std::cmp::Reverse(stack.nanos));
    let types = types(profile);
    fitted(rows.len(), |own| {
        let mut writer = Writer::new(&profile.frames, &profile.process.executable);
        writer.sample_types(types);
        let values = |values: &[u64; 3]| values[..types.len()].iter().map(|&value| int(value)).collect();
        let labelled = |state| [&[("state", state_word(state))], labels].concat();
        for (stack, row) in &rows[..own] {
            writer.sample(&stack.frames, values(row), &labelled(stack.state));
        }
        let mut rest: BTreeMap<State, [u64; 3]> = BTreeMap::new();
        for (stack, row) in &rows[own..] {
            let sums = rest.entry(stack.state).or_default();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = sum.saturating_add(*value));
        }
        for (state, sums) in &rest {
            writer.remark(OTHER_STACKS, values(sums), &labelled(*state));
        }
        timed(writer, profile)
    })
}

/// Returns the values that each sample has.
fn types(profile: &Profile) -> &'static [(&'static str, &'static str)] {
    const TYPES: [(&str, &str); 3] = [("samples", "count"), ("wall", "nanoseconds"), ("beside", "nanoseconds")];
    if profile.beside.is_empty() { &TYPES[..2] } else { &TYPES }
}

/// Ends a message with the times of the profile.
fn timed(mut writer: Writer<'_>, profile: &Profile) -> protos::Profile {
    let wall = writer.value_type("wall", "nanoseconds");
    let since = profile.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    protos::Profile {
        time_nanos: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        duration_nanos: int(profile.wall_nanos),
        default_sample_type: wall.ty,
        period_type: Some(wall),
        period: int(1_000_000_000 / u64::from(profile.rate_hz.max(1))),
        ..writer.finish()
    }
}

/// Returns the value of the label `state`.
const fn state_word(state: State) -> &'static str {
    match state {
        State::OnCpu => "on_cpu",
        State::Blocked => "blocked",
        State::NoCpu => "no_cpu",
        State::Waiting => "waiting",
        State::Runnable => "runnable",
    }
}
