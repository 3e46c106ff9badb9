//! A report of the kind *dump* as a message.

use crate::report::assemble::location::place;
use crate::report::render::markup::Colour;
use crate::report::render::page::Fact;
use crate::report::render::sections::{Listing, Section};
use crate::report::render::stacks::lines;
use crate::report::{Dump, DumpResource, Report};
use crate::text::html::Html;
use crate::text::time::timestamp;
use crate::text::units::duration;

/// How many bytes each part may have: see [`Report::to_html`].
const STACKS: usize = 40_000;
const LIST: usize = 10_000;
/// How many places, and how much of the oldest work.
const MAX_GROUPS: usize = 32;
const MAX_WORK: usize = 32;

impl Dump {
    /// Returns the dump as a small page of HTML, as [`Report::to_html`] does of a report: what is in flight by place,
    /// deadlocks and resources, the oldest work, the threads. It is never longer than 100,000 bytes.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = format!("{} in flight on {}", self.in_flight, self.process.hostname);
        page(self, &title, &self.sentence(), None)
    }
}

/// Returns the same as a message with a report of the kind *dump*.
pub(in crate::report::render) fn message(report: &Report, dump: &Dump) -> String {
    page(dump, &report.subject(), &report.sentence(), Some(&report.id))
}

fn page(dump: &Dump, title: &str, sentence: &str, id: Option<&String>) -> String {
    let mut html = Html::message(title);
    html.badge(Colour::of_dump(!dump.deadlocks.is_empty()), "dump");
    html.raw("<h1 style=\"font-size:18px;line-height:1.35;margin:10px 0 12px\">");
    html.text(sentence);
    html.raw("</h1>\n");
    let process = &dump.process;
    let mut facts: Vec<Fact> = vec![
        ("taken", format!("{}, in {}", timestamp(dump.taken_at), duration(dump.took))),
        ("host", process.hostname.clone()),
        ("process", format!("{} {}", process.pid, process.executable)),
    ];
    facts.extend(id.map(|id| ("report", id.clone())));
    html.facts(LIST, &facts);
    html.list("Notes", LIST, &dump.notes);
    let in_deadlock: Vec<String> = dump
        .deadlocks
        .iter()
        .flatten()
        .filter_map(|id| dump.work.iter().find(|work| work.id == *id))
        .map(|work| dump.line(work))
        .collect();
    html.list("In a deadlock: none of these can make progress", LIST, &in_deadlock);
    let groups = dump.groups.iter().take(MAX_GROUPS).map(|group| Section {
        heading: format!("{} {}, the oldest for {}", group.count, group.says(), duration(group.oldest)),
        listings: group
            .paths
            .iter()
            .take(3)
            .flat_map(|path| {
                let title = (group.paths.len() > 1).then(|| format!("{} came this way", path.count));
                let branches = path.branches().into_iter().take(4).enumerate();
                branches.map(move |(at, (stack, _))| Listing {
                    title: title.clone().filter(|_| at == 0),
                    lines: lines(stack),
                })
            })
            .collect(),
    });
    html.sections(STACKS, &groups.collect::<Vec<_>>());
    let more = dump.groups.len().saturating_sub(MAX_GROUPS);
    html.left_out(more, "place");
    let resources: Vec<String> = dump.resources.iter().map(DumpResource::says).collect();
    html.list("What is held and awaited", LIST, &resources);
    let oldest = dump.work.iter().take(MAX_WORK);
    let oldest: Vec<String> =
        oldest.map(|work| format!("{}: {} ({})", duration(work.elapsed), dump.line(work), work.id)).collect();
    html.list("The oldest", LIST, &oldest);
    let threads = dump.threads.groups.iter().take(MAX_WORK).map(|group| {
        let frames = group.frames.iter().find(|frame| frame.own).map(crate::report::assemble::location::place_of);
        let at = frames.map(|location| format!(", in {}", place(&location))).unwrap_or_default();
        format!("{}{at}", group.heading())
    });
    html.list("Threads", LIST, &threads.collect::<Vec<_>>());
    html.finish_message()
}
