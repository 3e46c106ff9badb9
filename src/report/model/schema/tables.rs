//! Stacks whose frames are listed once.

use std::collections::HashMap;

use serde::Serialize;

use crate::capture::Frame;
use crate::report::{Stack, StackKind, Thread};

/// A stack that is to be written.
#[derive(Debug)]
pub(in crate::report) struct Picked<'a> {
    pub(in crate::report) stack: &'a Stack,
    /// Its frames, or those of them that are to be written.
    pub(in crate::report) frames: Vec<&'a Frame>,
    /// How many frames are left out, in the short form.
    pub(in crate::report) omitted: Option<usize>,
}

impl<'a> Picked<'a> {
    pub(in crate::report) fn whole(stack: &'a Stack) -> Self {
        Self { stack, frames: stack.frames.iter().collect(), omitted: None }
    }
}

/// An executable or library.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy, Serialize)]
pub(in crate::report) struct ModuleRow<'a> {
    name: Option<&'a str>,
    build_id: Option<&'a str>,
}

/// A frame. Fields without a value are left out: most frames have no source line, and none of the flags.
#[derive(Debug, Serialize)]
pub(in crate::report) struct FrameRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<u32>,
    address: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    own: bool,
    #[serde(skip_serializing_if = "is_false")]
    inlined: bool,
    #[serde(skip_serializing_if = "is_false")]
    tail_call: bool,
}

/// A stack, with the numbers of its frames.
#[derive(Debug, Serialize)]
pub(in crate::report) struct StackRow<'a> {
    kind: StackKind,
    current: bool,
    truncated: bool,
    reconstructed: bool,
    branch: u32,
    child: Option<&'a str>,
    thread: Option<&'a Thread>,
    work: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_frames: Option<usize>,
    frames: Vec<u32>,
}

/// The tables of a report's stacks. Rows are in the order in which the stacks first use them.
#[derive(Debug)]
pub(in crate::report) struct Tables<'a> {
    pub(in crate::report) modules: Vec<ModuleRow<'a>>,
    pub(in crate::report) frames: Vec<FrameRow<'a>>,
    pub(in crate::report) stacks: Vec<StackRow<'a>>,
}

impl<'a> Tables<'a> {
    pub(in crate::report) fn of(picked: impl IntoIterator<Item = Picked<'a>>) -> Self {
        let mut tables = Self { modules: Vec::new(), frames: Vec::new(), stacks: Vec::new() };
        let (mut modules, mut frames) = (HashMap::new(), HashMap::new());
        for Picked { stack, frames: list, omitted } in picked {
            let mut number = |frame: &'a Frame| *frames.entry(frame).or_insert_with(|| tables.add(frame, &mut modules));
            let frames = list.into_iter().map(&mut number).collect();
            tables.stacks.push(StackRow {
                kind: stack.kind,
                current: stack.current,
                truncated: stack.truncated,
                reconstructed: stack.reconstructed,
                branch: stack.branch,
                child: stack.child.as_deref(),
                thread: stack.thread.as_ref(),
                work: stack.work.as_deref(),
                omitted_frames: omitted,
                frames,
            });
        }
        tables
    }

    /// Adds a frame that isn't in the table yet, and returns its number.
    fn add(&mut self, frame: &'a Frame, known: &mut HashMap<ModuleRow<'a>, u32>) -> u32 {
        let module = ModuleRow { name: frame.module.as_deref(), build_id: frame.build_id.as_deref() };
        let is_known = module.name.is_some() || module.build_id.is_some();
        let module = is_known.then(|| {
            *known.entry(module).or_insert_with(|| {
                self.modules.push(module);
                self.modules.len() as u32 - 1
            })
        });
        self.frames.push(FrameRow {
            function: frame.function.as_deref(),
            file: frame.file.as_deref(),
            line: frame.line,
            source: frame.source.as_deref(),
            module,
            address: &frame.address,
            own: frame.own,
            inlined: frame.inlined,
            tail_call: frame.tail_call,
        });
        self.frames.len() as u32 - 1
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}
