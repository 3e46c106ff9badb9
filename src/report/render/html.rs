//! The report as a message in HTML.

use super::markup::Colour;
use super::page::{Page, meaning};
use super::sections::Section;
use super::stacks::Line;
use super::subject::state;
use crate::report::Report;
use crate::report::assemble::location::place;
use crate::text::html::Html;

/// How many bytes each part may have. A mail client such as Gmail shows the first 102 KB of a message. All parts
/// together are shorter, even if each character of the text must be escaped.
const FACTS: usize = 12_000;
const NOTES: usize = 6_000;
const STACKS: usize = 24_000;
const SPANS: usize = 5_000;
const TIMELINE: usize = 8_000;
const EARLIER: usize = 6_000;

impl Report {
    /// Returns the report as a small page of HTML that reads well in mail clients, on a phone and on a dark background.
    /// It says the same as [`to_text`](Report::to_text), in the same order, with bars for where the time went.
    ///
    /// It has only inline styles: no script, no image, no link, nothing that is loaded from elsewhere. Everything from
    /// outside is escaped. It is never longer than 100,000 bytes. The text has the rest of a very large report.
    ///
    /// ```
    /// # fn message(report: &heeler::Report) {
    /// let html = report.to_html();
    /// assert!(html.len() <= 100_000);
    /// # }
    /// ```
    #[must_use]
    pub fn to_html(&self) -> String {
        if let Some(dump) = &self.dump {
            return super::dump::message(self, dump);
        }
        let page = Page::of(self);
        let mut html = Html::message(&self.subject());
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
        html.finish_message()
    }

    /// Returns the source line at the report's location, if it is available.
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
    /// Writes what a reader sees first: what is slow, where, and what the verdict means.
    fn lead(&mut self, report: &Report, page: &Page<'_>) {
        let colour = Colour::of_verdict(report.verdict);
        self.badge(colour, &state(report));
        self.raw("<h1 style=\"font-size:18px;line-height:1.35;margin:10px 0 12px\">");
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

    /// Writes a list, or nothing if there are no items.
    pub(super) fn list(&mut self, heading: &str, room: usize, items: &[String]) {
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

    pub(super) fn sections(&mut self, room: usize, sections: &[Section]) {
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

    /// Writes one stack, innermost frame first.
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

    /// Says how many are missing, if any.
    pub(super) fn left_out(&mut self, left: usize, what: &str) {
        if left > 0 {
            let plural = if left == 1 { "" } else { "s" };
            self.aside(&format!("… {left} more {what}{plural}, in the text form"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::markup::tests::{MAX_MESSAGE, check, hostile};
    use super::*;
    use crate::report::assemble::awaiting::awaiting;
    use crate::report::assemble::location::{arrange, locate};
    use crate::report::testing::{await_stack, culprit, library, own, report, thread, thread_stack};
    use crate::report::{Kind, Span, Thread, Verdict};

    /// Returns the text that a reader sees.
    fn read(mut report: Report) -> String {
        arrange(&mut report);
        report.location = locate(&report);
        report.awaiting = awaiting(&report);
        let html = report.to_html();
        assert!(html.len() <= MAX_MESSAGE, "{}", html.len());
        check(&html)
    }

    fn assert_in_order(text: &str, parts: &[&str]) {
        let mut rest = text;
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or too early:\n{text}"));
            rest = &rest[at + part.len()..];
        }
    }

    /// Guards: the mail says everything that the text page says, in the same order. It begins with what is slow, where,
    /// and what that means.
    #[test]
    fn the_mail_says_what_the_text_says() {
        let mut report = report();
        report.notes.push("armed late".to_owned());
        report.suppressed = 12;
        report.fingerprint = "00c0ffee00c0ffee".to_owned();
        let html = report.to_html();
        assert!(html.len() < 10_000, "{}", html.len());
        assert_in_order(
            &read(report),
            &[
                "waiting 2.51 s: GET /slow/{what} on web1",
                "GET /slow/lock is waiting for a lock: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at",
                "photos::wait_for_import at examples/photos/slow.rs:88",
                "let _import = self.import.lock().await;",
                "It is waiting to be woken",
                "8f14e45fceea167a-17",
                "2025-01-01T00:00:02.510Z",
                "2.51 s (threshold 2.50 s)",
                "/slow/{what}",
                "web1",
                "Notes",
                "armed late",
                "Where it waits",
                "tokio::sync::mutex::Mutex<T>::lock",
                "photos::wait_for_import",
                "… 14 frames of axum, hyper, std",
                "Spans, outermost first",
                "request user=7",
                "Where the time went",
                "2.20 s of 2.51 s waiting",
                "12 reports like this one",
                "00c0ffee00c0ffee",
            ],
        );
    }

    /// Guards: everything on the text page is in the mail, too.
    #[test]
    fn the_mail_says_everything_in_the_text() {
        let mut report = report();
        report.verdict = Verdict::Starved;
        report.stacks.push(culprit(&[library("regex::exec"), own("photos::is_valid_tag", 9)]));
        report.stacks.push(await_stack(&[own("photos::other", 90)]));
        for kind in [await_stack, thread_stack] {
            let mut child = kind(&[own("photos::resize_photo", 7)]);
            child.child = Some("resize".to_owned());
            report.stacks.push(child);
        }
        let mut earlier = await_stack(&[own("photos::earlier", 3)]);
        earlier.current = false;
        report.stacks.push(earlier);
        arrange(&mut report);
        report.location = locate(&report);
        report.awaiting = awaiting(&report);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let message = words(&read(report.clone()));
        for word in words(&report.to_text()) {
            // The text page draws what the message shows by its style.
            let drawn = ["=>", "|", "-"].contains(&&*word);
            assert!(drawn || message.contains(&word), "{word} is missing: {message:?}");
        }
    }

    #[test]
    fn every_kind_of_report_makes_a_mail() {
        for verdict in [
            Verdict::Waiting,
            Verdict::Churning,
            Verdict::Blocking,
            Verdict::Starved,
            Verdict::Throttled,
            Verdict::Yielding,
            Verdict::NoWaker,
            Verdict::Abandoned,
            Verdict::Interrupted,
            Verdict::Unknown,
        ] {
            let mut report = report();
            report.verdict = verdict;
            assert!(read(report.clone()).contains(meaning(&report)), "{verdict}");
            report.stacks.clear();
            report.timeline.clear();
            report.spans.clear();
            report.request = None;
            report.elapsed = Duration::ZERO;
            report.job = Some("nightly <import>".to_owned());
            report.kind = Kind::SlowJob;
            assert!(read(report).contains("the job \"nightly <import>\" on web1"), "{verdict}");
        }
    }

    /// Guards: no report makes a mail so long that clients truncate it. The mail says what was left out.
    #[test]
    fn a_mail_is_never_too_long() {
        let mut report = report();
        let frames: Vec<_> = (0..10_000).map(|line| own("app::again", line)).collect();
        report.stacks = vec![await_stack(&frames)];
        assert!(read(report.clone()).contains("… 9948 lines, in the JSON form"));
        // Each character takes six or nine bytes.
        for long in ["\"".repeat(2_000), "\u{e0001}".repeat(2_000), "😀".repeat(2_000)] {
            let request = report.request.as_mut().unwrap();
            (request.method, request.uri) = (long.clone(), long.clone());
            request.headers = vec![(long.clone(), long.clone()); 100];
            report.notes = vec![long.clone(); 100];
            report.spans = vec![Span { name: long.clone(), fields: vec![(long.clone(), long.clone())] }; 100];
            report.process.hostname = long.clone();
            report.fingerprint = long.clone();
            let mut stack = await_stack(&[own(&long, 1), own(&long, 2)]);
            stack.child = Some(long.clone());
            stack.thread = Some(Thread { name: long.clone(), ..thread() });
            report.stacks = (0..100)
                .map(|number| {
                    let mut stack = stack.clone();
                    stack.frames[0].line = Some(number);
                    stack.frames[0].source = Some(long.clone());
                    stack.current = number % 2 == 0;
                    stack
                })
                .collect();
            report.timeline = (0..100)
                .map(|stack| crate::report::Interval { stack: Some(stack), ..report.timeline[0].clone() })
                .collect();
            assert!(read(report.clone()).contains("in the text form"));
        }
    }

    proptest! {
        /// Guards: text from a request stays text in the mail, and never becomes markup.
        #[test]
        fn hostile_text_never_becomes_markup(evil in hostile(), other in hostile()) {
            let mut report = report();
            report.verdict = Verdict::Starved;
            let request = report.request.as_mut().unwrap();
            for field in [&mut request.method, &mut request.uri, &mut request.version] {
                *field = evil.clone();
            }
            request.route = Some(other.clone());
            request.headers = vec![(evil.clone(), other.clone())];
            report.job = Some(other.clone());
            report.id = evil.clone();
            report.fingerprint = other.clone();
            report.thread = Some(Thread { name: evil.clone(), syscall: Some(other.clone()), ..thread() });
            report.notes = vec![evil.clone()];
            report.spans[0].name = evil.clone();
            report.spans[0].fields = vec![(evil.clone(), other.clone())];
            report.process.service = Some(evil.clone());
            report.process.hostname = other.clone();
            for stack in &mut report.stacks {
                stack.child = Some(other.clone());
                for frame in &mut stack.frames {
                    frame.function = Some(evil.clone());
                    frame.file = Some(other.clone());
                    frame.source = Some(evil.clone());
                }
            }
            report.stacks.push(culprit(&[own(&evil, 1)]));
            report.stacks.last_mut().unwrap().work = Some(other.clone());
            let text = read(report);
            // It is there and readable.
            let shown = crate::text::escape::escape(&evil, 1_000).into_owned();
            prop_assert!(text.contains(shown.trim_end()), "{shown:?} is not in {text:?}");
        }
    }
}
