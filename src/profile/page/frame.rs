//! A picture in a frame of its own: without an origin, and without a network.

use super::picture::height_of;
use crate::profile::page::context::Context;
use crate::text::html::Html;

const STYLE: &str = include_str!("frame.css");
const SCRIPT: &str = include_str!("frame.js");

/// The height in pixels that inferno's title would need above the first box, and that of the frame's own bar.
const TITLE: usize = 48;
const BAR: usize = 92;

impl Html {
    /// Writes a flamegraph as a frame. `class` and `title` are words of this program.
    pub(super) fn picture(&mut self, svg: &str, class: &'static str, title: &str, context: &Context<'_>) -> &mut Self {
        let height = height_of(svg).saturating_sub(TITLE) + BAR;
        self.raw("<iframe sandbox=\"allow-scripts\" loading=\"lazy\" class=\"")
            .raw(class)
            .raw("\" title=\"")
            .text(title);
        self.raw("\" height=\"").number(height).raw("\" srcdoc='");
        let document = document(svg, title, context.nonce);
        self.document(&document).raw("'></iframe>\n")
    }
}

/// Returns the picture as a document. inferno's own script does not work here: a handler in the markup calls it, which
/// the policy forbids. It asks for a search term by a prompt, which a sandbox forbids. It keeps its state in the URL,
/// which the frame does not have.
fn document(svg: &str, title: &str, nonce: &str) -> String {
    let svg = svg.find("<svg").map_or(svg, |start| &svg[start..]);
    let svg = svg
        .replacen(" onload=\"init(evt)\"", "", 1)
        .replacen("<style type=\"text/css\">", &format!("<style nonce=\"{nonce}\">"), 1)
        .replacen("<script type=\"text/ecmascript\">", &format!("<script nonce=\"{nonce}\">"), 1);
    let mut html = Html::fragment();
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title);
    html.raw("</title><meta name=\"color-scheme\" content=\"light dark\"><style nonce=\"").text(nonce).raw("\">");
    html.raw(STYLE).raw("</style></head><body>\n<div id=\"bar\" hidden>");
    html.raw("<input id=\"term\" type=\"search\" placeholder=\"Search functions\" aria-label=\"Search functions\" ");
    html.raw("autocomplete=\"off\" spellcheck=\"false\"><output id=\"found\"></output>");
    html.raw("<button id=\"back\" type=\"button\" disabled>Zoom out</button></div>\n");
    html.raw("<p id=\"about\" aria-live=\"polite\">Point at a box for its name and its time.</p>");
    html.raw("<div id=\"picture\" tabindex=\"0\" role=\"group\" aria-label=\"").text(title).raw("\">");
    html.svg(&svg).raw("</div>\n").script(SCRIPT, nonce).raw("</body></html>");
    html.into_markup()
}
