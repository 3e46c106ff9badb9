//! Tables of where the time went: by place, await point and function.

use super::words::{self, share};
use crate::profile::format::{Row, Times, tally};
use crate::profile::{Profile, State};
use crate::report::Frame;
use crate::text::html::Html;

/// How many rows a table has. The JSON form has all of them.
const MAX_ROWS: usize = 60;

/// Writes what the application did, which is all of the time. Then come await points and functions, whose times
/// overlap.
pub(super) fn tables(html: &mut Html, profile: &Profile) {
    let tally = tally(profile, false);
    let whole = tally.whole.sum();
    places(html, profile, whole);
    if !tally.awaits.is_empty() {
        table(html, profile, "Await points", "waits", &tally.awaits, whole);
    }
    table(html, profile, "Functions", "samples and waits", &tally.functions, whole);
}

/// Writes the time by the application's innermost function, whatever that called.
fn places(html: &mut Html, profile: &Profile, whole: u64) {
    let places = words::places(profile);
    start(html, "The application's functions, with what they call in libraries");
    html.raw("<thead><tr><th scope=\"col\" class=\"n\">Time</th><th scope=\"col\" class=\"n\">Count</th>");
    html.raw("<th scope=\"col\" class=\"n\"></th><th scope=\"col\">Where</th></tr></thead>\n<tbody>\n");
    for place in places.iter().take(MAX_ROWS) {
        html.raw("<tr>");
        time(html, place.nanos, whole);
        html.raw("<td class=\"n\">").text(&words::grouped(place.count)).raw("</td><td class=\"n\">");
        gauge(html, place.state, place.nanos, whole);
        html.raw("</td><td class=\"wide own\">").text(words::state(place.state)).raw(" in ");
        self::place(html, place.frame, Some(place.state));
        html.raw("</td></tr>\n");
    }
    end(html, places.len());
}

fn start(html: &mut Html, caption: &'static str) {
    html.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"")
        .raw(caption)
        .raw("\"><table><caption>");
    html.raw(caption).raw("</caption>\n");
}

fn end(html: &mut Html, rows: usize) {
    html.raw("</tbody></table></div>\n");
    if rows > MAX_ROWS {
        let more = words::grouped((rows - MAX_ROWS) as u64);
        html.raw("<p class=\"dim\">").text(&more).raw(" more are in the downloads.</p>\n");
    }
}

/// Writes a bar, as long as its part of the whole.
fn gauge(html: &mut Html, state: State, nanos: u64, whole: u64) {
    let width = nanos as f64 / whole.max(1) as f64 * 1000.0;
    html.raw(
        "<svg class=\"gauge\" viewBox=\"0 0 1000 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"",
    );
    html.number(format_args!("{width:.1}")).raw("\" height=\"1\" class=\"").raw(words::class(state)).raw("\"/></svg>");
}

fn table(html: &mut Html, profile: &Profile, caption: &'static str, unit: &'static str, rows: &[Row], whole: u64) {
    let beside = rows.iter().any(|row| row.beside > 0);
    start(html, caption);
    html.raw("<thead><tr><th scope=\"col\" class=\"n\">Self</th><th scope=\"col\" class=\"n\">Total</th>");
    html.raw("<th scope=\"col\" class=\"n\" title=\"").raw(unit).raw("\">Count</th>");
    if beside {
        html.raw("<th scope=\"col\" class=\"n\">Beside</th>");
    }
    html.raw("<th scope=\"col\">Where</th></tr></thead>\n<tbody>\n");
    for row in rows.iter().take(MAX_ROWS) {
        html.raw("<tr>");
        time(html, row.own.sum(), whole);
        time(html, row.total.sum(), whole);
        html.raw("<td class=\"n\">").text(&words::grouped(row.count)).raw("</td>");
        if beside {
            html.raw("<td class=\"n\">").text(&if row.beside > 0 { words::nanos(row.beside) } else { String::new() });
            html.raw("</td>");
        }
        let frame = profile.frames.get(row.frame as usize);
        html.raw(if frame.is_some_and(|frame| frame.own) { "<td class=\"wide own\">" } else { "<td class=\"wide\">" });
        key(html, &row.total);
        if let Some(frame) = frame {
            place(html, frame, None);
        }
        html.raw("</td></tr>\n");
    }
    end(html, rows.len());
}

fn time(html: &mut Html, nanos: u64, whole: u64) {
    html.raw("<td class=\"n\">");
    if nanos > 0 {
        html.text(&words::nanos(nanos)).raw("<span class=\"at\">").text(&share(nanos, whole)).raw("</span>");
    }
    html.raw("</td>");
}

/// Writes the colour of its most common state.
fn key(html: &mut Html, times: &Times) {
    if times.sum() > 0 {
        let state = times.mostly();
        html.raw("<svg class=\"key\" role=\"img\" aria-label=\"").raw(words::state(state)).raw("\"><title>");
        html.raw(words::state(state)).raw("</title><rect width=\"14\" height=\"14\" class=\"").raw(words::class(state));
        html.raw("\"/></svg>");
    }
}

/// Writes a function and its place, in a table.
pub(super) fn place(html: &mut Html, frame: &Frame, state: Option<State>) {
    let (function, at) = words::function_and_place(frame, state);
    html.raw("<code>").isolated(&function).raw("</code>");
    if let Some(at) = at {
        html.raw("<span class=\"at code\">").isolated(&at).raw("</span>");
    }
}
