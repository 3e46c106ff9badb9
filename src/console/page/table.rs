//! The table of what is in flight.

use std::cmp::Reverse;

use crate::console::query::{Filter, Sort, encoded};
use crate::report::place_text as place;
use crate::report::{Dump, DumpGroup, DumpKind, DumpState, DumpWork};
use crate::text::html::Html;
use crate::text::units::duration;

/// At most this many lines are shown. The JSON form has all.
const MAX_LINES: usize = 300;

/// Returns the table, sorted and filtered.
pub(in crate::console) fn table(dump: &Dump, filter: &Filter) -> String {
    let mut html = Html::new(super::MAX_TEXT);
    let mut lines: Vec<&DumpWork> = dump.work.iter().filter(|work| matches(dump, work, &filter.text)).collect();
    match filter.sort {
        // As they are.
        Sort::Age => {}
        Sort::Place => lines.sort_by_key(|work| work.group),
        Sort::Route => lines.sort_by(|one, other| (&one.route, &one.name).cmp(&(&other.route, &other.name))),
        Sort::Polls => lines.sort_by_key(|work| Reverse(work.polls)),
        Sort::Left => lines.sort_by_key(|work| (work.left.is_none(), work.left)),
    }
    html.raw("<p class=\"dim\" id=\"news\" data-sentence=\"").text(&dump.sentence()).raw("\">");
    match (lines.len(), dump.work.len()) {
        (shown, all) if shown == all => html.number(all).raw(" in flight"),
        (shown, all) => html.number(shown).raw(" of ").number(all).raw(" in flight"),
    };
    if lines.len() > MAX_LINES {
        html.raw(", the first ").number(MAX_LINES).raw(" are shown");
    }
    if dump.omitted > 0 {
        html.raw(". ").number(dump.omitted).raw(" more are only counted");
    }
    html.raw("</p>\n<div class=\"scroll\"><table class=\"list\"><thead><tr>");
    heading(&mut html, filter, Some(Sort::Age), "Age", true);
    heading(&mut html, filter, Some(Sort::Route), "Work", false);
    heading(&mut html, filter, Some(Sort::Place), "What it does, and where", false);
    heading(&mut html, filter, None, "There for", true);
    heading(&mut html, filter, Some(Sort::Polls), "Polls", true);
    heading(&mut html, filter, Some(Sort::Left), "Left", true);
    html.raw("</tr></thead><tbody>\n");
    for work in lines.iter().take(MAX_LINES) {
        line(&mut html, dump, work);
    }
    html.raw("</tbody></table></div>\n");
    if lines.is_empty() {
        html.raw("<p>Nothing to show.</p>\n");
    }
    html.into_markup()
}

fn heading(html: &mut Html, filter: &Filter, sort: Option<Sort>, title: &'static str, number: bool) {
    html.raw(if number { "<th class=\"n\"" } else { "<th" });
    match sort {
        Some(sort) if sort == filter.sort => html.raw(" aria-sort=\"").raw(sort.direction()).raw("\">").raw(title),
        Some(sort) => {
            html.raw("><a href=\"?sort=").raw(sort.as_str()).raw("&amp;q=").text(&encoded(&filter.text)).raw("\">");
            html.raw(title).raw("</a>")
        }
        None => html.raw(">").raw(title),
    };
    html.raw("</th>");
}

fn line(html: &mut Html, dump: &Dump, work: &DumpWork) {
    let group = dump.groups.get(work.group);
    html.raw("<tr><td class=\"n\">").text(&duration(work.elapsed)).raw("</td><td class=\"wide\"><a href=\"?work=");
    html.text(&work.id).raw("\">").isolated(&work.name).raw("</a>");
    if work.kind != DumpKind::Request {
        html.raw(" <span class=\"dim\">").raw(work.kind.as_str()).raw("</span>");
    }
    if let Some(route) = &work.route {
        html.raw("<span class=\"at\">").isolated(route).raw("</span>");
    }
    html.raw("</td><td class=\"wide\"><span class=\"state ").raw(class(work.state)).raw("\">").raw(work.state.as_str());
    html.raw("</span>");
    if let Some(awaiting) = group.and_then(|group| group.awaiting.as_ref()) {
        html.raw(" for ").text(awaiting);
    }
    if let Some(location) = group.and_then(|group| group.location.as_ref()) {
        html.raw("<span class=\"at code\">").isolated(&place(location)).raw("</span>");
    }
    for (verb, names) in [("holds", &work.holds), ("waits for", &work.awaits)] {
        for name in names {
            html.raw("<span class=\"chip\">").raw(verb).raw(" ").isolated(name).raw("</span> ");
        }
    }
    html.raw("</td>");
    for (label, time) in [
        ("there for ", work.there.map(duration)),
        ("polls ", Some(work.polls.to_string())),
        ("left ", work.left.map(duration)),
    ] {
        html.raw("<td class=\"n\">");
        if let Some(time) = time {
            html.raw("<span class=\"label\">").raw(label).raw("</span>").text(&time);
        }
        html.raw("</td>");
    }
    html.raw("</tr>\n");
}

pub(super) const fn class(state: DumpState) -> &'static str {
    match state {
        DumpState::Blocked | DumpState::NoWaker => "bad",
        DumpState::Running | DumpState::Polled => "busy",
        DumpState::Woken | DumpState::Yielding => "ready",
        DumpState::Waiting => "waits",
        DumpState::New | DumpState::Unknown => "dim",
    }
}

/// Returns whether a line has that text, which is in lower case.
fn matches(dump: &Dump, work: &DumpWork, text: &str) -> bool {
    let has = |value: &str| value.to_lowercase().contains(text);
    text.is_empty()
        || has(&work.name)
        || has(&work.id)
        || has(work.state.as_str())
        || has(work.kind.as_str())
        || work.route.as_deref().is_some_and(has)
        || work.holds.iter().chain(&work.awaits).any(|name| has(name))
        || dump.groups.get(work.group).map(DumpGroup::says).is_some_and(|says| has(&says))
}
