//! `profile.proto`: the tables of texts, functions, locations and modules, each entry once, and the samples that refer to
//! them.

use std::collections::HashMap;
use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use pprof::protos::{self, Message as _};

use crate::capture::Frame;
use crate::text::escape;

/// Addresses are relative to their modules, so each module gets this much room of its own.
const ROOM: u64 = 1 << 40;

/// Longer paths, notes and build ids are left out.
const MAX_TEXT: usize = 4 * 1024;

/// What a Pyroscope server accepts by default: bytes before they are compressed, and samples.
#[cfg(feature = "pyroscope")]
const MAX_BYTES: usize = 4 << 20;
#[cfg(feature = "pyroscope")]
const MAX_SAMPLES: usize = 16_000;

/// The remark for stacks that are not listed, because there are too many.
#[cfg(feature = "pyroscope")]
pub(crate) const OTHER_STACKS: &str = "[other stacks]";

/// Returns a message that a server accepts. `build` makes one with that many stacks of their own, `stacks` at most, and has
/// the time of the others as [`OTHER_STACKS`], in a few samples.
#[cfg(feature = "pyroscope")]
pub(crate) fn fitted(stacks: usize, build: impl Fn(usize) -> protos::Profile) -> protos::Profile {
    let mut own = stacks;
    loop {
        let message = build(own);
        if own == 0 || (message.sample.len() <= MAX_SAMPLES && message.encoded_len() <= MAX_BYTES) {
            return message;
        }
        own = if own > MAX_SAMPLES { MAX_SAMPLES - MAX_SAMPLES / 8 } else { own / 2 };
    }
}

/// Returns the message as it is sent and stored: gzipped.
pub(crate) fn gzipped(message: &protos::Profile) -> Result<Vec<u8>, String> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&message.encode_to_vec()).and_then(|()| gzip.finish()).map_err(|error| error.to_string())
}

/// Returns a number as the format has it.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes a message.
pub(crate) struct Writer<'a> {
    frames: &'a [Frame],
    out: protos::Profile,
    texts: HashMap<String, i64>,
    /// Functions by their name and file.
    functions: HashMap<(i64, i64), u64>,
    /// Locations by their frames, innermost first.
    locations: HashMap<Vec<u32>, u64>,
    /// Locations of remarks, which are no frames.
    #[cfg(feature = "pyroscope")]
    remarks: HashMap<&'static str, u64>,
    /// Mappings by module and build id.
    mappings: HashMap<(&'a str, Option<&'a str>), usize>,
}

impl<'a> Writer<'a> {
    /// Begins a message about stacks of these frames, in the program `executable`.
    pub(crate) fn new(frames: &'a [Frame], executable: &str) -> Self {
        let mut writer = Self {
            frames,
            out: protos::Profile::default(),
            texts: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            #[cfg(feature = "pyroscope")]
            remarks: HashMap::new(),
            mappings: HashMap::new(),
        };
        // The first text must be empty, and the first mapping is the program.
        writer.text("");
        let program = executable.rsplit(['/', '\\']).next().unwrap_or_default();
        if let Some(frame) = frames.iter().find(|frame| frame.module.as_deref() == Some(program)) {
            writer.mapping(frame);
        }
        writer
    }

    /// Returns the index of a text.
    pub(crate) fn text(&mut self, text: &str) -> i64 {
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

    pub(crate) fn value_type(&mut self, what: &str, unit: &str) -> protos::ValueType {
        protos::ValueType { ty: self.text(what), unit: self.text(unit) }
    }

    /// Declares the values that each sample has.
    pub(crate) fn sample_types(&mut self, types: &[(&str, &str)]) {
        for (what, unit) in types {
            let value = self.value_type(what, unit);
            self.out.sample_type.push(value);
        }
    }

    /// Adds a stack. `stack` are indexes of its frames, outermost first.
    pub(crate) fn sample(&mut self, stack: &[u32], value: Vec<i64>, labels: &[(&str, &str)]) {
        let mut location_id = Vec::new();
        let mut innermost_first = stack.iter().rev().peekable();
        // Inlined functions share a location with the function that they are inlined into.
        let mut together = Vec::new();
        while let Some(&frame) = innermost_first.next() {
            together.push(frame);
            if !self.frames[frame as usize].inlined || innermost_first.peek().is_none() {
                location_id.push(self.location(std::mem::take(&mut together)));
            }
        }
        self.push_sample(location_id, value, labels);
    }

    /// Adds time that no stack is known for. `remark` says in brackets what is known instead.
    #[cfg(feature = "pyroscope")]
    pub(crate) fn remark(&mut self, remark: &'static str, value: Vec<i64>, labels: &[(&str, &str)]) {
        let known = self.remarks.get(remark).copied();
        let id = known.unwrap_or_else(|| {
            let line = self.line(&Frame { function: Some(remark.to_owned()), ..Frame::default() });
            let id = self.out.location.len() as u64 + 1;
            self.out.location.push(protos::Location { id, line: vec![line], ..protos::Location::default() });
            self.remarks.insert(remark, id);
            id
        });
        self.push_sample(vec![id], value, labels);
    }

    fn push_sample(&mut self, location_id: Vec<u64>, value: Vec<i64>, labels: &[(&str, &str)]) {
        let known = labels.iter().filter(|(_, value)| !value.is_empty());
        let label = known.map(|(key, value)| self.label(key, value)).collect();
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
        let all = self.frames;
        let frame = |at: u32| &all[at as usize];
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
        let name = self.known_text(frame.name());
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

    /// Returns the message, without its times.
    pub(crate) fn finish(self) -> protos::Profile {
        self.out
    }
}

/// Parses `0x1f00`.
fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
