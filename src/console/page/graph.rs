//! Who holds and who waits for what has a name, as a picture: a band for each resource. Its waiters are on the left, its
//! holders on the right, and an arrow leads from who waits to what it waits for, and from that to who holds it.

use crate::report::{Dump, DumpClaim, DumpResource};
use crate::text::html::Html;
use crate::text::units::duration;

/// How many resources are drawn, and holders and waiters of each.
const MAX_BANDS: usize = 24;
const MAX_BOXES: usize = 5;
/// Measures in the picture's own unit.
const WIDTH: usize = 1_000;
const BOX_WIDTH: usize = 300;
const ROW: usize = 40;
const GAP: usize = 26;
/// The most characters in a box.
const MAX_LABEL: usize = 38;

/// Writes the picture.
pub(super) fn graph(html: &mut Html, dump: &Dump) {
    let bands: Vec<&DumpResource> = dump.resources.iter().take(MAX_BANDS).collect();
    if bands.is_empty() {
        return;
    }
    let height: usize = bands.iter().map(|band| rows(band) * ROW + GAP).sum();
    html.raw("<figure class=\"scroll\"><svg class=\"graph\" role=\"img\" aria-label=\"Who waits for what, and who holds it\" viewBox=\"0 0 ");
    html.number(WIDTH)
        .raw(" ")
        .number(height)
        .raw("\" width=\"")
        .number(WIDTH)
        .raw("\" height=\"")
        .number(height)
        .raw("\">");
    html.raw("<defs>");
    for (id, class) in [("head", ""), ("red-head", "red")] {
        html.raw("<marker id=\"")
            .raw(id)
            .raw("\" class=\"")
            .raw(class)
            .raw("\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" ");
        html.raw("markerUnits=\"userSpaceOnUse\" markerWidth=\"11\" markerHeight=\"11\" orient=\"auto\">");
        html.raw("<path d=\"M0 0L8 4L0 8z\"/></marker>");
    }
    html.raw("</defs>\n");
    let mut top = 0;
    for band in bands {
        draw(html, dump, band, top);
        top += rows(band) * ROW + GAP;
    }
    html.raw("</svg></figure>\n");
}

fn rows(band: &DumpResource) -> usize {
    let boxes = |claims: &[DumpClaim], more: u64| {
        claims.len().min(MAX_BOXES) + usize::from(more > 0 || claims.len() > MAX_BOXES)
    };
    boxes(&band.waiters, band.more_waiters).max(boxes(&band.holders, band.more_holders)).max(1)
}

fn draw(html: &mut Html, dump: &Dump, band: &DumpResource, top: usize) {
    let middle = top + rows(band) * ROW / 2;
    let usage = band.usage.map(|usage| format!(" ({} of {})", usage.in_use, usage.size)).unwrap_or_default();
    let in_ring = |claim: &DumpClaim| {
        band.deadlock && claim.id.as_ref().is_some_and(|id| dump.deadlocks.iter().flatten().any(|other| other == id))
    };
    let left = (WIDTH - BOX_WIDTH) / 2;
    for (claims, more, x, waits) in
        [(&band.waiters, band.more_waiters, 0, true), (&band.holders, band.more_holders, WIDTH - BOX_WIDTH, false)]
    {
        for (row, claim) in claims.iter().take(MAX_BOXES).enumerate() {
            let y = top + row * ROW;
            let red = in_ring(claim);
            let label = format!("{} · {}", short(&claim.work), duration(claim.time));
            node(html, x, y, &label, if red { "red" } else { "work" }, claim.id.as_deref());
            let (from, to) = if waits {
                ((BOX_WIDTH, y + ROW / 2 - 3), (left, middle))
            } else {
                ((left + BOX_WIDTH, middle), (WIDTH - BOX_WIDTH, y + ROW / 2 - 3))
            };
            let (class, head) = if red { ("arrow red", "red-head") } else { ("arrow", "head") };
            html.raw("<path class=\"").raw(class).raw("\" marker-end=\"url(#").raw(head).raw(")\" d=\"M");
            html.number(from.0).raw(" ").number(from.1).raw("L").number(to.0).raw(" ").number(to.1).raw("\"/>\n");
        }
        let more = more + claims.len().saturating_sub(MAX_BOXES) as u64;
        if more > 0 {
            node(html, x, top + MAX_BOXES.min(claims.len()) * ROW, &format!("and {more} more"), "more", None);
        }
    }
    let class = if band.deadlock { "red" } else { "resource" };
    node(html, left, middle - ROW / 2 + 3, &format!("{}{usage}", short(&band.name)), class, None);
}

fn node(html: &mut Html, x: usize, y: usize, label: &str, class: &'static str, work: Option<&str>) {
    if let Some(id) = work {
        html.raw("<a href=\"?work=").text(id).raw("\">");
    }
    html.raw("<g class=\"").raw(class).raw("\"><rect rx=\"6\" x=\"").number(x).raw("\" y=\"").number(y);
    html.raw("\" width=\"").number(BOX_WIDTH).raw("\" height=\"").number(ROW - 6).raw("\"/><text x=\"").number(x + 10);
    html.raw("\" y=\"").number(y + 22).raw("\">").text(label).raw("</text></g>");
    html.raw(if work.is_some() { "</a>\n" } else { "\n" });
}

/// Returns as much of a text as fits into a box.
fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_LABEL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
