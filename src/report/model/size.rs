//! How much memory a report takes.

use crate::capture::Frame;
use crate::report::model::{Interval, Location, Report, RequestInfo, Span, Stack, Thread};

/// Roughly what an allocator adds to each block.
const BLOCK: usize = 16;

fn text(text: &str) -> usize {
    if text.is_empty() { 0 } else { text.len() + BLOCK }
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a Option<String>>) -> usize {
    texts.into_iter().flatten().map(|some| text(some)).sum()
}

fn pairs(pairs: &[(String, String)]) -> usize {
    let pair = |(name, value): &(String, String)| text(name) + text(value);
    size_of_val(pairs) + pairs.iter().map(pair).sum::<usize>()
}

impl Report {
    /// Returns roughly how many bytes it takes in memory, including everything it owns.
    pub(in crate::report) fn size(&self) -> usize {
        let process = &self.process;
        let lists =
            size_of_val(&*self.stacks) + size_of::<Interval>() * self.timeline.len() + size_of_val(&*self.notes);
        size_of::<Self>()
            + lists
            + text(&self.id)
            + text(&self.fingerprint)
            + texts([&self.job, &process.build_id, &process.service, &process.version])
            + text(&process.hostname)
            + text(&process.executable)
            + self.request.as_ref().map_or(0, request)
            + self.thread.as_ref().map_or(0, thread)
            + self.location.as_ref().map_or(0, location)
            + self.stacks.iter().map(stack).sum::<usize>()
            + self.spans.iter().map(span).sum::<usize>()
            + self.notes.iter().map(|note| text(note)).sum::<usize>()
    }
}

fn request(request: &RequestInfo) -> usize {
    let texts = text(&request.method) + text(&request.uri) + texts([&request.route]) + text(&request.version);
    texts + pairs(&request.headers)
}

fn thread(thread: &Thread) -> usize {
    text(&thread.name) + texts([&thread.state, &thread.syscall, &thread.wchan])
}

fn location(location: &Location) -> usize {
    texts([&location.function, &location.file])
}

fn stack(stack: &Stack) -> usize {
    let unused = size_of::<Frame>() * (stack.frames.capacity() - stack.frames.len());
    let frames = unused + stack.frames.iter().map(Frame::size).sum::<usize>();
    frames + texts([&stack.child, &stack.work]) + stack.thread.as_ref().map_or(0, thread)
}

impl Frame {
    /// Returns roughly how many bytes it takes in memory.
    pub(in crate::report) fn size(&self) -> usize {
        let texts = texts([&self.function, &self.file, &self.source, &self.module, &self.build_id]);
        size_of::<Self>() + texts + text(&self.address)
    }
}

fn span(span: &Span) -> usize {
    size_of::<Span>() + text(&span.name) + pairs(&span.fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, own, report};

    /// Guards: everything that a report can have many of is counted, and no other part can be larger than what is
    /// counted.
    #[test]
    fn the_size_counts_everything_unbounded() {
        let with = |change: &dyn Fn(&mut Report)| {
            let mut changed = report();
            change(&mut changed);
            changed.size().saturating_sub(report().size())
        };
        let long = || "x".repeat(10_000);
        let changes: [&dyn Fn(&mut Report); 8] = [
            &|report| report.notes.push(long()),
            &|report| report.job = Some(long()),
            &|report| report.stacks[0].frames[0].source = Some(long()),
            &|report| report.stacks.push(await_stack(&[own(&long(), 1)])),
            &|report| report.request.as_mut().unwrap().uri = long(),
            &|report| report.request.as_mut().unwrap().headers.push((long(), String::new())),
            &|report| report.spans[0].fields.push((String::new(), long())),
            &|report| report.stacks[0].work = Some(long()),
        ];
        for (at, change) in changes.iter().enumerate() {
            let more = with(change);
            assert!((9_900..11_000).contains(&more), "{at}: {more}");
        }
        assert!(report().size() > report().to_json().len() / 2);
    }
}
