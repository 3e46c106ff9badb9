//! Puts a report into the order and the words in which it is read. Text and HTML are written from the same page.

use super::sections::{Section, current_sections, describe_thread, earlier_sections};
use super::timeline::{Share, shares};
use crate::report::{Kind, Report, Verdict};
use crate::text::time::timestamp;
use crate::text::units::{count, duration};

/// A fact with its name: `("elapsed", "2.51 s (threshold 2.50 s)")`.
pub(super) type Fact = (&'static str, String);

/// The name of the fact that is a link, in HTML, too.
pub(super) const TRACE_URL: &str = "trace at";

/// A report as a reader sees it. Its strings are not escaped yet.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) sentence: String,
    pub(super) facts: Vec<Fact>,
    pub(super) notes: &'a [String],
    /// The stacks of the capture.
    pub(super) stacks: Vec<Section>,
    pub(super) spans: Vec<String>,
    pub(super) timeline: Vec<Share>,
    /// The stacks that only the timeline refers to.
    pub(super) earlier: Vec<Section>,
    pub(super) tail: Vec<Fact>,
}

impl<'a> Page<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        Self {
            sentence: report.sentence(),
            facts: facts(report),
            notes: &report.notes,
            stacks: current_sections(report),
            spans: spans(report),
            timeline: shares(report),
            earlier: earlier_sections(report),
            tail: tail(report),
        }
    }
}

fn facts(report: &Report) -> Vec<Fact> {
    let mut facts = Vec::new();
    let update = if report.update > 0 { format!(", update {}", report.update) } else { String::new() };
    facts.push(("report", format!("{}{update}", report.id)));
    facts.push(("captured", timestamp(report.captured_at)));
    facts.push(("started", timestamp(report.started_at)));
    let threshold = report.limit().map(|limit| format!(" ({limit})")).unwrap_or_default();
    if let Some(fleet) = &report.fleet {
        facts.push(("incident", fleet.words()));
    }
    facts.push(("elapsed", format!("{}{threshold}", duration(report.elapsed))));
    if let Some(ended) = report.ended() {
        facts.push(("ended", ended));
    }
    facts.push(("verdict", format!("{} ({})", report.verdict, report.kind)));
    if let Some(awaiting) = &report.awaiting {
        facts.push(("awaiting", awaiting.clone()));
    }
    if let Some(job) = &report.job {
        facts.push(("job", job.clone()));
    }
    if let Some(request) = &report.request {
        facts.push(("request", format!("{} {} {}", request.method, request.uri, request.version)));
        if let Some(route) = &request.route {
            facts.push(("route", route.clone()));
        }
        for (name, value) in &request.headers {
            facts.push(("header", format!("{name}: {value}")));
        }
    }
    if let (Some(trace), Some(span)) = (&report.trace_id, &report.span_id) {
        facts.push(("trace", format!("{trace}, span {span}")));
    }
    if let Some(url) = &report.trace_url {
        facts.push((TRACE_URL, url.clone()));
    }
    let process = &report.process;
    if let Some(service) = &process.service {
        facts.push(("service", format!("{service} {}", process.version.as_deref().unwrap_or_default())));
    }
    let place = [process.instance.clone(), process.zone.as_ref().map(|zone| format!("in {zone}"))];
    let place: Vec<String> = place.into_iter().flatten().collect();
    if !place.is_empty() {
        facts.push(("instance", place.join(" ")));
    }
    facts.push(("host", process.hostname.clone()));
    let build = process.build_id.as_ref().map(|id| format!(" (build id {id})")).unwrap_or_default();
    facts.push(("process", format!("{} {}{build}", process.pid, process.executable)));
    if let Some(thread) = &report.thread {
        facts.push(("thread", describe_thread(thread)));
    }
    if report.ending.is_some() && report.stacks.is_empty() {
        // What was measured is in the report that this is the end of.
        return facts;
    }
    let [inside, between, longest] = [report.busy, report.waiting, report.longest_poll].map(duration);
    facts.push(("polls", format!("{}: {inside} inside, {between} between them, longest {longest}", report.polls)));
    facts
}

fn spans(report: &Report) -> Vec<String> {
    let span = |span: &crate::report::Span| {
        let fields: Vec<String> = span.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}", span.name, fields.join(" "))
    };
    report.spans.iter().map(span).collect()
}

fn tail(report: &Report) -> Vec<Fact> {
    let mut facts = Vec::new();
    if report.suppressed > 0 {
        let many = count(report.suppressed, "report");
        facts.push(("held back", format!("{many} like this one since the last that went out")));
    }
    facts.push(("fingerprint", report.fingerprint.clone()));
    facts
}

/// Explains the verdict to a reader who sees the word for the first time.
pub(super) const fn meaning(report: &Report) -> &'static str {
    match (report.verdict, report.kind) {
        (Verdict::Waiting, _) => {
            "It is waiting to be woken, by a lock, a socket, a timer or other work. The stacks show which."
        }
        (Verdict::Churning, _) => {
            "It waits again and again at one place, each time only briefly. Ask for all of it at once, or for several at a time."
        }
        (Verdict::Blocking, Kind::BlockingPoll) => {
            "One poll does not return, so its thread cannot serve anything else. Move the work to spawn_blocking, or yield inside it."
        }
        (Verdict::Blocking, _) => {
            "Its poll does not return, so its thread cannot serve anything else. The stack is that thread's."
        }
        (Verdict::Starved, _) => {
            "It is ready to run, but the runtime does not get to it, because other work holds the threads. The stacks show that work."
        }
        (Verdict::Throttled, _) => {
            "It was ready to run, but the host did not give the process the CPU. Nothing in the application is at fault, unless it uses up its own quota."
        }
        (Verdict::Yielding, _) => "It keeps waking itself: it has work to do, and yields in between.",
        (Verdict::NoWaker, _) => {
            "It is waiting, but nothing kept its waker. As far as heeler can see, nothing will ever wake it. That is a bug in a future."
        }
        (Verdict::Abandoned, _) => {
            "It was dropped before it was done: the client left, a timeout ran out, or the server shut down. The stacks are the last ones that were seen."
        }
        (Verdict::Interrupted, _) => "Its time was up, so it was stopped. The stacks show where it was.",
        (Verdict::Unknown, _) => "It is slow, but heeler could not capture where it is. The notes say why.",
    }
}
