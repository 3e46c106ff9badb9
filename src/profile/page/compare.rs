//! Two profiles side by side: what takes longer, and what does not.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use inferno::flamegraph::color::Color;

use super::context::Context;
use super::picture::{BOXES_IN_PAGE, dark, or_apology};
use super::prune::{Painted, Pruner, narrowest, total};
use super::result::{function, panel, tab, top};
use super::shares::{bar, legend};
use super::steps::Steps;
use super::tables::place;
use super::tree::{Share, Tree, TreeNode, sums};
use super::words;
use crate::flamegraph::picture::Picture;
use crate::profile::format::state_name;
use crate::profile::{Profile, State};
use crate::report::Frame;
use crate::text::html::Html;
use crate::text::time::to_the_second;

/// How many rows the table has.
const MAX_ROWS: usize = 40;

/// The time that a place took in each of two profiles.
struct Change<'a> {
    state: State,
    frame: &'a Frame,
    before: u64,
    after: u64,
}

/// Returns the page that compares a profile with an earlier one. For profiles of many runs, the average of one run
/// counts.
pub(crate) fn compare(before: &Profile, after: &Profile, context: &Context<'_>) -> String {
    let work = words::work(&after.request.method, &after.request.uri);
    let mut html = Html::page(&format!("Compared: {work}"), context);
    top(&mut html, context, false);
    html.raw("<main><h1>").isolated(&work).raw("</h1>\n");
    let changes = changes(before, after);
    lead(&mut html, each(before, before.wall_nanos), each(after, after.wall_nanos), &changes);
    for (name, profile) in [("Before", before), ("After", after)] {
        side(&mut html, name, profile, each(before, before.wall_nanos).max(each(after, after.wall_nanos)), context);
    }
    legend(&mut html);
    html.raw("<fieldset class=\"tabs\"><legend>What to see</legend>\n");
    tab(&mut html, "all", "After, with what changed", true);
    tab(&mut html, "wait", "Before, with what changed", false);
    tab(&mut html, "table", "Places", false);
    for (id, (base, shown)) in [("all", (before, after)), ("wait", (after, before))] {
        panel(&mut html, id);
        let name = if id == "all" { "after" } else { "before" };
        html.raw("<p class=\"dim\">Widths show the time ").raw(name).raw(". ");
        html.raw(
            "<span class=\"more\">Red</span> took longer after, <span class=\"less\">blue</span> took less time.</p>\n",
        );
        html.raw("<label class=\"switch\"><input type=\"checkbox\"> Show library frames: those of the runtime and of dependencies</label>\n");
        for (class, library_frames) in [("folded", false), ("full", true)] {
            let svg = or_apology(&shown.id, || draw(base, shown, id == "wait", library_frames));
            html.picture(&svg, class, &format!("Flamegraph of the time {name}"), context);
        }
        html.raw("</div>\n");
    }
    panel(&mut html, "table");
    table(&mut html, &changes);
    html.raw("</div></fieldset>\n");
    if before.runs > 1 || after.runs > 1 {
        html.raw("<p class=\"under\">Times are averages of one run.</p>\n");
    }
    html.raw("</main>\n");
    html.finish_page()
}

/// Returns the share of one run in the nanoseconds of all runs.
fn each(profile: &Profile, nanos: u64) -> u64 {
    words::each(nanos, profile.runs)
}

fn changes<'a>(before: &'a Profile, after: &'a Profile) -> Vec<Change<'a>> {
    let mut changes: Vec<Change<'_>> = Vec::new();
    let mut known: HashMap<(State, &Option<String>, &Option<String>), usize> = HashMap::new();
    let places = words::places(after).into_iter().map(|place| (place, true));
    for (place, is_after) in places.chain(words::places(before).into_iter().map(|place| (place, false))) {
        let (state, frame) = (place.state, place.frame);
        let at = *known.entry((state, &frame.function, &frame.file)).or_insert(changes.len());
        if at == changes.len() {
            changes.push(Change { state, frame, before: 0, after: 0 });
        }
        match is_after {
            true => changes[at].after = changes[at].after.saturating_add(each(after, place.nanos)),
            false => changes[at].before = changes[at].before.saturating_add(each(before, place.nanos)),
        }
    }
    changes.sort_by_key(|change| Reverse(change.after.abs_diff(change.before)));
    changes
}

fn lead(html: &mut Html, before: u64, after: u64, changes: &[Change<'_>]) {
    let change = words::nanos(after.abs_diff(before));
    html.raw("<p class=\"lead\"><b>").text(&match after.cmp(&before) {
        Ordering::Greater => format!("{change} slower"),
        Ordering::Equal => "As long as before".to_owned(),
        Ordering::Less => format!("{change} faster"),
    });
    html.raw("</b>: ");
    html.text(&words::nanos(before)).raw(" before, ").text(&words::nanos(after)).raw(" after");
    if before > 0 {
        let percent = (after as f64 / before as f64 - 1.0) * 100.0;
        html.text(&format!(" ({percent:+.1} %)"));
    }
    html.raw(".");
    if let Some(Change { state, frame, before, after }) = changes.first()
        && before != after
    {
        html.raw(" The most: <b>")
            .text(&words::difference(*before, *after))
            .raw("</b> ")
            .text(words::state(*state))
            .raw(" in ");
        function(html, frame, *state);
        html.raw(".");
    }
    html.raw("</p>\n");
}

/// Writes one of the two: when it was, how it ended, and its bar, which is as long as its part of the longer one's
/// time.
fn side(html: &mut Html, name: &'static str, profile: &Profile, longer: u64, context: &Context<'_>) {
    html.raw("<p><b>").raw(name).raw("</b>: ");
    let when = to_the_second(profile.started_at);
    if context.links {
        html.link(context, &profile.id, &when);
    } else {
        html.text(&when);
    }
    html.raw(", ")
        .text(&words::nanos(each(profile, profile.wall_nanos)))
        .raw(", ")
        .text(words::outcome(&profile.outcome));
    if let Some(response) = &profile.response {
        html.raw(", ").number(response.status);
    }
    html.raw(", ").isolated(&words::work(&profile.request.method, &profile.request.uri)).raw("</p>\n");
    bar(html, words::sums(profile).map(|nanos| each(profile, nanos)), longer);
}

fn table(html: &mut Html, changes: &[Change<'_>]) {
    html.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Places\"><table>\n<thead><tr>");
    html.raw("<th scope=\"col\" class=\"n\">Change</th><th scope=\"col\" class=\"n\">Before</th>");
    html.raw("<th scope=\"col\" class=\"n\">After</th><th scope=\"col\">Where</th></tr></thead>\n<tbody>\n");
    for change in changes.iter().take(MAX_ROWS) {
        html.raw("<tr><td class=\"n\"><b class=\"").raw(if change.after > change.before { "more" } else { "less" });
        html.raw("\">").text(&words::difference(change.before, change.after)).raw("</b></td><td class=\"n\">");
        html.text(&words::nanos(change.before)).raw("</td><td class=\"n\">").text(&words::nanos(change.after));
        html.raw(
            "</td><td class=\"wide\"><svg class=\"key\" aria-hidden=\"true\"><rect width=\"14\" height=\"14\" class=\"",
        );
        html.raw(words::class(change.state)).raw("\"/></svg>").raw(words::state(change.state)).raw(" in ");
        place(html, change.frame, Some(change.state));
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

/// Draws a picture of `shown`, coloured by how it differs from `base`. `earlier`: `shown` is the earlier one.
fn draw(base: &Profile, shown: &Profile, earlier: bool, library_frames: bool) -> Option<String> {
    let (tree, mut steps) = both(base, shown, library_frames);
    let whole = total(tree.roots.iter().map(|&at| tree.tree_nodes[at as usize].nanos));
    // A root is the sum of all changes. Including it would leave no colour to the others.
    let most = tree.tree_nodes.iter().map(|tree_node| tree_node.nanos.abs_diff(tree_node.other)).max().unwrap_or(0);
    let narrower = steps.foreign("…");
    let paint = |tree_node: &TreeNode, _| {
        let (before, after) =
            if earlier { (tree_node.nanos, tree_node.other) } else { (tree_node.other, tree_node.nanos) };
        let (was, is) = (words::nanos(before), words::nanos(after));
        Painted {
            label: steps.get(tree_node.step).label.clone(),
            figures: format!("{}: {was} before, {is} after", words::difference(before, after)),
            color: color(before, after, most),
        }
    };
    let tiles = Pruner { tree: &tree, min: narrowest(&tree, whole, BOXES_IN_PAGE), narrower, paint }.tiles();
    let picture =
        Picture { title: String::new(), subtitle: None, whole: format!("all: {}", words::nanos(whole)), tiles: &tiles };
    picture.paint().map(|svg| dark(&svg))
}

/// Returns the stacks of both profiles, with the time of one run.
fn both(base: &Profile, shown: &Profile, library_frames: bool) -> (Tree, Steps) {
    let mut steps = Steps::without_lines(library_frames);
    let mut tree = Tree::default();
    for (profile, is_shown) in [(shown, true), (base, false)] {
        steps.next_profile();
        for (stack, share) in sums(&profile.slices) {
            let nanos = each(profile, share.nanos);
            let share = if is_shown { Share { nanos, ..share } } else { Share { nanos: 0, other: nanos, ..share } };
            let root = steps.said(state_name(share.state));
            let path = steps.path(profile, stack, share.state);
            tree.add([root].into_iter().chain(path.iter().copied()), &share);
        }
    }
    tree.sort();
    (tree, steps)
}

/// Returns a colour as inferno does for differences: from white to red for more, to blue for less.
fn color(before: u64, after: u64, most: u64) -> Color {
    let change = after.abs_diff(before) as f64 / most.max(1) as f64;
    // At most 150. Small changes stay visible.
    let less = 250 - (change.sqrt() * 150.0).round() as u8;
    match after.cmp(&before) {
        Ordering::Equal => Color { r: 250, g: 250, b: 250 },
        Ordering::Greater => Color { r: 255, g: less, b: less },
        Ordering::Less => Color { r: less, g: less, b: 255 },
    }
}
