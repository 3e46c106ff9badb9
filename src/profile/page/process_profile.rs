//! A table of what the rest of the process did.

use super::words;
use crate::profile::{ProcessProfile, ProcessStack};
use crate::text::html::Html;

/// How many stacks are shown. The JSON form has all of them.
const MAX_ROWS: usize = 40;
/// How many functions of a stack are shown, from the innermost out.
const MAX_FUNCTIONS: usize = 8;

pub(super) fn meanwhile(html: &mut Html, meanwhile: &ProcessProfile) {
    html.raw("<p>")
        .text(&words::count(meanwhile.samples, "sample"))
        .raw(" of the CPU time of all other threads, at most ");
    html.number(meanwhile.rate_hz).raw(
        " a second of it, taken by the <code>pprof</code> crate. It does not look into libc, the unwinder and the vdso: \
         what is spent there is missing.</p>\n",
    );
    html.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Stacks\"><table><caption>Most frequent first</caption>");
    html.raw(
        "<thead><tr><th scope=\"col\" class=\"n\">Share</th><th scope=\"col\" class=\"n\">Samples</th>\
         <th scope=\"col\">Thread</th><th scope=\"col\">Where, innermost first</th></tr></thead><tbody>\n",
    );
    for stack in meanwhile.stacks.iter().take(MAX_ROWS) {
        row(html, stack, meanwhile.samples);
    }
    html.raw("</tbody></table></div>\n");
    let more = meanwhile.stacks.len().saturating_sub(MAX_ROWS);
    if more > 0 || meanwhile.unlisted > 0 {
        html.raw("<p class=\"dim\">More stacks are in the JSON form: ").number(more);
        html.raw(" listed there, and ").text(&words::count(meanwhile.unlisted, "sample")).raw(" in rarer ones.</p>\n");
    }
}

fn row(html: &mut Html, stack: &ProcessStack, all: u64) {
    html.raw("<tr><td class=\"n\">").text(&words::share(stack.samples, all)).raw("</td><td class=\"n\">");
    html.number(stack.samples).raw("</td><td>").isolated(&stack.thread).raw("</td><td>");
    let innermost = stack.functions.iter().rev();
    let depth = stack.functions.len();
    for (index, function) in innermost.take(MAX_FUNCTIONS).enumerate() {
        html.raw(if index > 0 { " ‹ " } else { "" }).isolated(function);
    }
    if depth > MAX_FUNCTIONS {
        html.raw(" ‹ …");
    }
    html.raw("</td></tr>\n");
}
