//! The Firefox Profiler's format: <https://profiler.firefox.com>.
//!
//! The request is a thread, its states are categories, and the weight of a sample is its duration in milliseconds.

use fxprof_processed_profile as fx;
use serde_json::Value;

use super::names::{state_name, title};
use super::stacks::Paths;
use super::tally::Times;
use super::timeline::in_order;
use crate::profile::{Profile, Slice, State};
use crate::report::Frame;
use crate::text::escape;
use crate::text::units::at;

/// A longer source path says nothing.
const MAX_PLACE: usize = 300;

pub(super) fn firefox(profile: &Profile) -> Result<Vec<u8>, String> {
    let period = (1_000_000_000 / u64::from(profile.rate_hz.max(1))).max(1);
    let interval = fx::SamplingInterval::from_nanos(period);
    let mut out = fx::Profile::new(&title(profile), profile.started_at.into(), interval);
    // All names are there, so the profiler need not ask for any.
    out.set_symbolicated(true);
    let categories = Times::STATES.map(|state| out.add_category(state_name(state), color(state)).into());
    let start = fx::Timestamp::from_nanos_since_reference(0);
    let executable = profile.process.executable.rsplit(['/', '\\']).next().unwrap_or_default();
    let process = out.add_process(&escape(executable, MAX_PLACE), profile.process.pid, start);
    out.set_process_end_time(process, fx::Timestamp::from_nanos_since_reference(profile.wall_nanos));
    let mut weights = Vec::new();
    // The crate writes threads in the order of their names. A main thread would be named after the process.
    for (slices, name) in [(&profile.slices, "request"), (&profile.beside, "spawned work, beside the request")] {
        if slices.is_empty() && !weights.is_empty() {
            continue;
        }
        let number = weights.len() as u32;
        let thread = out.add_thread(process, profile.process.pid.wrapping_add(number), start, false);
        out.set_thread_name(thread, name);
        out.set_thread_samples_weight_type(thread, fx::WeightType::TracingMs);
        out.add_initial_visible_thread(thread);
        if number == 0 {
            out.add_initial_selected_thread(thread);
        }
        weights.push(samples(&mut out, thread, profile, slices, &categories));
    }
    let mut json = serde_json::to_value(&out).map_err(|error| error.to_string())?;
    for (thread, weights) in weights.into_iter().enumerate() {
        // The crate's weights are whole numbers, but the profiler accepts fractions of a millisecond.
        let weight = json.pointer_mut(&format!("/threads/{thread}/samples/weight"));
        *weight.ok_or("samples have no weights")? = weights;
    }
    serde_json::to_vec(&json).map_err(|error| error.to_string())
}

/// Adds the samples, and returns their weights in milliseconds.
fn samples(
    out: &mut fx::Profile,
    thread: fx::ThreadHandle,
    profile: &Profile,
    slices: &[Slice],
    categories: &[fx::CategoryPairHandle; 5],
) -> Value {
    let paths = Paths::of(profile);
    let names: Vec<_> = profile.frames.iter().map(|frame| out.intern_string(&label(frame))).collect();
    let mut weights = Vec::new();
    // A sample's CPU time is about the time before it.
    let mut cpu = 0;
    let mut end = 0;
    for slice in in_order(slices) {
        let category_pair = categories[Times::STATES.iter().position(|&state| state == slice.state).unwrap_or(0)];
        let info = |frame: u32| fx::FrameInfo {
            frame: fx::Frame::Label(names[frame as usize]),
            category_pair,
            flags: fx::FrameFlags::empty(),
        };
        let frames = paths.frames(slice.stack, slice.state, true);
        let stack = out.intern_stack_frames(thread, frames.into_iter().map(info));
        let time = fx::Timestamp::from_nanos_since_reference(slice.start_nanos);
        out.add_sample(thread, time, stack, fx::CpuDelta::from_nanos(cpu), 0);
        weights.push(Value::from(slice.nanos as f64 / 1e6));
        cpu = if slice.state == State::OnCpu { slice.nanos } else { 0 };
        end = end.max(slice.start_nanos.saturating_add(slice.nanos));
    }
    out.add_sample(thread, fx::Timestamp::from_nanos_since_reference(end), None, fx::CpuDelta::from_nanos(cpu), 0);
    weights.push(Value::from(0.0));
    Value::Array(weights)
}

/// Returns the function. For the application's own functions it adds the line, which says which await it is at.
fn label(frame: &Frame) -> String {
    let name = frame.name();
    let place = at(frame.file.as_deref(), frame.line).filter(|_| frame.own && frame.function.is_some());
    place.map(|place| format!("{name} {}", escape(&place, MAX_PLACE))).unwrap_or(name)
}

/// Returns the profiler's colour that is nearest to the flamegraphs' colour.
fn color(state: State) -> fx::CategoryColor {
    match state {
        State::OnCpu => fx::CategoryColor::Yellow,
        State::Blocked => fx::CategoryColor::Orange,
        State::NoCpu => fx::CategoryColor::Red,
        State::Waiting => fx::CategoryColor::LightBlue,
        State::Runnable => fx::CategoryColor::Magenta,
    }
}
