//! Reading schema 1 and 2.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::capture::Frame;
use crate::report::model::words::lenient;
use crate::report::{SCHEMA, Stack, StackKind, Thread};

/// Roughly the most memory that the frames of all stacks may take, in bytes. Otherwise a table of a few long names and
/// many references to them could ask for any amount.
const MAX_BYTES: usize = 256 << 20;

/// The version of a report: that of this program, whatever it was, if all that it says is known here.
pub(in crate::report) fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(u32::deserialize(deserializer)?.max(SCHEMA))
}

const TOO_LARGE: &str = "the stacks are larger than any report's";

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    modules: Vec<ModuleRow>,
    #[serde(default)]
    frames: Vec<FrameRow>,
    stacks: Vec<StackRow>,
}

#[derive(Deserialize)]
struct ModuleRow {
    name: Option<String>,
    build_id: Option<String>,
}

#[derive(Deserialize)]
struct FrameRow {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    source: Option<String>,
    module: Option<usize>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    own: bool,
    #[serde(default)]
    inlined: bool,
    #[serde(default)]
    tail_call: bool,
}

#[derive(Deserialize)]
struct StackRow {
    #[serde(deserialize_with = "lenient::stack_kind")]
    kind: StackKind,
    current: bool,
    truncated: bool,
    reconstructed: bool,
    branch: u32,
    child: Option<String>,
    thread: Option<Thread>,
    work: Option<String>,
    frames: Vec<FrameOrNumber>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FrameOrNumber {
    /// Schema 2.
    Number(usize),
    /// Schema 1.
    Frame(Frame),
}

/// The stacks of a report, with the tables that they refer to.
pub(in crate::report) fn stacks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Stack>, D::Error> {
    let Read { modules, frames, stacks } = Read::deserialize(deserializer)?;
    let mut left = MAX_BYTES;
    let frames = frames.into_iter().map(|frame| frame.named_in(&modules, &mut left)).collect::<Result<Vec<_>, _>>();
    let frames = frames.map_err(Error::custom)?;
    let resolved = stacks.into_iter().map(|stack| stack.resolved(&frames, &mut left)).collect::<Result<_, _>>();
    resolved.map_err(Error::custom)
}

impl FrameRow {
    fn named_in(self, modules: &[ModuleRow], left: &mut usize) -> Result<Frame, String> {
        let Self { function, file, line, source, module, address, own, inlined, tail_call } = self;
        let (module, build_id) = match module {
            None => (None, None),
            Some(number) => match modules.get(number) {
                Some(ModuleRow { name, build_id }) => {
                    let size = [name, build_id].map(|text| text.as_ref().map_or(0, String::len)).iter().sum();
                    *left = left.checked_sub(size).ok_or(TOO_LARGE)?;
                    (name.clone(), build_id.clone())
                }
                None => return Err(format!("a frame is of module {number}, which the table does not have")),
            },
        };
        Ok(Frame { function, file, line, source, module, build_id, address, own, inlined, tail_call, identity: 0 })
    }
}

impl StackRow {
    fn resolved(self, table: &[Frame], left: &mut usize) -> Result<Stack, String> {
        let resolve = |frame| match frame {
            FrameOrNumber::Frame(frame) => Ok(frame),
            FrameOrNumber::Number(number) => {
                let frame = table.get(number);
                let frame =
                    frame.ok_or_else(|| format!("a stack has frame {number}, which the table does not have"))?;
                *left = left.checked_sub(frame.size()).ok_or(TOO_LARGE)?;
                Ok(frame.clone())
            }
        };
        let frames = self.frames.into_iter().map(resolve).collect::<Result<_, String>>()?;
        let Self { kind, current, truncated, reconstructed, branch, child, thread, work, .. } = self;
        Ok(Stack { kind, current, truncated, reconstructed, branch, child, thread, work, frames })
    }
}
