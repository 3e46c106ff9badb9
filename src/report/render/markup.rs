//! HTML for mail clients, written so that nothing from outside gets into it unescaped.
//!
//! Mail clients run no scripts, load nothing, and often drop `<style>`: so there are tables and inline styles. Text has the
//! reader's own colour and panels are translucent, so that a page is as clear on a dark ground as on a light one.

use std::fmt::Write as _;

use super::page::Fact;
use crate::report::escape::escape;
use crate::report::{Activity, Verdict};

/// The most of one text, in characters.
const MAX_TEXT: usize = 400;

/// What a page is in: the only elements that need attributes of their own.
const START: &str = concat!(
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">",
    "<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">",
    // Numbers and hosts of a report are no calls to make and no places to visit.
    "<meta name=\"format-detection\" content=\"telephone=no,date=no,address=no,email=no,url=no\"><title>",
);
const BODY: &str = concat!(
    "</title></head>\n<body style=\"margin:0;padding:0\">",
    "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr>",
    "<td style=\"padding:16px;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;",
    "word-break:break-word;overflow-wrap:anywhere\"><div style=\"max-width:920px\">\n",
);
const END: &str = "</div></td></tr></table></body></html>\n";

/// HTML in the making. What is not literal in this program goes through [`text`](Self::text).
#[derive(Debug)]
pub(super) struct Html(String);

impl Html {
    /// A page with this title.
    pub(super) fn page(title: &str) -> Self {
        let mut html = Self(START.to_owned());
        html.text(title);
        html.raw(BODY);
        html
    }

    pub(super) fn finish(mut self) -> String {
        self.raw(END);
        self.0
    }

    /// Markup that is written in this program.
    pub(super) fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// A number in markup.
    pub(super) fn number(&mut self, number: u32) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{number}");
    }

    /// Text from anywhere, safe in an element and in a quoted attribute.
    pub(super) fn text(&mut self, text: &str) {
        for c in escape(text, MAX_TEXT).trim_end().chars() {
            match c {
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '&' => self.raw("&amp;"),
                '"' => self.raw("&quot;"),
                '\'' => self.raw("&#39;"),
                c => self.0.push(c),
            }
        }
    }

    /// Writes items as long as they fit into `room` bytes; says how many did not.
    pub(super) fn fit<T>(
        &mut self,
        room: usize,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> usize {
        let end = self.0.len() + room;
        let mut items = items.into_iter();
        for item in &mut items {
            let before = self.0.len();
            write(self, item);
            if self.0.len() > end {
                self.0.truncate(before);
                return 1 + items.count();
            }
        }
        0
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.raw("<h2 style=\"font-size:15px;line-height:1.4;margin:24px 0 6px\">");
        self.text(text);
        self.raw("</h2>\n");
    }

    /// A remark that may be skipped.
    pub(super) fn aside(&mut self, text: &str) {
        self.raw("<div style=\"opacity:.7;margin:4px 0\">");
        self.text(text);
        self.raw("</div>\n");
    }

    /// A word on a coloured ground.
    pub(super) fn badge(&mut self, colour: Colour, text: &str) {
        self.raw("<span style=\"background:");
        self.raw(colour.css());
        self.raw(";color:#ffffff;font-weight:bold;font-size:13px;padding:3px 9px;border-radius:4px\">");
        self.text(text);
        self.raw("</span>");
    }

    /// Names and values; says how many did not fit into `room` bytes.
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
            html.text(value);
            html.raw("</td></tr>\n");
        });
        self.raw("</table>\n");
        left
    }

    /// A bar of that fraction of the width, from 0 to 1.
    pub(super) fn bar(&mut self, colour: Colour, fraction: f64) {
        // What is there is seen. A cast of a float saturates.
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

/// A colour that white text can be read on, and that is seen on white and on black.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colour(&'static str);

impl Colour {
    const GREY: Self = Self("#64748b");
    const BLUE: Self = Self("#2563eb");
    const RED: Self = Self("#dc2626");
    const ORANGE: Self = Self("#c2410c");
    const PURPLE: Self = Self("#7c3aed");

    pub(super) const fn css(self) -> &'static str {
        self.0
    }

    pub(super) const fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Waiting => Self::BLUE,
            Verdict::Blocking | Verdict::NoWaker => Self::RED,
            Verdict::Starved | Verdict::Interrupted => Self::ORANGE,
            Verdict::Yielding => Self::PURPLE,
            Verdict::Abandoned | Verdict::Unknown => Self::GREY,
        }
    }

    pub(super) const fn of_activity(activity: Option<Activity>) -> Self {
        match activity {
            Some(Activity::Waiting) => Self::BLUE,
            Some(Activity::Running) => Self::RED,
            Some(Activity::Runnable) => Self::ORANGE,
            Some(Activity::Yielding) => Self::PURPLE,
            Some(Activity::Unobserved) | None => Self::GREY,
        }
    }
}
