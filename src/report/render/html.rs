//! The report as a letter in HTML.

use super::markup::{Colour, Html};
use super::page::{Page, meaning};
use super::sections::Section;
use super::stacks::Line;
use super::subject::state;
use super::units::place;
use crate::report::Report;

/// How many bytes each part may have. A mail client such as Gmail shows the first 102 KB of a letter; all parts together
/// are less, also where each letter of the text must be escaped.
const FACTS: usize = 12_000;
const NOTES: usize = 6_000;
const STACKS: usize = 24_000;
const SPANS: usize = 5_000;
const TIMELINE: usize = 8_000;
const EARLIER: usize = 6_000;

impl Report {
    /// The report as a small page of HTML that reads well in mail clients, on a phone and on a dark ground: what
    /// [`to_text`](Report::to_text) says, in the same order, with bars for where the time went.
    ///
    /// It has inline styles only; no script, no image, no link, nothing that is loaded from elsewhere. Whatever comes from
    /// outside is escaped. It is never longer than 100,000 bytes: of a very large report, the text has the rest.
    ///
    /// ```
    /// # fn letter(report: &heeler::Report) {
    /// let html = report.to_html();
    /// assert!(html.len() <= 100_000);
    /// # }
    /// ```
    #[must_use]
    pub fn to_html(&self) -> String {
        let page = Page::of(self);
        let mut html = Html::page(&self.subject());
        html.lead(self, &page);
        let left = html.facts(FACTS, &page.facts);
        html.left_out(left, "fact");
        html.list("Notes", NOTES, page.notes);
        html.sections(STACKS, &page.stacks);
        html.list("Spans, outermost first", SPANS, &page.spans);
        html.timeline(&page);
        html.sections(EARLIER, &page.earlier);
        html.raw("<div style=\"margin-top:24px;border-top:1px solid rgba(127,127,127,.35)\">");
        html.facts(1_000, &page.tail);
        html.raw("</div>");
        html.finish()
    }

    /// The source line at the report's location, where it is at hand.
    fn source_at_location(&self) -> Option<&str> {
        let location = self.location.as_ref()?;
        let frames = self.stacks.iter().filter(|stack| stack.current).flat_map(|stack| &stack.frames);
        let mut there = frames.filter(|frame| {
            frame.function == location.function && frame.file == location.file && frame.line == location.line
        });
        there.find_map(|frame| frame.source.as_deref())
    }
}

impl Html {
    /// What one reads first: what is slow, where, and what the verdict means.
    fn lead(&mut self, report: &Report, page: &Page<'_>) {
        let colour = Colour::of_verdict(report.verdict);
        self.badge(colour, &state(report));
        self.raw("<h1 style=\"font-size:19px;line-height:1.35;margin:10px 0 12px\">");
        self.text(&page.sentence);
        self.raw("</h1>\n");
        if let Some(location) = &report.location {
            self.raw(
                "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr><td ",
            );
            self.raw("style=\"border-left:4px solid ");
            self.raw(colour.css());
            self.raw(";background:rgba(127,127,127,.14);padding:8px 12px;word-break:break-word;");
            self.raw("font:14px/1.5 ui-monospace,Menlo,Consolas,monospace\"><b>");
            self.text(&place(location));
            self.raw("</b>");
            if let Some(source) = report.source_at_location() {
                self.raw("<br>");
                self.text(source);
            }
            self.raw("</td></tr></table>\n");
        }
        self.raw("<p style=\"margin:12px 0\">");
        self.text(meaning(report));
        self.raw("</p>\n");
    }

    /// Nothing at all, if there are no items.
    fn list(&mut self, heading: &str, room: usize, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.heading(heading);
        self.raw("<ul style=\"margin:0;padding-left:22px\">\n");
        let left = self.fit(room, items, |html, item| {
            html.raw("<li>");
            html.text(item);
            html.raw("</li>\n");
        });
        self.raw("</ul>\n");
        self.left_out(left, "line");
    }

    fn sections(&mut self, room: usize, sections: &[Section]) {
        let end = self.len() + room;
        let mut left = 0;
        for section in sections {
            if self.len() >= end {
                left += section.listings.len();
                continue;
            }
            if section.listings.is_empty() {
                self.aside(&section.heading);
                continue;
            }
            self.heading(&section.heading);
            for listing in &section.listings {
                if self.len() >= end {
                    left += 1;
                    continue;
                }
                if let Some(title) = &listing.title {
                    self.aside(title);
                }
                self.stack(end.saturating_sub(self.len()), &listing.lines);
            }
        }
        self.left_out(left, "stack");
    }

    /// One stack, innermost frame first.
    fn stack(&mut self, room: usize, lines: &[Line]) {
        self.raw(
            "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\"><tr><td ",
        );
        self.raw("style=\"background:rgba(127,127,127,.1);padding:8px 10px;word-break:break-word;");
        self.raw("font:13px/1.5 ui-monospace,Menlo,Consolas,monospace\">\n");
        let left = self.fit(room, lines, Self::stack_line);
        self.left_out(left, "line");
        self.raw("</td></tr></table>\n");
    }

    fn stack_line(&mut self, line: &Line) {
        let (own, name, place, source) = match line {
            Line::Remark(text) => {
                self.raw("<div style=\"opacity:.6;padding:1px 0 1px 11px\">");
                self.text(text);
                self.raw("</div>\n");
                return;
            }
            Line::Frame { own, name, place, source } => (*own, name, place, source),
        };
        if own {
            self.raw("<div style=\"border-left:3px solid #d97706;padding:1px 0 1px 8px;margin:3px 0\"><b>");
        } else {
            self.raw("<div style=\"padding:1px 0 1px 11px\">");
        }
        self.text(name);
        if own {
            self.raw("</b>");
        }
        if let Some(place) = place {
            self.raw(" <span style=\"opacity:.7\">");
            self.text(place);
            self.raw("</span>");
        }
        if let Some(source) = source {
            self.raw("<div style=\"padding-left:14px\">");
            self.text(source);
            self.raw("</div>");
        }
        self.raw("</div>\n");
    }

    fn timeline(&mut self, page: &Page<'_>) {
        if page.timeline.is_empty() {
            return;
        }
        self.heading("Where the time went");
        let left = self.fit(TIMELINE, &page.timeline, |html, share| {
            html.raw("<div style=\"margin:8px 0 2px;font-size:14px\">");
            html.text(&share.text);
            html.raw("</div>");
            html.bar(Colour::of_activity(share.activity), share.fraction);
        });
        self.left_out(left, "share");
    }

    /// Says that something is not here, if so.
    pub(super) fn left_out(&mut self, left: usize, what: &str) {
        if left > 0 {
            let plural = if left == 1 { "" } else { "s" };
            self.aside(&format!("… {left} more {what}{plural}, in the text form"));
        }
    }
}
