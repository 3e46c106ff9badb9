//! The share of each state, as a bar that is as long as the whole time.

use super::words::{self, STATES};
use crate::text::html::Html;

/// Writes the bar and its legend. The percentages sum to 100.
pub(super) fn shares(html: &mut Html, sums: [u64; 5]) {
    let whole = sums.iter().fold(0u64, |sum, &nanos| sum.saturating_add(nanos));
    bar(html, sums, whole);
    html.raw("<ul class=\"legend\">\n");
    for ((state, nanos), per_mille) in STATES.into_iter().zip(sums).zip(words::per_mille(sums)) {
        html.raw(if nanos == 0 { "<li class=\"none\">" } else { "<li>" });
        html.raw("<svg aria-hidden=\"true\"><rect width=\"14\" height=\"14\" class=\"").raw(words::class(state));
        html.raw("\"/></svg><span>").text(words::state(state)).raw(": <b>").text(&words::nanos(nanos));
        html.raw("</b>, ").text(&words::percent(per_mille)).raw("</span><span class=\"meaning\">");
        html.raw(words::meaning(state)).raw("</span></li>\n");
    }
    html.raw("</ul>\n");
}

/// Writes a bar whose full length is `whole`.
pub(super) fn bar(html: &mut Html, sums: [u64; 5], whole: u64) {
    html.raw("<svg class=\"shares\" viewBox=\"0 0 1000 1\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
    let parts = STATES.into_iter().zip(words::per_mille(sums));
    let parts: Vec<_> =
        parts.map(|(state, part)| format!("{} {}", words::state(state), words::percent(part))).collect();
    html.text(&parts.join(", ")).raw("\">");
    let mut from = 0.0;
    for (state, nanos) in STATES.into_iter().zip(sums).filter(|(_, nanos)| *nanos > 0) {
        let width = if whole > 0 { nanos as f64 / whole as f64 * 1000.0 } else { 0.0 };
        html.raw("<rect x=\"").number(format_args!("{from:.3}")).raw("\" width=\"").number(format_args!("{width:.3}"));
        html.raw("\" height=\"1\" class=\"").raw(words::class(state)).raw("\"/>");
        from += width;
    }
    html.raw("</svg>\n");
}

/// Says which colour is which.
pub(super) fn legend(html: &mut Html) {
    html.raw("<ul class=\"legend\">\n");
    for state in STATES {
        html.raw("<li><svg aria-hidden=\"true\"><rect width=\"14\" height=\"14\" class=\"").raw(words::class(state));
        html.raw("\"/></svg><span>").text(words::state(state)).raw("</span></li>\n");
    }
    html.raw("</ul>\n");
}
