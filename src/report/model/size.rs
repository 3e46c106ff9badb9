//! How much memory a report takes.

use crate::capture::Frame;
use crate::report::model::fleet::FleetIncident;
use crate::report::model::others::{BusyThreads, Others};
use crate::report::model::{Interval, Location, Report, RequestInfo, Span, Stack, Thread};
use crate::report::threads::ThreadGroup;
use crate::report::{Dump, DumpClaim, DumpGroup, DumpResource, DumpWork, RuntimeHealth};

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
            + texts([&self.job, &self.awaiting, &self.trace_id, &self.span_id, &self.trace_url])
            + texts([&process.build_id, &process.service, &process.version, &process.instance, &process.zone])
            + text(&process.hostname)
            + text(&process.executable)
            + self.request.as_ref().map_or(0, request)
            + self.thread.as_ref().map_or(0, thread)
            + text(&self.incident)
            + self.dump.as_ref().map_or(0, |dump| self::dump(dump))
            + self.location.as_ref().map_or(0, location)
            + self.others.as_ref().map_or(0, others)
            + self.fleet.as_ref().map_or(0, |incident| fleet(incident))
            + self.stacks.iter().map(stack).sum::<usize>()
            + self.spans.iter().map(span).sum::<usize>()
            + self.notes.iter().map(|note| text(note)).sum::<usize>()
    }
}

fn fleet(incident: &FleetIncident) -> usize {
    let instances = incident.instances.iter().map(|instance| text(&instance.name) + texts([&instance.version]));
    let routes = incident.routes.iter().map(|route| size_of::<String>() + text(route)).sum::<usize>();
    size_of::<FleetIncident>()
        + size_of_val(&*incident.instances)
        + text(&incident.key)
        + instances.sum::<usize>()
        + routes
}

fn dump(dump: &Dump) -> usize {
    let group = |group: &DumpGroup| {
        let routes = group.routes.iter().map(|(route, _)| size_of::<(String, u64)>() + text(route)).sum::<usize>();
        let place = texts([&group.awaiting]) + group.location.as_ref().map_or(0, location);
        size_of::<DumpGroup>()
            + routes
            + place
            + group.paths.iter().flat_map(|path| &path.stacks).map(|one| size_of::<Stack>() + stack(one)).sum::<usize>()
    };
    let names = |names: &[String]| names.iter().map(|name| size_of::<String>() + text(name)).sum::<usize>();
    let work = |work: &DumpWork| {
        let own = text(&work.id) + text(&work.name) + texts([&work.method, &work.route, &work.parent]);
        size_of::<DumpWork>() + own + names(&work.holds) + names(&work.awaits)
    };
    let claim =
        |claim: &DumpClaim| size_of::<DumpClaim>() + texts([&claim.id]) + text(&claim.work) + location(&claim.at);
    let resource = |resource: &DumpResource| {
        let claims = resource.holders.iter().chain(&resource.waiters).map(claim).sum::<usize>();
        size_of::<DumpResource>() + text(&resource.name) + claims
    };
    let threads = |group: &ThreadGroup| {
        let frames = group.frames.iter().map(Frame::size).sum::<usize>();
        frames + group.threads.iter().map(|one| size_of::<Thread>() + thread(one)).sum::<usize>()
    };
    let runtime =
        |runtime: &RuntimeHealth| size_of::<RuntimeHealth>() + text(&runtime.name) + size_of_val(&*runtime.chart);
    size_of::<Dump>()
        + dump.groups.iter().map(group).sum::<usize>()
        + dump.work.iter().map(work).sum::<usize>()
        + dump.resources.iter().map(resource).sum::<usize>()
        + dump.deadlocks.iter().map(|ring| names(ring)).sum::<usize>()
        + dump.threads.groups.iter().map(threads).sum::<usize>()
        + dump.runtimes.iter().map(runtime).sum::<usize>()
        + names(&dump.notes)
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

fn others(others: &Others) -> usize {
    let resource = others.resource.as_ref();
    let resource = resource.map_or(0, |resource| text(&resource.name) + resource.asked_at.as_ref().map_or(0, location));
    let holders = others.holders.iter().map(|holder| {
        let places = holder.path.iter().chain(&holder.location).chain(&holder.taken_at).map(location).sum::<usize>();
        size_of_val(&*holder.path) + text(&holder.work) + texts([&holder.id, &holder.resource, &holder.reason]) + places
    });
    let places = others.places.iter().map(|place| {
        let names = size_of_val(&*place.work) + place.work.iter().map(|name| text(name)).sum::<usize>();
        names + place.location.as_ref().map_or(0, location)
    });
    let pool = others.blocking_pool.as_ref().map_or(0, |pool| {
        let at = |threads: &BusyThreads| texts([&threads.calls]) + threads.location.as_ref().map_or(0, location);
        size_of_val(&*pool.busy) + pool.busy.iter().map(at).sum::<usize>()
    });
    let lists = size_of_val(&*others.holders) + size_of_val(&*others.places);
    lists + pool + resource + holders.sum::<usize>() + places.sum::<usize>()
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
