//! The file format of <https://www.speedscope.app>.
//!
//! There is one profile of everything, where the outermost frame is what the request did. Then there is one per state,
//! with gaps for the others, and then one of what its spawned work did beside it.

use std::collections::HashMap;

use serde::Serialize;

use super::names::{state_name, title};
use super::stacks::{Paths, stacks};
use super::tally::Times;
use super::timeline::in_order;
use crate::profile::{Profile, Slice, State};

/// A sample repeats its whole stack. With more slices than this, each stack comes once, and not in time order.
const MAX_SLICES: usize = 50_000;

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    exporter: &'a str,
    name: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared,
    profiles: Vec<Sampled>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Serialize, Clone, PartialEq, Eq, Hash)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Sampled {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    samples: Vec<Vec<u32>>,
    weights: Vec<u64>,
}

impl Sampled {
    fn new(name: String) -> Self {
        Self { kind: "sampled", name, unit: "nanoseconds", start: 0, end: 0, samples: Vec::new(), weights: Vec::new() }
    }

    fn push(&mut self, stack: Vec<u32>, nanos: u64) {
        if nanos > 0 {
            self.end = self.end.saturating_add(nanos);
            self.samples.push(stack);
            self.weights.push(nanos);
        }
    }

    /// Adds an empty stretch up to that time.
    fn skip_to(&mut self, nanos: u64) {
        self.push(Vec::new(), nanos.saturating_sub(self.end));
    }
}

pub(super) fn speedscope(profile: &Profile) -> Result<Vec<u8>, String> {
    let mut frames = Frames::of(profile);
    let slices = in_order(&profile.slices);
    let mut all = Sampled::new(title(profile));
    let mut profiles = Vec::new();
    if slices.len() <= MAX_SLICES {
        let mut by_state = Times::STATES.map(|state| Sampled::new(state_name(state).to_owned()));
        for slice in &slices {
            all.push(frames.stack(slice, true), slice.nanos);
            for (state, one) in Times::STATES.into_iter().zip(&mut by_state) {
                if slice.state == state {
                    one.skip_to(slice.start_nanos);
                    one.push(frames.stack(slice, false), slice.nanos);
                }
            }
        }
        profiles.extend(by_state.into_iter().filter(|one| one.end > 0));
    } else {
        all.name.push_str(" (not in order of time)");
        for stack in stacks(profile, &profile.slices, true) {
            all.push(frames.of_stack(&stack.frames, Some(stack.state)), stack.nanos);
        }
    }
    profiles.insert(0, all);
    if !profile.beside.is_empty() {
        let mut beside = Sampled::new("spawned work, beside the request (not in order of time)".to_owned());
        for stack in stacks(profile, &profile.beside, true) {
            beside.push(frames.of_stack(&stack.frames, Some(stack.state)), stack.nanos);
        }
        profiles.push(beside);
    }
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: concat!("heeler@", env!("CARGO_PKG_VERSION")),
        name: title(profile),
        active: 0,
        shared: Shared { frames: frames.list },
        profiles,
    };
    serde_json::to_vec(&file).map_err(|error| error.to_string())
}

struct Frames<'a> {
    paths: Paths<'a>,
    list: Vec<Frame>,
    /// For each frame of the profile, its index in the list.
    at: Vec<u32>,
}

impl<'a> Frames<'a> {
    /// The states come first. For speedscope, frames with different lines are different functions. That is good for the
    /// application's own functions, which await at those lines, and too much for the others.
    fn of(profile: &'a Profile) -> Self {
        let mut list: Vec<Frame> =
            Times::STATES.map(|state| Frame { name: state_name(state).to_owned(), file: None, line: None }).into();
        let mut known = HashMap::new();
        let at = profile.frames.iter().map(|frame| {
            let line = frame.line.filter(|_| frame.own);
            let frame = Frame { name: frame.name(), file: frame.file.clone(), line };
            *known.entry(frame).or_insert_with_key(|frame| {
                list.push(frame.clone());
                list.len() as u32 - 1
            })
        });
        let at = at.collect();
        Self { paths: Paths::of(profile), list, at }
    }

    fn stack(&mut self, slice: &Slice, with_state: bool) -> Vec<u32> {
        let frames = self.paths.frames(slice.stack, slice.state, true);
        self.of_stack(&frames, with_state.then_some(slice.state))
    }

    fn of_stack(&self, frames: &[u32], state: Option<State>) -> Vec<u32> {
        let state = state.and_then(|state| Times::STATES.iter().position(|&other| other == state));
        let state = state.map(|at| at as u32);
        state.into_iter().chain(frames.iter().map(|&frame| self.at[frame as usize])).collect()
    }
}
