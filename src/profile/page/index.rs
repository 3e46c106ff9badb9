//! The page that lists profiles.

use super::context::Context;
use super::words;
use crate::profile::Outcome;
use crate::profile::store::Summary;
use crate::text::html::Html;
use crate::text::time::to_the_second;

/// Returns the page of stored profiles, newest first as given, searched for `query`.
pub(crate) fn index(profiles: &[Summary], query: &str, context: &Context<'_>) -> String {
    let mut html = Html::page("Profiles", context);
    html.raw("<main><h1>Profiles</h1>\n<p class=\"dim\">For another, append <code>?").text(context.flag);
    html.raw("</code> to a URL.</p>\n");
    html.raw("<form class=\"search\" role=\"search\" method=\"get\">");
    // A form's fields replace the query, so the query's own parameters have to be among them.
    html.raw("<input type=\"hidden\" name=\"").text(context.flag).raw("\" value=\"index\">");
    html.raw("<input type=\"search\" name=\"q\" aria-label=\"Search by URL\" placeholder=\"Search by URL\" value=\"");
    html.text(query).raw("\"><button>Search</button></form>\n");
    if profiles.is_empty() {
        html.raw("<p>").raw(if query.is_empty() { "There are none yet." } else { "No URL matches." }).raw("</p>\n");
    } else {
        table(&mut html, profiles, context);
    }
    html.raw("</main>\n");
    html.finish_page()
}

fn table(html: &mut Html, profiles: &[Summary], context: &Context<'_>) {
    html.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Profiles\"><table class=\"list\">\n<thead><tr>");
    html.raw("<th scope=\"col\">Request</th><th scope=\"col\" class=\"n\">Time</th><th scope=\"col\">Ended</th>");
    html.raw("<th scope=\"col\">Started</th></tr></thead>\n<tbody>\n");
    for profile in profiles {
        html.raw("<tr><td class=\"wide\"><a href=\"").text(&context.link(&profile.id.to_string())).raw("\">");
        html.isolated(&words::work(&profile.method, &profile.uri)).raw("</a>");
        if let Some(route) = profile.route.as_ref().filter(|route| **route != profile.uri) {
            html.raw("<span class=\"at\">").isolated(route).raw("</span>");
        }
        if let Some(reason) = &profile.reason {
            html.raw("<span class=\"at\">").isolated(reason).raw("</span>");
        }
        html.raw("</td><td class=\"n\">").text(&words::nanos(profile.wall_nanos));
        if profile.runs > 1 {
            html.raw("<span class=\"at\">").number(profile.runs).raw(" runs</span>");
        }
        html.raw("</td><td class=\"when\">");
        ended(html, profile);
        html.raw("</td><td class=\"when\">").text(&to_the_second(profile.started_at));
        if let Some(instance) = &profile.instance {
            html.raw("<span class=\"at\">").isolated(instance).raw("</span>");
        }
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

/// Writes its outcome, unless it finished, and its status, if there is one.
pub(super) fn ended(html: &mut Html, profile: &Summary) {
    if profile.outcome != Outcome::Finished {
        html.raw("<b class=\"more\">").text(words::outcome(&profile.outcome)).raw("</b> ");
    }
    if let Some(status) = profile.status {
        html.number(status);
    }
}
