//! The console's pages.

mod fleet;
mod graph;
mod parts;
mod state;
mod table;

use super::order;
use super::query::{Filter, View, encoded};
use crate::report::profiles::ProfileLine;
use crate::report::shared::{FleetView, SharedReports};
use crate::report::{Dump, DumpWork, Report, Reports};
use crate::text::html::Html;
use crate::text::page::{PageHead, policy_in_page};
use crate::text::time::timestamp;
use crate::text::units::duration;

pub(super) use table::table;

/// The most characters of one text.
const MAX_TEXT: usize = 2_000;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Without a script, the browser loads the table again.
const REFRESH: &str = "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>";

/// Stored profiles, and what could not be read.
type Profiles = (Vec<ProfileLine>, Vec<String>);

/// Returns one of the console's pages.
pub(super) fn view(
    dump: &Dump,
    reports: &Reports,
    view: View,
    filter: &Filter,
    profiles: &Profiles,
    nonce: &str,
) -> String {
    let title = format!("{}: {} in flight", name(dump, reports), dump.in_flight);
    let mut html = begin(&title, if view == View::InFlight { REFRESH } else { "" }, nonce);
    head(&mut html, dump, reports, Some(view));
    match view {
        View::InFlight => {
            html.raw("<form class=\"search\" method=\"get\"><input type=\"search\" name=\"q\" ");
            html.raw("aria-label=\"Show lines with this text\" placeholder=\"route, place, state, id\" value=\"");
            html.text(&filter.text).raw("\"><input type=\"hidden\" name=\"sort\" value=\"").raw(filter.sort.as_str());
            html.raw("\"><button>Filter</button>");
            if !filter.text.is_empty() {
                html.raw(" <a class=\"button\" href=\"?sort=").raw(filter.sort.as_str()).raw("\">Show all</a>");
            }
            html.raw("</form>\n<div id=\"live\" data-events=\"?events&amp;sort=")
                .raw(filter.sort.as_str())
                .raw("&amp;q=");
            html.text(&encoded(&filter.text)).raw("\">\n");
            html.append(&table(dump, filter));
            html.raw("</div>\n<p class=\"dim\" id=\"trouble\" role=\"status\"></p>\n");
            html.script(SCRIPT, nonce);
        }
        View::Places => parts::places(&mut html, dump),
        View::Resources => {
            parts::deadlocks(&mut html, dump);
            graph::graph(&mut html, dump);
            parts::resources(&mut html, dump);
        }
        View::Threads => parts::threads(&mut html, dump),
        View::Runtimes => state::runtimes(&mut html, dump),
        View::History => {
            state::history(&mut html, reports);
            state::profiles(&mut html, profiles);
            state::sinks(&mut html, reports);
        }
        // It is a page of its own.
        View::Fleet => {}
        View::Switches => state::switches(&mut html, reports),
    }
    html.raw("</main>\n");
    html.finish_page()
}

/// Returns the page of one piece of work.
pub(super) fn work(dump: &Dump, reports: &Reports, work: &DumpWork, nonce: &str) -> String {
    let mut html = begin(&work.name, "", nonce);
    head(&mut html, dump, reports, None);
    html.raw("<h2>").isolated(&work.name).raw("</h2>\n<p class=\"lead\">").text(&dump.line(work)).raw("</p>\n");
    parts::facts(&mut html, dump, work);
    if order::is_possible(work) {
        html.raw("<form method=\"post\" class=\"buttons\"><button formaction=\"?order=").text(&work.id).raw("\">");
        html.raw(if work.method.is_some() {
            "Profile the next request on this route"
        } else {
            "Profile the next job of this name"
        });
        html.raw("</button></form>\n");
    }
    if let Some(group) = dump.groups.get(work.group) {
        if group.count > 1 {
            html.raw("<p class=\"dim\">").number(group.count - 1).raw(" more at this place.</p>\n");
        }
        let path = dump.path_of(work);
        if path.is_some_and(|path| path.count > 1) {
            html.raw("<p class=\"dim\">The stack is that of one of those who came the same way.</p>\n");
        }
        parts::stacks(&mut html, path);
    }
    html.raw("</main>\n");
    html.finish_page()
}

/// Returns the page about the incidents of all instances.
pub(super) fn fleet(dump: &Dump, reports: &Reports, fleet: &FleetView, profiles: &Profiles, nonce: &str) -> String {
    let mut html = begin(&format!("{}: incidents of all instances", name(dump, reports)), "", nonce);
    head(&mut html, dump, reports, Some(View::Fleet));
    fleet::incidents(&mut html, fleet);
    state::profiles(&mut html, profiles);
    html.raw("</main>\n");
    html.finish_page()
}

/// Returns the page about one incident of all instances.
pub(super) fn shared(dump: &Dump, reports: &Reports, shared: &SharedReports, nonce: &str) -> String {
    let mut html = begin(&shared.incident.sentence, "", nonce);
    head(&mut html, dump, reports, None);
    fleet::reports(&mut html, shared);
    html.raw("</main>\n");
    html.finish_page()
}

/// Returns the page of a report.
pub(super) fn report(dump: &Dump, reports: &Reports, report: &Report, nonce: &str) -> String {
    let mut html = begin(&report.sentence(), "", nonce);
    head(&mut html, dump, reports, None);
    state::report(&mut html, report);
    html.raw("</main>\n");
    html.finish_page()
}

fn begin(title: &str, more: &'static str, nonce: &str) -> Html {
    let policy = policy_in_page(nonce, true);
    Html::begin_page(PageHead { title, nonce, policy: &policy, more, style: STYLE, max_text: MAX_TEXT })
}

fn name<'a>(dump: &'a Dump, reports: &'a Reports) -> &'a str {
    reports.service_name().unwrap_or_else(|| dump.process.executable.rsplit('/').next().unwrap_or_default())
}

/// Writes what every page begins with: where this is, what is in flight, and where to go.
fn head(html: &mut Html, dump: &Dump, reports: &Reports, view: Option<View>) {
    html.raw("<header><p class=\"top\"><b>").isolated(name(dump, reports)).raw("</b> <span class=\"dim\">pid ");
    html.number(dump.process.pid).raw(" on ").isolated(&dump.process.hostname).raw(" · <span id=\"when\">");
    html.text(&timestamp(dump.taken_at)).raw("</span>, taken in ").text(&duration(dump.took)).raw("</span></p>\n<nav>");
    for other in View::ALL.into_iter().filter(|other| *other != View::Fleet || reports.is_in_fleet()) {
        let current = if view == Some(other) { " aria-current=\"page\"" } else { "" };
        html.raw("<a href=\"?view=")
            .raw(other.as_str())
            .raw("\"")
            .raw(current)
            .raw(">")
            .raw(other.title())
            .raw("</a> ");
    }
    html.raw(
        "<span class=\"dim\">Take a dump:</span> <a href=\"?form=text\">text</a> <a href=\"?form=json\">JSON</a> ",
    );
    html.raw("<a href=\"?form=svg\">flamegraph</a></nav></header>\n<main><h1 id=\"sentence\">").text(&dump.sentence());
    html.raw("</h1>\n");
    for note in &dump.notes {
        html.raw("<p class=\"dim\">").text(note).raw("</p>\n");
    }
}
