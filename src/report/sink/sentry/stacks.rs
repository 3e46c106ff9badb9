//! Stacks in Sentry's form: outermost frame first.

use std::collections::HashMap;

use sentry::protocol::{DebugImage, DebugMeta, Frame, Stacktrace, SymbolicDebugImage, Thread, ThreadId};
use sentry::types::{CodeId, DebugId};

use crate::capture;
use crate::report::{Report, Stack, StackKind};
use crate::text::escape::escape;
use crate::text::units::short_path;

/// The thread whose stack the exception has.
pub(super) const MAIN: ThreadId = ThreadId::Int(0);

/// How many stacks an event has, and how many frames each stack has, counted from the innermost. Sentry refuses an
/// event of more than a megabyte. The JSON form of the report has all of them.
const MAX_STACKS: usize = 16;
const MAX_FRAMES: usize = 128;

/// The longest name of a function, in characters. Generic ones can be of any length.
const MAX_NAME: usize = 512;

/// Returns the stack that matters most, and all stacks of the capture as threads, of which that stack is the first.
pub(super) fn arranged<'a>(report: &'a Report, images: &mut Images) -> (Option<&'a Stack>, Vec<Thread>) {
    // In reading order. For work that is gone, there may be only older stacks.
    let mut stacks: Vec<&Stack> = report.stacks.iter().filter(|stack| stack.current).collect();
    if stacks.is_empty() {
        stacks.extend(report.stacks.first());
    }
    let threads = stacks.iter().take(MAX_STACKS).enumerate().map(|(number, stack)| Thread {
        id: Some(ThreadId::Int(number as u64)),
        name: Some(name(stack)),
        // The first one's stack is in the exception.
        stacktrace: (number > 0).then(|| stacktrace(stack, images)),
        current: number == 0,
        ..Thread::default()
    });
    let threads = threads.collect();
    (stacks.first().copied(), threads)
}

/// `branch 2 of child work thumbnails`, `held by POST /tags, thread 4243 tokio-rt-worker`.
fn name(stack: &Stack) -> String {
    let mut name = match (stack.kind, &stack.work) {
        (StackKind::Await, _) => format!("waits, branch {}", stack.branch),
        (StackKind::Thread, _) => "runs".to_owned(),
        (StackKind::Culprit, Some(work)) => format!("held by {work}"),
        (StackKind::Culprit, None) => "held".to_owned(),
    };
    if let Some(child) = &stack.child {
        name.push_str(&format!(", child work {child}"));
    }
    if let Some(thread) = &stack.thread {
        name.push_str(&format!(", thread {} {}", thread.id, thread.name));
    }
    escape(&name, MAX_NAME).into_owned()
}

pub(super) fn stacktrace(stack: &Stack, images: &mut Images) -> Stacktrace {
    let frames = stack.frames.iter().take(MAX_FRAMES).rev().map(|named| frame(named, images));
    Stacktrace { frames: frames.collect(), ..Stacktrace::default() }
}

fn frame(named: &capture::Frame, images: &mut Images) -> Frame {
    let mut frame = Frame {
        function: named.function.as_deref().map(|function| escape(function, MAX_NAME).into_owned()),
        package: named.module.clone(),
        filename: named.file.as_deref().map(|file| short_path(file).to_owned()),
        abs_path: named.file.clone(),
        lineno: named.line.map(u64::from),
        context_line: named.source.clone(),
        in_app: Some(named.own),
        ..Frame::default()
    };
    // A named frame gets no address, or Sentry would look its name up again, and find frames inlined into it twice.
    if named.function.is_none()
        && let Some(address) = named.address.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok())
    {
        frame.instruction_addr = Some(address.into());
        frame.addr_mode = images.index_of(named).map(|index| format!("rel:{index}"));
        frame.function = frame.addr_mode.is_none().then(|| named.address.clone());
    }
    frame
}

/// The executables and libraries of the frames without names. Sentry can name these frames if it was given the debug
/// information.
#[derive(Default)]
pub(super) struct Images {
    images: Vec<DebugImage>,
    by_build_id: HashMap<String, usize>,
}

impl Images {
    fn index_of(&mut self, frame: &capture::Frame) -> Option<usize> {
        let build_id = frame.build_id.as_ref()?;
        if let Some(&index) = self.by_build_id.get(build_id) {
            return Some(index);
        }
        self.images.push(DebugImage::Symbolic(SymbolicDebugImage {
            name: frame.module.clone().unwrap_or_default(),
            arch: Some(std::env::consts::ARCH.to_owned()),
            // Addresses are relative to the image.
            image_addr: 0.into(),
            image_size: 0,
            image_vmaddr: 0.into(),
            id: debug_id(build_id)?,
            code_id: Some(CodeId::new(build_id.clone())),
            debug_file: None,
        }));
        self.by_build_id.insert(build_id.clone(), self.images.len() - 1);
        Some(self.images.len() - 1)
    }

    pub(super) fn into_meta(self) -> DebugMeta {
        DebugMeta { images: self.images, ..DebugMeta::default() }
    }
}

/// Returns Sentry's id of an ELF file: the first 16 bytes of its build id, in the form of a GUID.
fn debug_id(build_id: &str) -> Option<DebugId> {
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate().take(build_id.len() / 2) {
        *byte = u8::from_str_radix(build_id.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    DebugId::from_guid_age(&bytes, 0).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::testing::{await_stack, culprit, library, own, report};

    /// Guards: callers come before callees, own frames are marked, and the source line is there.
    #[test]
    fn frames_are_listed_outermost_first() {
        let trace = stacktrace(&report().stacks[0], &mut Images::default());
        assert!(trace.frames.first().unwrap().function.as_ref().unwrap().contains("FnOnce"));
        let own: Vec<_> = trace.frames.iter().filter(|frame| frame.in_app == Some(true)).collect();
        assert_eq!(own.len(), 2);
        assert_eq!(own[0].function.as_deref(), Some("photos::lock_page"));
        let expected = json!({
            "function": "photos::wait_for_import", "package": "photos", "filename": "examples/photos/slow.rs",
            "abs_path": "examples/photos/slow.rs", "lineno": 88, "in_app": true,
            "context_line": "let _import = self.import.lock().await;",
        });
        assert_eq!(serde_json::to_value(own[1]).unwrap(), expected);
        let last = trace.frames.last().unwrap();
        assert_eq!((last.in_app, last.filename.as_deref()), (Some(false), Some("tokio-1.2.3/src/lib.rs")));
    }

    #[test]
    fn every_captured_stack_is_a_thread() {
        let mut slow = report();
        slow.stacks = vec![culprit(&[own("photos::tags", 1)]), await_stack(&[own("photos::load", 2)])];
        slow.stacks[1].child = Some("thumbnails".to_owned());
        slow.stacks.push(slow.stacks[1].clone());
        slow.stacks[2].current = false;
        let (main, threads) = arranged(&slow, &mut Images::default());
        assert_eq!(main.unwrap().frames[0].function.as_deref(), Some("photos::tags"));
        let names: Vec<_> = threads.iter().map(|thread| thread.name.clone().unwrap()).collect();
        assert_eq!(
            names,
            ["held by POST /tags, thread 4243 tokio-rt-worker", "waits, branch 0, child work thumbnails"]
        );
        assert!(threads[0].current && threads[0].stacktrace.is_none() && threads[0].id == Some(MAIN));
        assert_eq!(threads[1].stacktrace.as_ref().unwrap().frames.len(), 1);
        slow.stacks.drain(..2);
        assert!(arranged(&slow, &mut Images::default()).0.is_some(), "an older one is better than none");
        slow.stacks = vec![await_stack(&[]); 100];
        assert_eq!(arranged(&slow, &mut Images::default()).1.len(), MAX_STACKS);
    }

    /// Guards: Sentry can name a frame without a name, by the address relative to the file with that debug id.
    #[test]
    fn unnamed_frames_can_be_named_by_sentry() {
        let mut nameless = library("x");
        nameless.function = None;
        nameless.build_id = Some("a2497d1107dda49dada203040a5f1d1007ab56df".to_owned());
        let mut images = Images::default();
        let trace = stacktrace(&await_stack(&[nameless.clone(), nameless.clone(), own("a::b", 1)]), &mut images);
        let frame = serde_json::to_value(&trace.frames[1]).unwrap();
        assert_eq!((&frame["instruction_addr"], &frame["addr_mode"]), (&json!("0x2f00"), &json!("rel:0")));
        assert_eq!(trace.frames[0].instruction_addr, None);
        let meta = serde_json::to_value(images.into_meta()).unwrap();
        assert_eq!(meta["images"].as_array().unwrap().len(), 1);
        assert_eq!(meta["images"][0]["id"], "117d49a2-dd07-9da4-ada2-03040a5f1d10");
        assert_eq!(meta["images"][0]["code_id"], "a2497d1107dda49dada203040a5f1d1007ab56df");
        for build_id in [None, Some("ää".to_owned()), Some("xyz".to_owned())] {
            nameless.build_id = build_id;
            let mut images = Images::default();
            let trace = stacktrace(&await_stack(std::slice::from_ref(&nameless)), &mut images);
            assert_eq!(trace.frames[0].function.as_deref(), Some("0x2f00"));
            assert!(images.into_meta().is_empty());
        }
    }

    #[test]
    fn stacks_and_names_are_cut() {
        let frames = vec![own(&"Generic<".repeat(1_000), 1); 200];
        let mut slow = report();
        slow.stacks = vec![await_stack(&frames); 20];
        let (_, threads) = arranged(&slow, &mut Images::default());
        let frames = &threads[1].stacktrace.as_ref().unwrap().frames;
        assert!(frames.len() == MAX_FRAMES && frames[0].function.as_ref().unwrap().len() < MAX_NAME + 40);
    }
}
