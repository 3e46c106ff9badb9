//! Parts of the pages: places, resources, threads.

use super::table::class;
use crate::report::render::{Line, lines};
use crate::report::{Dump, DumpPath, DumpResource, DumpWork, Stack, StackKind};
use crate::text::html::Html;
use crate::text::units::{count, duration};

/// How many places are shown, ways to each, and stacks of each way.
const MAX_PLACES: usize = 64;
const MAX_PATHS: usize = 6;
const MAX_STACKS: usize = 6;
/// How many resources, and holders and waiters of each.
const MAX_RESOURCES: usize = 64;
const MAX_CLAIMS: usize = 8;

/// Writes the work by place, each with its stack.
pub(super) fn places(html: &mut Html, dump: &Dump) {
    deadlocks(html, dump);
    for (number, group) in dump.groups.iter().take(MAX_PLACES).enumerate() {
        html.raw("<details").raw(if number < 3 { " open" } else { "" }).raw("><summary><b>").number(group.count);
        html.raw("</b> <span class=\"state ")
            .raw(class(group.state))
            .raw("\">")
            .raw(group.state.as_str())
            .raw("</span>");
        if let Some(awaiting) = &group.awaiting {
            html.raw(" for ").text(awaiting);
        }
        if let Some(location) = &group.location {
            html.raw(" in <span class=\"code\">").isolated(&crate::report::place_text(location)).raw("</span>");
        }
        html.raw(" <span class=\"dim\">the oldest for ")
            .text(&duration(group.oldest))
            .raw("</span></summary>\n<p class=\"dim\">");
        for (number, (route, many)) in group.routes.iter().enumerate() {
            html.raw(if number > 0 { ", " } else { "" });
            if *many > 1 {
                html.number(many).raw(" × ");
            }
            html.isolated(route);
        }
        html.raw("</p>\n");
        for path in group.paths.iter().take(MAX_PATHS) {
            if group.paths.len() > 1 {
                html.raw("<p class=\"dim\">").number(path.count).raw(" came this way:</p>\n");
            }
            stacks(html, Some(path));
        }
        if group.paths.is_empty() {
            stacks(html, None);
        }
        if let Some(more) = group.paths.len().checked_sub(MAX_PATHS).filter(|more| *more > 0) {
            html.raw("<p class=\"dim\">… ").number(more).raw(" more ways, in the JSON form</p>\n");
        }
        html.raw("</details>\n");
    }
    if let Some(more) = dump.groups.len().checked_sub(MAX_PLACES).filter(|more| *more > 0) {
        html.raw("<p class=\"dim\">… ").number(more).raw(" more, in the JSON form</p>\n");
    }
}

/// Writes the stacks of work that came that way.
pub(super) fn stacks(html: &mut Html, path: Option<&DumpPath>) {
    let branches = path.map(DumpPath::branches).unwrap_or_default();
    for (stack, more) in branches.iter().take(MAX_STACKS) {
        stack_of(html, stack);
        if *more > 0 {
            html.raw("<p class=\"dim\">and ").text(&count(*more, "more wait")).raw(" through the same lines</p>\n");
        }
    }
    if let Some(more) = branches.len().checked_sub(MAX_STACKS).filter(|more| *more > 0) {
        html.raw("<p class=\"dim\">… ").number(more).raw(" more branches, in the JSON form</p>\n");
    }
    if branches.is_empty() {
        html.raw("<p class=\"dim\">No stack: it was not observed where it is.</p>\n");
    }
}

fn stack_of(html: &mut Html, stack: &Stack) {
    html.raw("<ol class=\"stack code\">");
    for line in lines(stack) {
        match line {
            Line::Remark(text) => {
                html.raw("<li class=\"dim\">").text(&text).raw("</li>");
            }
            Line::Frame { own, name, place, source } => {
                html.raw(if own { "<li class=\"own\"><b>" } else { "<li>" }).isolated(&name);
                html.raw(if own { "</b>" } else { "" });
                if let Some(place) = place {
                    html.raw(" <span class=\"dim\">").isolated(&place).raw("</span>");
                }
                if let Some(source) = source {
                    html.raw("<span class=\"source\">").text(&source).raw("</span>");
                }
                html.raw("</li>");
            }
        }
    }
    html.raw("</ol>\n");
}

/// Writes what is in a deadlock.
pub(super) fn deadlocks(html: &mut Html, dump: &Dump) {
    for ring in &dump.deadlocks {
        html.raw("<div class=\"end\"><strong>Deadlock.</strong> None of these can make progress:<ul>");
        for work in ring.iter().filter_map(|id| dump.work.iter().find(|work| work.id == *id)) {
            html.raw("<li><a href=\"?work=").text(&work.id).raw("\">").isolated(&work.name).raw("</a>");
            for (verb, names) in [(" holds ", &work.holds), (" waits for ", &work.awaits)] {
                for name in names {
                    html.raw(verb).raw("<b>").isolated(name).raw("</b>");
                }
            }
            html.raw("</li>");
        }
        html.raw("</ul></div>\n");
    }
}

/// Writes who holds and who waits for what.
pub(super) fn resources(html: &mut Html, dump: &Dump) {
    if dump.resources.is_empty() {
        html.raw("<p>Nothing that has a name is held or awaited. ");
        html.raw("<code>heeler::acquire(\"invoice pool\", pool.acquire())</code> gives it one.</p>\n");
        return;
    }
    html.raw("<div class=\"scroll\"><table><thead><tr><th>Resource<th>Held by<th>Awaited by</tr></thead><tbody>\n");
    for resource in dump.resources.iter().take(MAX_RESOURCES) {
        html.raw("<tr><td><b>").isolated(&resource.name).raw("</b>");
        if let Some(usage) = resource.usage {
            html.raw("<span class=\"at\">").number(usage.in_use).raw(" of ").number(usage.size).raw(" in use</span>");
        }
        if resource.deadlock {
            html.raw(" <span class=\"state bad\">in a deadlock</span>");
        }
        html.raw("</td>");
        claims(html, resource, true);
        claims(html, resource, false);
        html.raw("</tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

fn claims(html: &mut Html, resource: &DumpResource, holders: bool) {
    let (claims, more) = match holders {
        true => (&resource.holders, resource.more_holders),
        false => (&resource.waiters, resource.more_waiters),
    };
    html.raw("<td>");
    for claim in claims.iter().take(MAX_CLAIMS) {
        html.raw("<div>");
        match &claim.id {
            Some(id) => html.raw("<a href=\"?work=").text(id).raw("\">").isolated(&claim.work).raw("</a>"),
            None => html.isolated(&claim.work),
        };
        html.raw(" <span class=\"dim\">for ").text(&duration(claim.time)).raw(", at ");
        html.isolated(&crate::report::place_text(&claim.at)).raw("</span></div>");
    }
    let more = more + claims.len().saturating_sub(MAX_CLAIMS) as u64;
    if more > 0 {
        html.raw("<div class=\"dim\">and ").number(more).raw(" more</div>");
    }
    html.raw("</td>");
}

/// Writes the threads of the process by stack.
pub(super) fn threads(html: &mut Html, dump: &Dump) {
    for group in &dump.threads.groups {
        html.raw("<details open><summary><b>").number(group.threads.len()).raw("</b> ").text(&group.heading());
        html.raw("</summary>\n");
        if let Some(note) = &group.note {
            html.raw("<p class=\"dim\">(").text(note).raw(")</p>\n");
        }
        if !group.frames.is_empty() {
            let frames = group.frames.clone();
            stack_of(html, &Stack { frames, truncated: group.truncated, ..Stack::empty(StackKind::Thread) });
        }
        html.raw("</details>\n");
    }
}

/// Writes what is known of one piece of work.
pub(super) fn facts(html: &mut Html, dump: &Dump, work: &DumpWork) {
    html.raw("<dl class=\"facts\">");
    let mut fact = |name: &'static str, value: Option<String>| {
        if let Some(value) = value {
            html.raw("<dt>").raw(name).raw("</dt><dd><bdi>").text(&value).raw("</bdi></dd>");
        }
    };
    fact("reports have the id", Some(work.id.clone()));
    fact("what", Some(work.kind.as_str().to_owned()));
    fact("route", work.route.clone());
    fact("running for", Some(duration(work.elapsed)));
    fact("threshold", work.threshold.map(duration));
    fact("time left", work.left.map(duration));
    fact("there for", work.there.map(duration));
    fact("polls", Some(work.polls.to_string()));
    for name in &work.holds {
        fact("holds", Some(name.clone()));
    }
    for name in &work.awaits {
        fact("waits for", Some(name.clone()));
    }
    let parent = work.parent.as_ref().and_then(|id| dump.work.iter().find(|other| other.id == *id));
    fact("belongs to", parent.map(|parent| parent.name.clone()));
    for child in dump.work.iter().filter(|child| child.parent.as_ref() == Some(&work.id)) {
        fact("its work", Some(dump.line(child)));
    }
    html.raw("</dl>\n");
}
