//! Pages about heeler itself: runtimes, history, switches.

use std::time::{Duration, Instant};

use crate::console::switches::{self, Setting};
use crate::report::profiles::ProfileLine;
use crate::report::{Dump, Incident, Report, Reports, RuntimeHealth};
use crate::text::html::Html;
use crate::text::time::to_the_second;
use crate::text::units::duration;

/// The thresholds that a button offers, in milliseconds.
const THRESHOLDS: [u64; 4] = [100, 1_000, 5_000, 25_000];
/// How often a rule may fire in an hour, as a button offers it.
const BUDGETS: [u32; 3] = [1, 6, 60];
/// For how long.
const MINUTES: u64 = 10;
/// Measures of a chart.
const BAR: usize = 5;
const HEIGHT: usize = 30;

/// Writes how the runtimes are.
pub(super) fn runtimes(html: &mut Html, dump: &Dump) {
    if dump.runtimes.is_empty() {
        html.raw(
            "<p>No runtime is watched. <code>heeler::watch_runtime(\"main\", &amp;Handle::current(), reports)</code> ",
        );
        html.raw("measures how long it takes to run what is ready, and reports when it stalls.</p>\n");
        return;
    }
    html.raw("<div class=\"scroll\"><table><thead><tr><th>Runtime<th>Delays<th class=\"n\">p50<th class=\"n\">p99");
    html.raw("<th class=\"n\">Longest<th class=\"n\">Stalls<th class=\"n\">Workers<th class=\"n\">Tasks<th class=\"n\">Queued");
    html.raw("</tr></thead><tbody>\n");
    for runtime in &dump.runtimes {
        line(html, runtime);
    }
    html.raw("</tbody></table></div>\n<p class=\"dim\">A delay is the time from waking a task to polling it, in the last five ");
    html.raw("minutes. A bar is the longest of five seconds; a full one is a second or more.</p>\n");
}

fn line(html: &mut Html, runtime: &RuntimeHealth) {
    html.raw("<tr><td><b>").isolated(&runtime.name).raw("</b>");
    if let Some(time) = runtime.stalled_for {
        html.raw(" <span class=\"state bad\">stalled for ").text(&duration(time)).raw("</span>");
    }
    html.raw("</td><td>");
    // From a millisecond on, each step of the height is a tenfold delay.
    let height = |delay: &Duration| {
        let steps = (delay.as_secs_f64() * 1e3).max(1.0).log10() / 3.0;
        (steps.min(1.0) * HEIGHT as f64) as usize
    };
    bars(html, runtime.chart.iter().map(height), "The longest delays of the last five minutes");
    html.raw("</td>");
    for delay in [runtime.delay_p50, runtime.delay_p99, runtime.delay_max] {
        html.raw("<td class=\"n\">").text(&duration(delay)).raw("</td>");
    }
    html.raw("<td class=\"n\">").number(runtime.stalls);
    if runtime.throttled > 0 {
        html.raw(" <span class=\"dim\">and ").number(runtime.throttled).raw(" throttled</span>");
    }
    html.raw("</td>");
    for number in [runtime.workers, runtime.alive_tasks, runtime.queued_tasks] {
        html.raw("<td class=\"n\">").number(number).raw("</td>");
    }
    html.raw("</tr>\n");
}

/// Writes a small chart of bars, each that high.
fn bars(html: &mut Html, heights: impl ExactSizeIterator<Item = usize>, label: &'static str) {
    let width = heights.len().max(1) * BAR;
    html.raw("<svg class=\"bars\" role=\"img\" aria-label=\"").raw(label).raw("\" width=\"").number(width);
    html.raw("\" height=\"").number(HEIGHT).raw("\">");
    for (at, height) in heights.enumerate() {
        let height = height.clamp(1, HEIGHT);
        html.raw("<rect x=\"").number(at * BAR).raw("\" y=\"").number(HEIGHT - height).raw("\" width=\"");
        html.number(BAR - 1).raw("\" height=\"").number(height).raw("\"/>");
    }
    html.raw("</svg>");
}

/// Writes what reports were about.
pub(super) fn history(html: &mut Html, reports: &Reports) {
    let incidents = reports.history();
    if incidents.is_empty() {
        html.raw("<p>Nothing was reported since this console was made.</p>\n");
    } else {
        html.raw(
            "<div class=\"scroll\"><table class=\"list\"><thead><tr><th>What<th>Last 24 hours<th class=\"n\">Reports",
        );
        html.raw("<th class=\"n\">Worst<th>First<th>Last</tr></thead><tbody>\n");
        incidents.iter().for_each(|incident| incident_line(html, incident));
        html.raw("</tbody></table></div>\n");
    }
}

/// Writes which profiles are stored.
pub(super) fn profiles(html: &mut Html, (lines, errors): &(Vec<ProfileLine>, Vec<String>)) {
    if lines.is_empty() && errors.is_empty() {
        return;
    }
    html.raw("<h2>Profiles</h2>\n");
    for error in errors {
        html.raw("<p class=\"state bad\">Some cannot be listed: ").text(error).raw(".</p>\n");
    }
    if lines.is_empty() {
        return;
    }
    html.raw("<div class=\"scroll\"><table class=\"list\"><thead><tr><th>Request<th>Ended<th class=\"n\">Time<th>Instance<th>Began<th>Forms");
    html.raw("</tr></thead><tbody>\n");
    for line in lines {
        html.raw("<tr><td class=\"wide\"><a href=\"?profile=").text(&line.id).raw("\">").isolated(&line.request);
        html.raw("</a>");
        if let Some(reason) = &line.reason {
            html.raw("<span class=\"at\">").isolated(reason).raw("</span>");
        }
        html.raw("</td><td><span class=\"label\">ended </span>").text(&line.ended);
        html.raw("</td><td class=\"n\"><span class=\"label\">time </span>").text(&duration(line.time));
        html.raw("</td><td><span class=\"label\">by </span>");
        if let Some(instance) = &line.instance {
            html.isolated(instance);
        }
        html.raw("</td><td class=\"when\"><span class=\"label\">began </span>").text(&to_the_second(line.started_at));
        html.raw("</td><td><a href=\"?profile=").text(&line.id).raw("&amp;form=json\">JSON</a></td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

/// Writes the state of the sinks.
pub(super) fn sinks(html: &mut Html, reports: &Reports) {
    html.raw("<h2>Sinks</h2>\n<div class=\"scroll\"><table><thead><tr><th>Sink<th class=\"n\">Delivered<th class=\"n\">Queued");
    html.raw("<th class=\"n\">Undelivered<th class=\"n\">Failed attempts</tr></thead><tbody>\n");
    for sink in reports.sinks() {
        html.raw("<tr><td>").isolated(&sink.name).raw("</td>");
        for number in [sink.delivered, sink.queued, sink.undelivered, sink.failed_deliveries] {
            html.raw("<td class=\"n\">").number(number).raw("</td>");
        }
        html.raw("</tr>\n");
    }
    let stats = reports.stats();
    html.raw("</tbody></table></div>\n<p class=\"dim\">")
        .number(stats.made)
        .raw(" reports made, ")
        .number(stats.suppressed);
    html.raw(" held back, ").number(stats.dropped).raw(" dropped.</p>\n");
}

fn incident_line(html: &mut Html, incident: &Incident) {
    html.raw("<tr><td class=\"wide\">");
    if incident.has_report() {
        html.raw("<a href=\"?report=").text(&incident.fingerprint).raw("\">");
        html.isolated(&incident.sentence).raw("</a>");
    } else {
        html.isolated(&incident.sentence);
    }
    html.raw("</td><td>");
    let most = incident.hours.iter().copied().max().unwrap_or(0).max(1) as usize;
    bars(
        html,
        incident.hours.iter().map(|hour| *hour as usize * HEIGHT / most),
        "Reports in each of the last 24 hours",
    );
    html.raw("</td><td class=\"n\"><span class=\"label\">reports </span>").number(incident.count);
    html.raw("</td><td class=\"n\"><span class=\"label\">worst </span>").text(&duration(incident.worst)).raw("</td>");
    for (label, time) in [("first ", incident.first), ("last ", incident.last)] {
        html.raw("<td class=\"when\"><span class=\"label\">")
            .raw(label)
            .raw("</span>")
            .text(&to_the_second(time))
            .raw("</td>");
    }
    html.raw("</tr>\n");
}

/// Writes a report.
pub(super) fn report(html: &mut Html, report: &Report) {
    html.raw("<h2>").isolated(&report.sentence()).raw("</h2>\n<p><a href=\"?report=").text(&report.fingerprint);
    html.raw("&amp;form=svg\">Flamegraph</a> <a href=\"?report=").text(&report.fingerprint);
    html.raw("&amp;form=text\">text</a> <a href=\"?report=").text(&report.fingerprint).raw("&amp;form=json\">JSON</a>");
    if let Some(url) = &report.trace_url {
        html.raw(" <a rel=\"noreferrer\" href=\"").url(url).raw("\">trace</a>");
    }
    html.raw("</p>\n<pre class=\"code\">").whole(&report.to_text()).raw("</pre>\n");
}

/// Writes the watchdogs and the rules, with buttons.
pub(super) fn switches(html: &mut Html, reports: &Reports) {
    let all = switches::list(reports);
    if all.is_empty() {
        html.raw("<p>There is no watchdog, and no rule.</p>\n");
        return;
    }
    html.raw("<div class=\"scroll\"><table><thead><tr><th>What<th>Now<th>Change</tr></thead><tbody>\n");
    for shown in all {
        html.raw("<tr><td>").isolated(&shown.name).raw("</td><td>");
        setting(html, shown.now);
        if let Some(spent) = shown.spent {
            html.raw("; ").number(spent).raw(" in the last hour");
        }
        if let Some(changed) = &shown.changed {
            let left = changed.until.saturating_duration_since(Instant::now());
            html.raw("<span class=\"at\">changed by ").isolated(&changed.by).raw(", for ").text(&duration(left));
            html.raw(" more, then ");
            setting(html, changed.before);
            html.raw("</span>");
        }
        html.raw("</td><td><form method=\"post\" class=\"buttons\">");
        let mut button = |to: &str, text: &str| {
            html.raw("<button formaction=\"?").text(&shown.query).raw("&amp;to=").text(to).raw("&amp;minutes=");
            html.number(MINUTES).raw("\">").text(text).raw("</button> ");
        };
        button("off", "Off");
        match shown.now {
            Setting::Watchdog { .. } => {
                THRESHOLDS.iter().for_each(|ms| button(&ms.to_string(), &duration(Duration::from_millis(*ms))));
            }
            Setting::Rule(_) => {
                BUDGETS.iter().for_each(|times| button(&times.to_string(), &format!("{times} an hour")))
            }
        }
        if shown.changed.is_some() {
            button("normal", "As before");
        }
        html.raw("</form></td></tr>\n");
    }
    html.raw("</tbody></table></div>\n<p class=\"dim\">A change lasts for ").number(MINUTES);
    html.raw(" minutes, and is logged with the name of whoever made it.</p>\n");
}

fn setting(html: &mut Html, setting: Setting) {
    match setting {
        Setting::Watchdog { enabled, threshold } => {
            html.raw(if enabled { "on" } else { "<span class=\"state bad\">off</span>" }).raw(", threshold ");
            if threshold.as_secs() > 365 * 86_400 {
                html.raw("never")
            } else {
                html.text(&duration(threshold))
            };
        }
        Setting::Rule(0) => _ = html.raw("<span class=\"state bad\">off</span>"),
        Setting::Rule(times) => _ = html.raw("at most ").number(times).raw(" an hour"),
    }
}
