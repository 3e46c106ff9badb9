//! The page of a finished profile.

use super::context::{Context, nonce};
use super::index::ended;
use super::picture::{Which, bare_svg, whole};
use super::shares::shares;
use super::{tables, words};
use crate::profile::form::Form;
use crate::profile::store::Summary;
use crate::profile::{Profile, Response, State};
use crate::report::Frame;
use crate::text::html::Html;
use crate::text::time::to_the_second;

/// Tabs with pictures: name, id of the tab, id of its panel.
const PICTURES: [(Which, &str, &str); 5] = [
    (Which::All, "Flamegraph", "all"),
    (Which::OnCpu, "On CPU", "cpu"),
    (Which::Waiting, "Waiting", "wait"),
    (Which::Chart, "Over time", "chart"),
    (Which::Beside, "Spawned work", "beside"),
];

/// Returns the page of a profile as a file, which needs nothing else and has no links.
pub(crate) fn html(profile: &Profile) -> String {
    // Without randomness there is no script, and the pictures do not move.
    let nonce = nonce().unwrap_or_default();
    result(profile, &[], &Context::file(&nonce))
}

/// Returns the page of a profile. `earlier`: other profiles of the same route, the newest first.
pub(crate) fn result(profile: &Profile, earlier: &[Summary], context: &Context<'_>) -> String {
    let work = words::work(&profile.request.method, &profile.request.uri);
    let title = format!("{}: {work}", words::nanos(profile.wall_nanos));
    let mut html = Html::page(&title, context);
    // Another request may have started this, by a header.
    let is_this = matches!(profile.request.method.as_str(), "GET" | "HEAD") && profile.request.uri == context.base;
    top(&mut html, context, is_this);
    html.raw("<main><h1>").isolated(&work).raw("</h1>\n<p class=\"dim\">");
    html.text(&to_the_second(profile.started_at)).raw(" on ").isolated(&profile.process.hostname);
    if let Some(response) = &profile.response {
        html.raw(", answered ").number(response.status);
        // A rule's profile knows nothing of the body.
        if profile.reason.is_none() {
            html.raw(", ").text(&words::bytes(response.body_bytes));
        }
    }
    html.raw("</p>\n");
    if let Some(reason) = &profile.reason {
        html.raw("<p>Why there is this profile: ").isolated(reason).raw(".</p>\n");
    }
    lead(&mut html, profile);
    shares(&mut html, words::sums(profile));
    tabs(&mut html, profile, earlier, context);
    html.raw("</main>\n");
    html.finish_page()
}

/// Writes the links to other pages. `again`: it makes sense to repeat the same request.
pub(super) fn top(html: &mut Html, context: &Context<'_>, again: bool) {
    if context.links {
        html.raw("<nav class=\"top\">").link(context, "index", "All profiles");
        if again {
            html.link(context, "", "Profile this URL again");
        }
        html.raw("</nav>\n");
    }
}

/// Says where the time went, in two sentences.
fn lead(html: &mut Html, profile: &Profile) {
    if let Some((what, why)) = words::bad_end(&profile.outcome) {
        html.raw("<p class=\"end\" role=\"alert\"><strong>").text(what).raw("</strong> ").isolated(&why).raw("</p>\n");
    }
    html.raw("<p class=\"lead\"><b>").text(&words::nanos(profile.wall_nanos)).raw("</b>");
    if profile.runs > 1 {
        let each = words::nanos(words::each(profile.wall_nanos, profile.runs));
        html.raw(" in ").number(profile.runs).raw(" runs, ").text(&each).raw(" each");
    }
    let sums = words::sums(profile);
    let mut parts: Vec<_> = words::STATES.into_iter().zip(words::per_mille(sums)).zip(sums).collect();
    parts.retain(|(_, nanos)| *nanos > 0);
    parts.sort_by_key(|(_, nanos)| std::cmp::Reverse(*nanos));
    for (at, ((state, per_mille), _)) in parts.iter().enumerate() {
        html.raw(if at == 0 { ": " } else { ", " });
        html.text(&words::percent(*per_mille)).raw(" ").raw(words::in_list(*state));
    }
    html.raw(".");
    if let Some(place) = words::places(profile).first() {
        html.raw(" The most at one place: <b>").text(&words::nanos(place.nanos)).raw("</b> (");
        html.text(&words::share(place.nanos, profile.wall_nanos)).raw(") ").text(words::state(place.state));
        html.raw(" in ");
        function(html, place.frame, place.state);
        if place.count > 0 {
            html.raw(", ").text(&words::count(place.count, words::unit(place.state)));
        }
        html.raw(".");
    }
    html.raw("</p>\n");
}

/// Writes a function and its place, in a sentence.
pub(super) fn function(html: &mut Html, frame: &Frame, state: State) {
    let (function, at) = words::function_and_place(frame, Some(state));
    html.raw("<code>").isolated(&function).raw("</code>");
    if let Some(at) = at {
        html.raw(" at <code>").isolated(&at).raw("</code>");
    }
}

fn tabs(html: &mut Html, profile: &Profile, earlier: &[Summary], context: &Context<'_>) {
    html.raw("<fieldset class=\"tabs\"><legend>What to see</legend>\n");
    let pictures = PICTURES.into_iter().filter(|(which, ..)| *which == Which::All || whole(profile, *which) > 0);
    let pictures: Vec<_> = pictures.collect();
    for (which, name, id) in &pictures {
        tab(html, id, name, *which == Which::All);
    }
    tab(html, "table", "Functions", false);
    tab(html, "request", "Request and response", false);
    if profile.meanwhile.is_some() {
        tab(html, "process", "Rest of the process", false);
    }
    if context.links {
        tab(html, "compare", "Compare", false);
        tab(html, "files", "Downloads", false);
    }
    for (which, name, id) in &pictures {
        panel(html, id);
        picture(html, profile, *which, name, context);
        html.raw("</div>\n");
    }
    panel(html, "table");
    tables::tables(html, profile);
    html.raw("</div>\n");
    panel(html, "request");
    request(html, profile, context);
    html.raw("</div>\n");
    if let Some(meanwhile) = &profile.meanwhile {
        panel(html, "process");
        super::process_profile::meanwhile(html, meanwhile);
        html.raw("</div>\n");
    }
    if context.links {
        panel(html, "compare");
        others(html, profile, earlier, context);
        html.raw("</div>\n");
        panel(html, "files");
        files(html, profile, context);
        html.raw("</div>\n");
    }
    html.raw("</fieldset>\n");
    under(html, profile);
}

/// Writes a tab. `id` and `name` are words of this program.
pub(super) fn tab(html: &mut Html, id: &str, name: &str, first: bool) {
    html.raw("<input type=\"radio\" name=\"tab\" id=\"t-").text(id);
    html.raw(if first { "\" checked>" } else { "\">" })
        .raw("<label for=\"t-")
        .text(id)
        .raw("\">")
        .text(name)
        .raw("</label>\n");
}

pub(super) fn panel(html: &mut Html, id: &str) {
    html.raw("<div class=\"panel\" id=\"p-").text(id).raw("\">\n");
}

fn picture(html: &mut Html, profile: &Profile, which: Which, name: &str, context: &Context<'_>) {
    html.raw("<label class=\"switch\"><input type=\"checkbox\"> Show library frames: those of the runtime and of dependencies</label>\n");
    html.picture(&bare_svg(profile, which, false), "folded", name, context);
    html.picture(&bare_svg(profile, which, true), "full", name, context);
}

/// Writes how far this can be trusted.
fn under(html: &mut Html, profile: &Profile) {
    html.raw("<div class=\"under\">");
    for line in words::quality(profile) {
        html.raw("<p>").text(&line).raw("</p>");
    }
    if !profile.notes.is_empty() {
        html.raw("<ul class=\"notes\">");
        for note in &profile.notes {
            html.raw("<li>").isolated(note).raw("</li>");
        }
        html.raw("</ul>");
    }
    html.raw("</div>\n");
}

fn request(html: &mut Html, profile: &Profile, context: &Context<'_>) {
    let request = &profile.request;
    html.raw("<h2>Request</h2><dl class=\"facts\">");
    let line = format!("{} {} {}", request.method, request.uri, request.version);
    fact(html, "line", &line);
    if let Some(route) = &request.route {
        fact(html, "route", route);
    }
    if let (Some(trace), Some(span)) = (&request.trace_id, &request.span_id) {
        fact(html, "trace", &format!("{trace}, span {span}"));
    }
    fact(html, "body", &words::bytes(request.body_bytes));
    headers(html, &request.headers);
    html.raw("</dl>\n<h2>Response</h2>");
    match &profile.response {
        Some(response) => answer(html, response, &profile.id, context),
        None => {
            html.raw("<p>There was none.</p>\n");
        }
    }
    html.raw("<h2>Process</h2><dl class=\"facts\">");
    let process = &profile.process;
    let service = [process.service.as_deref(), process.version.as_deref()];
    let service = service.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let pid = process.pid.to_string();
    let build = process.build_id.clone().unwrap_or_default();
    for (name, value) in [
        ("service", &service),
        ("host", &process.hostname),
        ("executable", &process.executable),
        ("build id", &build),
        ("process id", &pid),
    ] {
        if !value.is_empty() {
            fact(html, name, value);
        }
    }
    html.raw("</dl>\n");
}

fn answer(html: &mut Html, response: &Response, id: &str, context: &Context<'_>) {
    html.raw("<dl class=\"facts\">");
    fact(html, "status", &response.status.to_string());
    fact(html, "version", &response.version);
    let kept = response.body.len() as u64;
    let mut body = words::bytes(response.body_bytes);
    if kept < response.body_bytes {
        body = format!("{body}, the first {} kept", words::bytes(kept));
    }
    fact(html, "body", &body);
    headers(html, &response.headers);
    html.raw("</dl>\n");
    if context.links && kept > 0 {
        html.raw("<p>").link(context, &format!("{id}.response"), "See the body").raw(", as text.</p>\n");
    }
}

fn headers(html: &mut Html, headers: &[(String, String)]) {
    for (name, value) in headers {
        fact(html, name, value);
    }
}

pub(super) fn fact(html: &mut Html, name: &str, value: &str) {
    html.raw("<dt>").isolated(name).raw("</dt><dd class=\"code\">").isolated(value).raw("</dd>");
}

/// Writes earlier profiles of the same route, each with a link to the comparison.
fn others(html: &mut Html, profile: &Profile, earlier: &[Summary], context: &Context<'_>) {
    if earlier.is_empty() {
        html.raw("<p>There is no earlier profile of the same route.</p>\n");
        return;
    }
    html.raw("<p>Earlier profiles of the same route, and what has changed since:</p>\n<div class=\"scroll\"><table>\n<thead><tr>");
    html.raw("<th scope=\"col\">Compare with</th><th scope=\"col\" class=\"n\">Time</th>");
    html.raw("<th scope=\"col\" class=\"n\">Since</th><th scope=\"col\">Ended</th><th scope=\"col\">Request</th></tr></thead>\n<tbody>\n");
    let now = words::each(profile.wall_nanos, profile.runs);
    for other in earlier {
        let then = words::each(other.wall_nanos, other.runs);
        html.raw("<tr><td>").link(
            context,
            &format!("{}.vs.{}", other.id, profile.id),
            &to_the_second(other.started_at),
        );
        html.raw("</td><td class=\"n\">").text(&words::nanos(then)).raw("</td><td class=\"n\"><b class=\"");
        html.raw(if now > then { "more" } else { "less" })
            .raw("\">")
            .text(&words::difference(then, now))
            .raw("</b></td><td>");
        ended(html, other);
        html.raw("</td><td class=\"wide\">").isolated(&words::work(&other.method, &other.uri)).raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

/// Returns what each form is for.
const fn purpose(form: Form) -> &'static str {
    match form {
        Form::Svg => "the flamegraph, for any browser",
        Form::Html => "this page as one file",
        Form::Pprof => "for go tool pprof and Pyroscope",
        Form::Folded => "one line a stack, for inferno and flamegraph.pl",
        Form::Speedscope => "for speedscope.app",
        Form::Firefox => "for profiler.firefox.com",
        Form::Json => "all there is",
        Form::Dot => "the call graph, for Graphviz",
        Form::Pdf => "the call graph, to print",
    }
}

fn files(html: &mut Html, profile: &Profile, context: &Context<'_>) {
    html.raw("<ul class=\"files\">");
    for form in Form::ALL {
        html.raw("<li>").link(context, &format!("{}.{form}", profile.id), form.name());
        html.raw(" <span class=\"dim\">").raw(purpose(form)).raw("</span></li>\n");
    }
    html.raw("</ul>\n");
}
