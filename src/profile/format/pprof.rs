//! `profile.proto`, gzipped: the format of `go tool pprof` and Pyroscope.
//!
//! Each sample has two values: how many samples or waits it is made of, and its wall-clock nanoseconds. There is a
//! third if work that the request had spawned did something beside it. The label `state` says what the request did,
//! `trace_id` and `span_id` which trace it belongs to, if that is known.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::UNIX_EPOCH;

use flate2::{Compression, write::GzEncoder};
use pprof::protos::{self, Message as _};

use super::names::{frame_name, title};
use super::stacks::{Stack, stacks};
use crate::profile::{Profile, State};
use crate::report::Frame;
use crate::text::escape;

/// Addresses are relative to their modules, so each module gets this much room of its own.
const ROOM: u64 = 1 << 40;

/// Longer paths, notes and build ids are left out.
const MAX_TEXT: usize = 4 * 1024;

pub(super) fn pprof(profile: &Profile) -> Result<Vec<u8>, String> {
    let message = message(profile).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&message).and_then(|()| gzip.finish()).map_err(|error| error.to_string())
}

fn message(profile: &Profile) -> protos::Profile {
    let mut writer = Writer::new(profile);
    let has_beside = !profile.beside.is_empty();
    let mut types = vec![("samples", "count"), ("wall", "nanoseconds")];
    if has_beside {
        types.push(("beside", "nanoseconds"));
    }
    for (what, unit) in types {
        let value = writer.value_type(what, unit);
        writer.out.sample_type.push(value);
    }
    for stack in stacks(profile, &profile.slices, true) {
        let values = [int(stack.count), int(stack.nanos), 0];
        writer.sample(&stack, values[..2 + usize::from(has_beside)].to_vec());
    }
    for stack in stacks(profile, &profile.beside, true) {
        writer.sample(&stack, vec![0, 0, int(stack.nanos)]);
    }
    let wall = writer.value_type("wall", "nanoseconds");
    let name = wall.ty;
    let mut comment = vec![writer.text(&title(profile))];
    comment.extend(profile.notes.iter().filter(|note| !note.is_empty()).map(|note| writer.text(note)));
    let since = profile.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    protos::Profile {
        time_nanos: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        duration_nanos: int(profile.wall_nanos),
        period_type: Some(wall),
        period: int(1_000_000_000 / u64::from(profile.rate_hz.max(1))),
        default_sample_type: name,
        comment,
        ..writer.finish()
    }
}

struct Writer<'a> {
    profile: &'a Profile,
    out: protos::Profile,
    texts: HashMap<String, i64>,
    /// Functions by their name and file.
    functions: HashMap<(i64, i64), u64>,
    /// Locations by their frames, innermost first.
    locations: HashMap<Vec<u32>, u64>,
    /// Mappings by module and build id.
    mappings: HashMap<(&'a str, Option<&'a str>), usize>,
}

impl<'a> Writer<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut writer = Self {
            profile,
            out: protos::Profile::default(),
            texts: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            mappings: HashMap::new(),
        };
        // The first text must be empty, and the first mapping is the program.
        writer.text("");
        let program = profile.process.executable.rsplit(['/', '\\']).next().unwrap_or_default();
        if let Some(frame) = profile.frames.iter().find(|frame| frame.module.as_deref() == Some(program)) {
            writer.mapping(frame);
        }
        writer
    }

    fn text(&mut self, text: &str) -> i64 {
        let text = escape(text, MAX_TEXT).into_owned();
        self.known_text(text)
    }

    /// `text` is already escaped.
    fn known_text(&mut self, text: String) -> i64 {
        let table = &mut self.out.string_table;
        *self.texts.entry(text).or_insert_with_key(|text| {
            table.push(text.clone());
            int(table.len() as u64 - 1)
        })
    }

    fn value_type(&mut self, what: &str, unit: &str) -> protos::ValueType {
        protos::ValueType { ty: self.text(what), unit: self.text(unit) }
    }

    fn sample(&mut self, stack: &Stack, value: Vec<i64>) {
        let mut location_id = Vec::new();
        let mut innermost_first = stack.frames.iter().rev().peekable();
        // Inlined functions share a location with the function that they are inlined into.
        let mut together = Vec::new();
        while let Some(&frame) = innermost_first.next() {
            together.push(frame);
            if !self.profile.frames[frame as usize].inlined || innermost_first.peek().is_none() {
                location_id.push(self.location(std::mem::take(&mut together)));
            }
        }
        let word = match stack.state {
            State::OnCpu => "on_cpu",
            State::Blocked => "blocked",
            State::NoCpu => "no_cpu",
            State::Waiting => "waiting",
            State::Runnable => "runnable",
        };
        let request = &self.profile.request;
        let labels =
            [("state", Some(word)), ("trace_id", request.trace_id.as_deref()), ("span_id", request.span_id.as_deref())];
        let label = labels.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)));
        let label = label.map(|(key, value)| self.label(key, value)).collect();
        self.out.sample.push(protos::Sample { location_id, value, label });
    }

    fn label(&mut self, key: &str, value: &str) -> protos::Label {
        protos::Label { key: self.text(key), str: self.text(value), ..protos::Label::default() }
    }

    /// `frames` is not empty. The last is the function, and those before it are inlined into it.
    fn location(&mut self, frames: Vec<u32>) -> u64 {
        if let Some(&known) = self.locations.get(&frames) {
            return known;
        }
        let profile = self.profile;
        let frame = |at: u32| &profile.frames[at as usize];
        let place = frames.last().map(|&at| frame(at)).filter(|frame| frame.module.is_some());
        let mapping = place.map(|frame| self.mapping(frame));
        let relative = place.and_then(|frame| address(&frame.address)).filter(|&address| address < ROOM - 1);
        // Without any name, somebody who has the program's symbols can name the location.
        let is_named = |frame: &&Frame| frame.function.is_some() || frame.file.is_some();
        let needs_lines = relative.is_none() || frames.iter().any(|&at| is_named(&frame(at)));
        let line: Vec<protos::Line> = frames.iter().filter(|_| needs_lines).map(|&at| self.line(frame(at))).collect();
        let id = self.out.location.len() as u64 + 1;
        let mut location = protos::Location { id, line, ..protos::Location::default() };
        if let (Some(mapping), Some(relative)) = (mapping, relative) {
            let mapping = &mut self.out.mapping[mapping];
            location.mapping_id = mapping.id;
            location.address = mapping.memory_start + relative;
            mapping.memory_limit = mapping.memory_limit.max(location.address + 1);
            mapping.has_functions |= !location.line.is_empty();
            mapping.has_filenames |= frames.iter().any(|&at| frame(at).file.is_some());
            mapping.has_line_numbers |= frames.iter().any(|&at| frame(at).line.is_some());
            mapping.has_inline_frames |= frames.len() > 1;
        }
        self.out.location.push(location);
        self.locations.insert(frames, id);
        id
    }

    fn line(&mut self, frame: &Frame) -> protos::Line {
        let name = self.known_text(frame_name(frame));
        let filename = self.text(frame.file.as_deref().unwrap_or_default());
        let functions = &mut self.out.function;
        let function_id = *self.functions.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            // Without a system name, because pprof would take one that equals the name for a C++ name, and strip `<..>`
            // from it.
            functions.push(protos::Function { id, name, system_name: 0, filename, start_line: 0 });
            id
        });
        protos::Line { function_id, line: frame.line.map_or(0, i64::from) }
    }

    /// Returns the mapping of the frame's module.
    fn mapping(&mut self, frame: &'a Frame) -> usize {
        let key = (frame.module.as_deref().unwrap_or_default(), frame.build_id.as_deref());
        if let Some(&known) = self.mappings.get(&key) {
            return known;
        }
        let at = self.out.mapping.len();
        let start = ROOM.saturating_mul(at as u64 + 1);
        let mapping = protos::Mapping {
            id: at as u64 + 1,
            memory_start: start,
            memory_limit: start + 1,
            filename: self.text(key.0),
            build_id: self.text(key.1.unwrap_or_default()),
            ..protos::Mapping::default()
        };
        self.out.mapping.push(mapping);
        self.mappings.insert(key, at);
        at
    }

    fn finish(self) -> protos::Profile {
        self.out
    }
}

/// Parses `0x1f00`.
fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
