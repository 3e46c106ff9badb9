//! Pages about all instances of the service.

use crate::report::Report;
use crate::report::shared::{FleetView, Release, SharedIncident, SharedReports};
use crate::text::html::Html;
use crate::text::time::to_the_second;
use crate::text::units::{count, duration, were};

/// How many incidents are listed, and instances and releases of each.
const MAX_INCIDENTS: usize = 500;
const MAX_NAMES: usize = 3;
const MAX_INSTANCES: usize = 1_000;
const MAX_RELEASES: usize = 50;
/// The most characters of a build id in a list.
const SHORT_BUILD_ID: usize = 12;

/// Writes the incidents of all instances.
pub(super) fn incidents(html: &mut Html, fleet: &FleetView) {
    html.raw("<p class=\"dim\">").text(&count(fleet.reports, "report")).raw(" of ");
    html.text(&count(fleet.instances as u64, "instance"))
        .raw(" in the last ")
        .number(fleet.days)
        .raw(" days, as their indexes in the store have them.");
    if fleet.others > 0 {
        html.raw(" ").text(&count(fleet.others, "more report")).raw(" not listed here, because an index was full.");
    }
    html.raw("</p>\n");
    if fleet.unreadable > 0 {
        html.raw("<p class=\"state bad\">").text(&count(fleet.unreadable as u64, "object"));
        html.raw(" in the store could not be read.</p>\n");
    }
    if fleet.left_out > 0 {
        let left_out = fleet.left_out as u64;
        html.raw("<p class=\"state bad\">").text(&count(left_out, "object")).raw(" of the oldest of these days ");
        html.raw(were(left_out)).raw(" not read: there is too much for one page.</p>\n");
    }
    if fleet.incidents.is_empty() {
        html.raw("<p>No instance has reported anything.</p>\n");
        return;
    }
    html.raw("<div class=\"scroll\"><table class=\"list\"><thead><tr><th>What<th class=\"n\">Reports<th>Instances");
    html.raw("<th>Since<th class=\"n\">Worst<th>First<th>Last</tr></thead><tbody>\n");
    fleet.incidents.iter().take(MAX_INCIDENTS).for_each(|incident| line(html, incident));
    html.raw("</tbody></table></div>\n");
    if let Some(more) = fleet.incidents.len().checked_sub(MAX_INCIDENTS).filter(|more| *more > 0) {
        html.raw("<p class=\"dim\">… ").number(more).raw(" more that were quiet for longer</p>\n");
    }
}

fn line(html: &mut Html, incident: &SharedIncident) {
    html.raw("<tr><td class=\"wide\"><a href=\"?fleet=").text(&incident.fingerprint).raw("\">");
    html.isolated(&incident.sentence).raw("</a></td><td class=\"n\"><span class=\"label\">reports </span>");
    html.number(incident.reports).raw("</td><td><span class=\"label\">instances </span>");
    html.number(incident.names.len()).raw(": ");
    for (at, (name, reports)) in incident.names.iter().take(MAX_NAMES).enumerate() {
        html.raw(if at > 0 { ", " } else { "" }).isolated(name).raw(" (").number(*reports).raw(")");
    }
    html.raw(if incident.names.len() > MAX_NAMES { ", …" } else { "" });
    html.raw("</td><td><span class=\"label\">since </span>");
    if let Some(release) = incident.releases.first() {
        name(html, release, SHORT_BUILD_ID);
    }
    html.raw("</td><td class=\"n\"><span class=\"label\">worst </span>").text(&duration(incident.worst)).raw("</td>");
    for (label, time) in [("first ", incident.first), ("last ", incident.last)] {
        html.raw("<td class=\"when\"><span class=\"label\">").raw(label).raw("</span>");
        html.text(&to_the_second(time)).raw("</td>");
    }
    html.raw("</tr>\n");
}

/// Writes the name of a release: its version and its build id, as far as they are known.
fn name(html: &mut Html, release: &Release, characters: usize) {
    match &release.version {
        Some(version) => html.isolated(version),
        None => html.raw("no version"),
    };
    if let Some(build) = &release.build_id {
        let short: String = build.chars().take(characters).collect();
        html.raw(" <span class=\"at code\">build ").isolated(&short).raw("</span>");
    }
}

/// Writes one incident: which releases and instances have it, its first and its worst report.
pub(super) fn reports(html: &mut Html, shared: &SharedReports) {
    let incident = &shared.incident;
    html.raw("<h2>").isolated(&incident.sentence).raw("</h2>\n<p>").text(&count(incident.reports, "report"));
    html.raw(" of ")
        .text(&count(incident.names.len() as u64, "instance"))
        .raw(", from ")
        .text(&to_the_second(incident.first))
        .raw(" to ");
    html.text(&to_the_second(incident.last)).raw(", the worst after ").text(&duration(incident.worst)).raw(".</p>\n");
    html.raw("<h2>Releases</h2>\n<div class=\"scroll\"><table class=\"list\"><thead><tr><th>Release");
    html.raw("<th class=\"n\">Reports<th>First</tr></thead><tbody>\n");
    for release in incident.releases.iter().take(MAX_RELEASES) {
        html.raw("<tr><td class=\"wide\">");
        name(html, release, usize::MAX);
        html.raw("</td><td class=\"n\"><span class=\"label\">reports </span>").number(release.reports);
        html.raw("</td><td class=\"when\"><span class=\"label\">first </span>").text(&to_the_second(release.first));
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n<h2>Instances</h2>\n<div class=\"scroll\"><table class=\"list\"><thead><tr>");
    html.raw("<th>Instance<th>Zone<th>Version<th class=\"n\">Reports<th>Last</tr></thead><tbody>\n");
    for instance in incident.instances.iter().take(MAX_INSTANCES) {
        html.raw("<tr><td class=\"wide\">").isolated(&instance.name);
        for (label, text) in [("zone ", &instance.zone), ("version ", &instance.version)] {
            html.raw("</td><td>");
            if let Some(text) = text {
                html.raw("<span class=\"label\">").raw(label).raw("</span>").isolated(text);
            }
        }
        html.raw("</td><td class=\"n\"><span class=\"label\">reports </span>").number(instance.reports);
        html.raw("</td><td class=\"when\"><span class=\"label\">last </span>").text(&to_the_second(instance.last));
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
    let is_one = shared.worst.is_none();
    for (title, report) in [("First report", &shared.first), ("Worst report", &shared.worst)] {
        if let Some(report) = report {
            stored(html, if is_one { "First and worst report" } else { title }, report);
        }
    }
    if shared.first.is_none() && shared.worst.is_none() {
        html.raw(
            "<p class=\"dim\">Its reports are not in the store: they are still on their way, or were removed.</p>\n",
        );
    }
}

fn stored(html: &mut Html, title: &'static str, report: &Report) {
    html.raw("<h2>").raw(title).raw("</h2>\n");
    if let Some(url) = &report.trace_url {
        html.raw("<p><a rel=\"noreferrer\" href=\"").url(url).raw("\">trace</a></p>\n");
    }
    html.raw("<pre class=\"code\">").whole(&report.to_text()).raw("</pre>\n");
}
