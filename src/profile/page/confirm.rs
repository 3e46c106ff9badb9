//! The page that asks before a profile is started.

use super::context::Context;
use super::words;
use crate::profile::flag::Start;
use crate::profile::id::Id;
use crate::text::html::Html;

/// Returns the page that asks whether to profile a GET request for `uri`. The answer names the question by its `token`.
pub(crate) fn confirm(uri: &str, start: Start, token: Id, context: &Context<'_>) -> String {
    let runs = start.runs.unwrap_or(1);
    let mut html = Html::page("Profile this request?", context);
    html.raw("<main><h1>Profile this request?</h1>\n<p class=\"lead\"><code>").isolated(&words::work("GET", uri));
    html.raw("</code></p>\n<p>It runs <b>");
    match runs {
        1 => html.raw("once"),
        runs => html.number(runs).raw(" times"),
    };
    html.raw("</b>, with your permissions and without time limits");
    if start.inline {
        html.raw(", on the application's own runtime");
    }
    html.raw(". Whatever it changes, it changes each time.");
    if start.process {
        html.raw(" The rest of the process is profiled meanwhile.");
    }
    html.raw("</p>\n<form method=\"post\" action=\"").text(&context.link(&format!("{token}.confirm")));
    html.raw("\"><p><button class=\"go\">");
    match runs {
        1 => html.raw("Run and profile it"),
        runs => html.raw("Run it ").number(runs).raw(" times and profile it"),
    };
    html.raw("</button></p></form>\n<p class=\"dim\">If you did not mean to do this, a page or a message may have led you here: ");
    html.raw("nothing has run yet. This question can be answered once, within five minutes.</p>\n<p><a href=\"");
    html.text(&context.plain()).raw("\">This URL without a profile</a></p>\n</main>\n");
    html.finish_page()
}
