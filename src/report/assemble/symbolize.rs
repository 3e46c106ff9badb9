//! Symbolizes a report later: if the process had a stripped binary, with the unstripped one.

use super::awaiting::awaiting;
use super::location::{arrange, locate};
use super::yielding::yields;
use crate::capture::{Frame, disown_wrappers, drop_copying, is_own_elsewhere, readable};
use crate::monitor::Verdict;
use crate::report::model::words::StackKind;
use crate::report::model::{Location, ProcessInfo, Report, Stack};

impl Report {
    /// Names the frames of a report whose process could not, for instance because its binary was stripped. Frames that
    /// already have names are named again.
    ///
    /// `name` is called for each place in the code of the report. It gets the frame, which has the module and the build
    /// id, and the address to look up in that module's file. It returns the functions there: the inlined ones,
    /// innermost first, then the one that has the code. If it returns none, the frame stays as it is. Functions are
    /// demangled names; they become [readable](Frame::function) here.
    ///
    /// Then the application's own frames are told from others, as far as that is possible without
    /// [`own_crates`](crate::ReportsBuilder::own_crates), and the report's [`location`](Self::location) is found again.
    /// Its [`fingerprint`](Self::fingerprint) stays as it was when the report was sent.
    ///
    /// `examples/symbolize.rs` names a report from an unstripped binary, or from its separate debug file:
    ///
    /// ```text
    /// cargo run --example symbolize -- slow_request_20250101T100000_5cf400b2380cbd97.json target/release/photos
    /// ```
    pub fn symbolize(&mut self, mut name: impl FnMut(&Frame, u64) -> Vec<Location>) {
        for stack in &mut self.stacks {
            symbolize(stack, &self.process, &mut name);
        }
        if self.verdict == Verdict::Waiting && yields(&self.stacks, false) {
            self.verdict = Verdict::Yielding;
        }
        arrange(self);
        self.location = locate(self);
        self.awaiting = awaiting(self);
    }
}

fn symbolize(stack: &mut Stack, process: &ProcessInfo, name: &mut dyn FnMut(&Frame, u64) -> Vec<Location>) {
    let is_thread = matches!(stack.kind, StackKind::Thread | StackKind::Culprit);
    let mut frames = Vec::with_capacity(stack.frames.len());
    // A place consists of the functions that were inlined there, and the one that has the code.
    for place in stack.frames.chunk_by(|frame, _| frame.inlined) {
        let Some(physical) = place.last() else { continue };
        let is_exact = is_thread && frames.is_empty() || physical.tail_call;
        // The call is before its return address.
        let address = address_of(physical).map(|address| address.saturating_sub(u64::from(!is_exact)));
        let found = address.map(|address| name(physical, address)).unwrap_or_default();
        if found.is_empty() {
            frames.extend_from_slice(place);
            continue;
        }
        let last = found.len() - 1;
        for (at, location) in found.into_iter().enumerate() {
            frames.push(named(location, at < last, place, physical, process));
        }
    }
    if frames == stack.frames {
        return;
    }
    if stack.kind == StackKind::Await {
        drop_copying(&mut frames);
    }
    disown_wrappers(&mut frames);
    stack.frames = frames;
}

fn named(location: Location, inlined: bool, place: &[Frame], physical: &Frame, process: &ProcessInfo) -> Frame {
    let Location { function, file, line } = location;
    let function = function.as_deref().and_then(readable);
    let own = may_be_own(physical, process)
        && is_own_elsewhere(&process.executable, function.as_deref(), file.as_deref(), None);
    // Reuse the source of the same line, if it is already known.
    let known = place.iter().find(|frame| frame.file == file && frame.line == line);
    let source = known.and_then(|frame| frame.source.clone());
    let Frame { module, build_id, address, tail_call, .. } = physical.clone();
    Frame { function, file, line, source, module, build_id, address, own, inlined, tail_call, identity: 0 }
}

fn address_of(frame: &Frame) -> Option<u64> {
    u64::from_str_radix(frame.address.strip_prefix("0x")?, 16).ok()
}

/// Returns whether a module may contain the application's code, although its path isn't known. System libraries have a
/// version behind their names (`libc.so.6`), an application's libraries don't.
fn may_be_own(frame: &Frame, process: &ProcessInfo) -> bool {
    let executable = process.executable.rsplit(['/', '\\']).next();
    frame.module.as_deref().is_none_or(|module| Some(module) == executable || !module.contains(".so."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, library, own, report, thread_stack};

    fn bare(address: &str) -> Frame {
        let (module, build_id) = (Some("photos".to_owned()), Some("abc".to_owned()));
        Frame { module, build_id, address: address.to_owned(), ..Frame::default() }
    }

    fn location(function: &str, file: &str, line: u32) -> Location {
        Location::new(Some(function.to_owned()), Some(file.to_owned()), Some(line))
    }

    /// Guards: a return address is looked up at its call. The address where a thread was interrupted is not.
    #[test]
    fn return_addresses_are_looked_up_at_the_call() {
        let mut report = report();
        report.stacks = vec![thread_stack(&[bare("0x10"), bare("0x20")]), await_stack(&[bare("0x30"), bare("0")])];
        let mut asked = Vec::new();
        report.symbolize(|frame, address| {
            asked.push((frame.address.clone(), address));
            Vec::new()
        });
        let expected = [("0x10", 0x10), ("0x20", 0x1f), ("0x30", 0x2f)];
        assert_eq!(asked, expected.map(|(text, address)| (text.to_owned(), address)));
        assert_eq!(report.stacks.iter().flat_map(|stack| &stack.frames).filter(|frame| frame.own).count(), 0);
    }

    /// Guards: names become readable, inlined functions become frames of their own, and the report says where to look.
    #[test]
    fn frames_get_readable_names() {
        let mut report = report();
        let libc = Frame { module: Some("libc.so.6".to_owned()), ..bare("0x70") };
        report.stacks = vec![await_stack(&[bare("0x10"), bare("0x20"), bare("0x30"), libc.clone()])];
        report.fingerprint = "f".to_owned();
        let registry = "/r/registry/src/mirror-0123456789abcdef/tokio-1.54.1/src/sync/mutex.rs";
        report.symbolize(|frame, address| match (frame.module.as_deref(), address) {
            (Some("photos"), 0xf) => vec![location("heeler::capture::task::clone", "src/capture/task.rs", 9)],
            (Some("photos"), 0x1f) => vec![
                location("tokio::sync::mutex::Mutex<T>::lock::{{closure}}", registry, 4),
                location("photos::load::{{closure}}", "src/load.rs", 7),
            ],
            (Some("photos"), _) => Vec::new(),
            _ => vec![location("__poll", "./io/poll.c", 29)],
        });
        let frames = &report.stacks[0].frames;
        let shown: Vec<_> = frames.iter().map(|frame| (frame.function.as_deref(), frame.own, frame.inlined)).collect();
        let lock = (Some("tokio::sync::mutex::Mutex<T>::lock"), false, true);
        let load = (Some("photos::load"), true, false);
        assert_eq!(
            shown,
            [lock, load, (None, false, false), (Some("__poll"), false, false)],
            "without how it was copied"
        );
        assert!(frames[..2].iter().all(|frame| frame.address == "0x20" && frame.build_id.as_deref() == Some("abc")));
        assert_eq!(frames[2], bare("0x30"), "what has no name stays");
        assert_eq!(report.location, Some(location("photos::load", "src/load.rs", 7)));
        assert_eq!(report.fingerprint, "f");
    }

    /// Guards: symbolizing a report again changes only what has new names, whatever was inlined before.
    #[test]
    fn naming_again_adds_nothing() {
        let mut report = report();
        let mut inner = Frame { function: None, file: Some("src/app.rs".to_owned()), ..own("", 3) };
        (inner.inlined, inner.source) = (true, Some("load().await".to_owned()));
        report.stacks = vec![await_stack(&[inner, own("photos::page", 9), library("tokio::x")])];
        let mut asked = 0;
        report.symbolize(|frame, _| {
            asked += 1;
            let is_own = frame.function.as_deref() == Some("photos::page");
            let both = || vec![location("photos::load", "src/app.rs", 3), location("photos::page", "src/app.rs", 9)];
            if is_own { both() } else { Vec::new() }
        });
        assert_eq!(asked, 2);
        let frames = &report.stacks[0].frames;
        assert_eq!(frames.len(), 3);
        assert_eq!(
            (frames[0].function.as_deref(), frames[0].source.as_deref()),
            (Some("photos::load"), Some("load().await"))
        );
        assert_eq!((&frames[1], &frames[2]), (&own("photos::page", 9), &library("tokio::x")));
    }

    /// Guards: the verdict *yielding*, which can depend on names, is found later, too.
    #[test]
    fn the_verdict_is_updated_with_the_names() {
        let mut report = report();
        report.stacks = vec![await_stack(&[bare("0x10"), bare("0x20")])];
        report.symbolize(|_, address| match address {
            0xf => vec![location("tokio::runtime::context::defer", "/r/x", 1)],
            _ => vec![location("photos::again", "src/app.rs", 1)],
        });
        assert_eq!(report.verdict, Verdict::Yielding);
    }
}
