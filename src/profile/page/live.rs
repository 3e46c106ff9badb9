//! The page of a profile that isn't done yet.

use std::time::Duration;

use super::context::Context;
use super::result::top;
use super::words;
use crate::profile::store::{Phase, Status};
use crate::text::html::Html;
use crate::text::time::to_the_second;
use crate::text::units::duration;

const SCRIPT: &str = include_str!("live.js");

/// Shows how far a profile is. With a script the page stays and shows news. Without one, it is loaded again every 2
/// seconds. The same URL is the profile's page when it is done.
pub(crate) fn live(status: &Status, context: &Context<'_>) -> String {
    let over = status.phase.is_over() && status.phase != Phase::Done;
    let work = words::work(&status.method, &status.uri);
    let title = format!("{}: {work}", state(&status.phase));
    let mut html = if over { Html::page(&title, context) } else { Html::asking_page(&title, context) };
    top(&mut html, context, false);
    html.raw("<main><h1>").isolated(&work).raw("</h1>\n<p class=\"dim\">Asked for at ");
    html.text(&to_the_second(status.started_at)).raw("</p>\n<p class=\"state\"><span id=\"state\" role=\"status\">");
    html.text(&state(&status.phase)).raw("</span> <span id=\"elapsed\">");
    if !status.phase.is_waiting() {
        html.text(&duration(Duration::from_millis(status.elapsed_ms)));
    }
    html.raw("</span></p>\n");
    if let Phase::Failed(why) = &status.phase {
        html.raw("<p class=\"end\">").isolated(why).raw("</p>\n");
    }
    html.raw("<dl class=\"facts\">");
    for (id, name, value) in [
        ("place", "now at", status.place.clone().unwrap_or_else(|| "not known yet".to_owned())),
        ("polls", "polls", words::grouped(status.polls)),
        ("samples", "samples", words::grouped(status.samples)),
    ] {
        html.raw("<dt>").raw(name).raw("</dt><dd class=\"code\" id=\"").raw(id).raw("\"><bdi>").text(&value);
        html.raw("</bdi></dd>");
    }
    html.raw("</dl>\n");
    if !over {
        html.raw("<form method=\"post\" action=\"").text(&context.link(&format!("{}.cancel", status.id)));
        html.raw("\"><button class=\"stop\">Cancel the request</button></form>\n");
        html.raw("<p class=\"dim\" id=\"trouble\" role=\"alert\"></p>\n");
        html.raw("<div id=\"job\" data-status=\"")
            .text(&context.link(&format!("{}.status", status.id)))
            .raw("\"></div>");
        html.script(SCRIPT, context.nonce);
    } else {
        html.raw("<p>").link(context, "", "Profile this URL again").raw(", or see <a href=\"");
        html.text(&context.plain()).raw("\">it without a profile</a>.</p>\n");
    }
    html.raw("</main>\n");
    html.finish_page()
}

/// Says what it does, in words. The script has the same words.
fn state(phase: &Phase) -> String {
    match phase {
        Phase::Queued { place: 0 } => "Next in the queue".to_owned(),
        Phase::Queued { place } => format!("In the queue, {} before it", words::count(*place as u64, "profile")),
        #[cfg(heeler_remote)]
        Phase::Sent { again: false } => "Waiting for a worker".to_owned(),
        #[cfg(heeler_remote)]
        Phase::Sent { again: true } => "Its worker is gone, waiting for another one".to_owned(),
        Phase::Running => "Running".to_owned(),
        Phase::Done => "Done".to_owned(),
        Phase::Failed(_) => "There is no profile".to_owned(),
        Phase::Cancelled => "Cancelled".to_owned(),
        Phase::Lost => "Lost: the process that ran it is gone".to_owned(),
    }
}
