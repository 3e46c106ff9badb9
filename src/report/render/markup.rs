//! The elements of a message in HTML.
//!
//! Mail clients run no scripts, load nothing, and often drop `<style>`, so the markup is tables and inline styles. Text
//! has the reader's own colour, and panels are translucent, so a page is as clear on a dark background as on a light
//! one.

use super::page::{Fact, TRACE_URL};
use crate::report::pipeline::trace_url::is_link;
use crate::report::{Activity, Verdict};
use crate::text::html::Html;

/// The most characters of one text.
const MAX_TEXT: usize = 1_000;

/// The beginning of a page. Only these elements need attributes of their own.
const START: &str = concat!(
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">",
    "<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">",
    // Mail clients should not turn the numbers and hosts in a report into links.
    "<meta name=\"format-detection\" content=\"telephone=no,date=no,address=no,email=no,url=no\"><title>",
);
const BODY: &str = concat!(
    "</title></head>\n<body style=\"margin:0;padding:0\">",
    "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr>",
    "<td style=\"padding:16px;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;",
    "word-break:break-word;overflow-wrap:anywhere\"><div style=\"max-width:920px\">\n",
);
const END: &str = "</div></td></tr></table></body></html>\n";

impl Html {
    /// Starts a message with this title.
    pub(super) fn message(title: &str) -> Self {
        let mut html = Self::new(MAX_TEXT);
        html.raw(START).text(title).raw(BODY);
        html
    }

    pub(super) fn finish_message(mut self) -> String {
        self.raw(END);
        self.into_markup()
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.raw("<h2 style=\"font-size:15px;line-height:1.4;margin:24px 0 6px\">");
        self.text(text);
        self.raw("</h2>\n");
    }

    /// Writes a remark that may be skipped.
    pub(super) fn aside(&mut self, text: &str) {
        self.raw("<div style=\"opacity:.7;margin:4px 0\">");
        self.text(text);
        self.raw("</div>\n");
    }

    /// Writes a word on a coloured background.
    pub(super) fn badge(&mut self, colour: Colour, text: &str) {
        self.raw("<span style=\"background:");
        self.raw(colour.css());
        self.raw(";color:#ffffff;font-weight:bold;font-size:13px;padding:3px 9px;border-radius:4px\">");
        self.text(text);
        self.raw("</span>");
    }

    /// Writes names and values. Returns how many did not fit into `room` bytes.
    pub(super) fn facts(&mut self, room: usize, facts: &[Fact]) -> usize {
        self.raw(
            "<table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" style=\"margin:14px 0\">\n",
        );
        let left = self.fit(room, facts, |html, (name, value)| {
            html.raw(
                "<tr><td valign=\"top\" style=\"opacity:.7;padding:1px 14px 1px 0;font-size:14px;white-space:nowrap\">",
            );
            html.text(name);
            html.raw("</td><td style=\"padding:1px 0;font-size:14px;word-break:break-word\">");
            if *name == TRACE_URL && is_link(value) {
                html.raw("<a href=\"").url(value).raw("\">").text(value).raw("</a>");
            } else {
                html.text(value);
            }
            html.raw("</td></tr>\n");
        });
        self.raw("</table>\n");
        left
    }

    /// Writes a bar of that fraction of the width, from 0 to 1.
    pub(super) fn bar(&mut self, colour: Colour, fraction: f64) {
        // Anything that exists is visible. A cast of a float saturates.
        let percent = ((fraction * 100.0).round() as u32).clamp(1, 100);
        self.raw("<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" ");
        self.raw("style=\"background:rgba(127,127,127,.18)\"><tr><td width=\"");
        self.number(percent);
        self.raw("%\" bgcolor=\"");
        self.raw(colour.css());
        self.raw("\" style=\"background:");
        self.raw(colour.css());
        self.raw(";height:8px;font-size:1px;line-height:8px\">&nbsp;</td>");
        if percent < 100 {
            self.raw("<td style=\"font-size:1px;line-height:8px\">&nbsp;</td>");
        }
        self.raw("</tr></table>\n");
    }
}

/// A colour that is visible on white and on black.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour(&'static str);

impl Colour {
    const GREY: Self = Self("#64748b");
    const BLUE: Self = Self("#2563eb");
    const RED: Self = Self("#dc2626");
    const ORANGE: Self = Self("#c2410c");
    const PURPLE: Self = Self("#7c3aed");

    pub(super) const fn of_dump(has_deadlock: bool) -> Self {
        if has_deadlock { Self::RED } else { Self::GREY }
    }

    pub(super) const fn css(self) -> &'static str {
        self.0
    }

    /// Returns a colour on which white text is readable.
    pub(super) const fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Waiting => Self::BLUE,
            Verdict::Blocking | Verdict::NoWaker => Self::RED,
            Verdict::Starved | Verdict::Interrupted => Self::ORANGE,
            Verdict::Yielding | Verdict::Churning => Self::PURPLE,
            Verdict::Abandoned | Verdict::Unknown | Verdict::Throttled => Self::GREY,
        }
    }

    /// Returns the colour of the flamegraph, which may be next to the message.
    pub(super) const fn of_activity(activity: Option<Activity>) -> Self {
        match activity {
            Some(Activity::Waiting) => Self("#56b4e9"),
            Some(Activity::Running) => Self("#3fb994"),
            Some(Activity::Runnable) => Self("#cc79a7"),
            Some(Activity::Yielding) => Self("#e0d030"),
            Some(Activity::Unobserved) | None => Self("#a8a8a8"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The limit that [`to_html`](crate::Report::to_html) promises.
    pub(crate) const MAX_MESSAGE: usize = 100_000;

    const ELEMENTS: [&str; 16] =
        ["html", "head", "meta", "title", "body", "table", "tr", "td", "div", "span", "h1", "h2", "p", "b", "ul", "a"];
    const ATTRIBUTES: [&str; 13] = [
        "lang",
        "charset",
        "name",
        "content",
        "style",
        "role",
        "width",
        "cellpadding",
        "cellspacing",
        "border",
        "valign",
        "bgcolor",
        "align",
    ];

    /// Text that tries to be markup.
    pub(crate) fn hostile() -> impl Strategy<Value = String> {
        let parts = "(<script>|</td>|</title>|<img src=x onerror=y>|\" onload=\"x|' style='|&lt;|&#60;|&|]]>|-->|<!--|\
                     \u{202e}|\u{0}|\n|\r\n|`|=|é|😀|[a-z ]){0,40}";
        prop_oneof![any::<String>(), parts]
    }

    /// Parses HTML more strictly than anybody does: known elements with known, quoted attributes, closed in order,
    /// nothing loaded, no script, everything else escaped. Returns the text without the markup, one line per element.
    pub(crate) fn check(html: &str) -> String {
        let mut rest = html.strip_prefix("<!doctype html>").expect("a doctype");
        let (mut open, mut text) = (Vec::new(), String::new());
        while let Some(at) = rest.find('<') {
            text.push_str(&decode(&rest[..at]));
            let end = at + rest[at..].find('>').expect("an end of the tag");
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            match tag.strip_prefix('/') {
                Some(name) => {
                    assert_eq!(open.pop(), Some(name));
                    text.push('\n');
                }
                None => {
                    let name = element(tag);
                    match name {
                        "br" | "meta" => text.push('\n'),
                        name => open.push(name),
                    }
                }
            }
        }
        text.push_str(&decode(rest));
        assert_eq!(open, [""; 0], "all closed");
        text
    }

    /// Returns the name of the element that `tag` opens.
    fn element(tag: &str) -> &str {
        let (name, mut attributes) = tag.split_at(tag.find(' ').unwrap_or(tag.len()));
        assert!(ELEMENTS.contains(&name) || name == "br" || name == "li", "<{tag}>");
        while let Some(attribute) = attributes.strip_prefix(' ') {
            let (name, value) = attribute.split_once("=\"").expect("a quoted value");
            if let ("a", "href", Some((url, left))) =
                (tag.split(' ').next().unwrap_or_default(), name, value.split_once('"'))
            {
                assert!(is_link(&decode(url)), "<{tag}>");
                attributes = left;
                continue;
            }
            assert!(ATTRIBUTES.contains(&name), "{name} in <{tag}>");
            let (value, left) = value.split_once('"').expect("an end of the value");
            assert!(!["url(", "//", "script", "expression"].iter().any(|bad| value.contains(bad)), "<{tag}>");
            attributes = left;
        }
        assert_eq!(attributes, "", "<{tag}>");
        name
    }

    fn decode(text: &str) -> String {
        assert!(!text.contains(['>', '"', '\'']), "{text}");
        let mut parts = text.split('&');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (entity, rest) = part.split_once(';').expect("a whole entity");
            out.push(match entity {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "quot" => '"',
                "#39" => '\'',
                "nbsp" => ' ',
                other => panic!("&{other};"),
            });
            out.push_str(rest);
        }
        out
    }

    #[test]
    #[should_panic(expected = "script")]
    fn the_check_rejects_unknown_elements() {
        check("<!doctype html><div><script></script></div>");
    }

    #[test]
    #[should_panic(expected = "onclick")]
    fn the_check_rejects_unknown_attributes() {
        check("<!doctype html><div onclick=\"x\"></div>");
    }

    #[test]
    #[should_panic(expected = "all closed")]
    fn the_check_rejects_unclosed_elements() {
        check("<!doctype html><div><div></div>");
    }

    #[test]
    fn a_bar_is_1_to_100_percent_wide() {
        for (fraction, percent) in [(0.0, 1), (0.005, 1), (0.5, 50), (1.0, 100), (7.0, 100), (-1.0, 1), (f64::NAN, 1)] {
            let mut html = Html::message("");
            html.bar(Colour::GREY, fraction);
            let html = html.finish_message();
            check(&html);
            assert!(html.contains(&format!("<td width=\"{percent}%\"")), "{fraction}");
        }
    }
}
