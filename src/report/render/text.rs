//! The text report: for a terminal, a file, a mail, at three in the morning.

use super::page::{Fact, Page};
use super::sections::Section;
use super::stacks::Line;
use crate::report::Report;
use crate::text::escape::escape;

/// A line up to this long contains function and place. A longer one is broken between them.
const WIDTH: usize = 120;

impl Report {
    /// Returns the report as a page of text: the [sentence](Report::sentence), what is known about the request and the
    /// process, the stacks with the application's own frames marked `=>` and all others folded, the spans, the
    /// timeline.
    ///
    /// Everything from outside is escaped, so it can neither forge a line nor control a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        if let Some(dump) = &self.dump {
            return format!("{}\n\n{dump}", self.sentence());
        }
        let page = Page::of(self);
        let mut text = Text::default();
        text.line(0, &page.sentence);
        text.line(0, "");
        text.facts(&page.facts);
        text.list("Notes", page.notes.iter().map(|note| format!("- {note}")));
        page.stacks.iter().for_each(|section| text.section(section));
        text.list("Spans, outermost first", &page.spans);
        text.list("Where the time went", page.timeline.iter().map(|share| &share.text));
        page.earlier.iter().for_each(|section| text.section(section));
        text.line(0, "");
        text.facts(&page.tail);
        text.finish()
    }
}

/// Text in lines. Everything in it went through [`escape`].
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        self.0.extend(std::iter::repeat_n(' ', indent));
        self.0.push_str(escape(text, usize::MAX).trim_end());
        self.0.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    pub(super) fn facts(&mut self, facts: &[Fact]) {
        for (name, value) in facts {
            self.line(2, &format!("{name:<11} {value}"));
        }
    }

    fn heading(&mut self, text: &str) {
        self.line(0, "");
        self.line(0, text);
    }

    /// Writes a list, or nothing if there are no items.
    fn list(&mut self, heading: &str, items: impl IntoIterator<Item: AsRef<str>>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            self.heading(heading);
            items.for_each(|item| self.line(2, item.as_ref()));
        }
    }

    fn section(&mut self, section: &Section) {
        self.heading(&section.heading);
        for listing in &section.listings {
            match &listing.title {
                Some(title) => {
                    self.line(4, title);
                    self.stack(&listing.lines, 6);
                }
                None => self.stack(&listing.lines, 2),
            }
        }
    }

    /// Writes one stack, innermost frame first, indented by `indent` columns.
    pub(super) fn stack(&mut self, lines: &[Line], indent: usize) {
        for line in lines {
            let (own, name, place, source) = match line {
                Line::Remark(text) => {
                    self.line(indent, &format!("   {text}"));
                    continue;
                }
                Line::Frame { own, name, place, source } => (own, name, place, source),
            };
            let mark = if *own { "=>" } else { "  " };
            match place {
                Some(place) if indent + name.chars().count() + place.chars().count() + 5 > WIDTH => {
                    self.line(indent, &format!("{mark} {name}"));
                    self.line(indent, &format!("       at {place}"));
                }
                Some(place) => self.line(indent, &format!("{mark} {name}  {place}")),
                None => self.line(indent, &format!("{mark} {name}")),
            }
            if let Some(source) = source {
                self.line(indent, &format!("       | {source}"));
            }
        }
    }
}

/// Returns the lines of one stack.
pub(in crate::report) fn stack_text(stack: &crate::report::Stack) -> String {
    let mut text = Text::default();
    text.stack(&super::stacks::lines(stack), 2);
    text.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sections::MAX_STACKS;
    use super::*;
    use crate::report::assemble::awaiting::awaiting;
    use crate::report::assemble::location::{arrange, locate};
    use crate::report::testing::{await_stack, culprit, library, own, report, thread, thread_stack};
    use crate::report::{Thread, Verdict};
    use crate::text::escape::is_unsafe;

    fn text(mut report: Report) -> String {
        arrange(&mut report);
        report.location = locate(&report);
        report.awaiting = awaiting(&report);
        report.fingerprint = "00c0ffee00c0ffee".to_owned();
        report.to_text()
    }

    /// Guards: the whole page looks as an operator gets it.
    #[test]
    fn the_page_shows_the_whole_report() {
        let mut report = report();
        report.suppressed = 12;
        report.thread = Some(thread());
        report.process.service = Some("photos".to_owned());
        report.process.version = Some("1.2.0".to_owned());
        let expected = "\
GET /slow/lock is waiting for a lock: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at examples/photos/slow.rs:88

  report      8f14e45fceea167a-17
  captured    2025-01-01T00:00:02.510Z
  started     2025-01-01T00:00:00.000Z
  elapsed     2.51 s (threshold 2.50 s)
  verdict     waiting (slow_request)
  awaiting    a lock
  request     GET /slow/lock HTTP/1.1
  route       /slow/{what}
  header      host: localhost:3000
  service     photos 1.2.0
  host        web1
  process     4242 /opt/photos (build id abcdef)
  thread      4243 tokio-rt-worker, running
  polls       2: 0.40 ms inside, 2.20 s between them, longest 0.30 ms

Where it waits
     <tokio::sync::batch_semaphore::Acquire as core::future::future::Future>::poll  tokio-1.2.3/src/lib.rs:100
     … 1 frame of tokio
     tokio::sync::mutex::Mutex<T>::lock  tokio-1.2.3/src/lib.rs:100
  => photos::wait_for_import  examples/photos/slow.rs:88
         | let _import = self.import.lock().await;
  => photos::lock_page  src/app.rs:40
     … 14 frames of axum, hyper, std

Spans, outermost first
  request user=7

Where the time went
  2.20 s of 2.51 s waiting in photos::wait_for_import at examples/photos/slow.rs:88, 1 wait
  310 ms of 2.51 s not observed (12 %)
  0.40 ms of 2.51 s inside 2 polls

  held back   12 reports like this one since the last that went out
  fingerprint 00c0ffee00c0ffee
";
        assert_eq!(text(report), expected);
    }

    #[test]
    fn branches_children_and_earlier_stacks_have_sections() {
        let mut report = report();
        report.stacks.push(await_stack(&[own("photos::other", 90)]));
        for kind in [await_stack, thread_stack] {
            let mut child = kind(&[own("photos::resize_photo", 7)]);
            child.child = Some("resize".to_owned());
            report.stacks.push(child);
        }
        let mut earlier = await_stack(&[own("photos::earlier", 3)]);
        earlier.current = false;
        earlier.reconstructed = true;
        report.stacks.insert(0, earlier);
        report.timeline.truncate(1);
        report.notes.push("the budget of captures was used up 3 times".to_owned());
        let text = text(report);
        let at = |line: &str| text.lines().position(|it| it == line).unwrap_or_else(|| panic!("{line}\n{text}"));
        let order = [
            at("Notes"),
            at("  - the budget of captures was used up 3 times"),
            at("Where it waits, branch 1 of 2"),
            at("Where it waits, branch 2 of 2"),
            at("Its child work: resize"),
            at("    Where it waits"),
            at("    What runs, thread 4243 tokio-rt-worker, running"),
            at("Where the time went"),
            at("  2.20 s of 2.51 s waiting in photos::earlier at src/app.rs:3, 1 wait"),
            at("Earlier (reconstructed from what the last poll left behind: likely, not certain)"),
            at("  => photos::earlier  src/app.rs:3"),
        ];
        assert!(order.is_sorted(), "{text}");
        assert_eq!(text.matches("Its child work").count(), 1);
    }

    /// Guards: branches that part in a library have a line each, and there is an end to these lines.
    #[test]
    fn waits_through_the_same_lines_are_listed() {
        let branch = |leaf: &str| await_stack(&[library(leaf), own("photos::load", 7)]);
        let connect = "tokio::net::tcp::stream::TcpStream::connect";
        let checkout = "<hyper_util::client::legacy::pool::Checkout<T, K> as core::future::future::Future>::poll";
        let leaves = [connect, checkout, checkout, "unknown::Wait::poll"];
        let mut few = Report { stacks: leaves.map(branch).to_vec(), ..report() };
        few.timeline.clear();
        let page = text(few);
        assert!(page.starts_with("GET /slow/lock is waiting for a connection to be made: "), "{page}");
        let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("     and ")).collect();
        let of = |crate_name: &str| format!("at {crate_name}-1.2.3/src/lib.rs:100");
        let expected = [
            format!("     and 2 times waits for a connection of the pool, in {checkout} {}", of("hyper_util")),
            format!("     and waits, in unknown::Wait::poll {}", of("unknown")),
        ];
        assert_eq!(listed[..], expected.each_ref().map(String::as_str), "{page}");
        assert!(page.contains(&format!("     {connect}  tokio-1.2.3")), "the first is shown as a whole: {page}");
        let mut many = report();
        many.stacks = (0..30).map(|number| branch(&format!("unknown::Wait{number}::poll"))).collect();
        many.timeline.clear();
        let page = text(many);
        assert_eq!(page.matches("and waits, in unknown::Wait").count(), 8, "{page}");
        assert!(page.contains("and 21 more waits through the same lines, in the JSON form"), "{page}");
    }

    #[test]
    fn the_culprits_come_before_the_wait() {
        let mut report = report();
        report.verdict = Verdict::Starved;
        report.stacks.extend(vec![culprit(&[own("photos::is_valid_tag", 9)]); MAX_STACKS + 3]);
        let text = text(report);
        let held = text.find("A worker is held by POST /tags, thread 4243 tokio-rt-worker").unwrap();
        assert!(held < text.find("Where it waits").unwrap());
        assert!(text.contains("… 3 more, in the JSON form"));
    }

    /// Guards: a report that consists of what an attacker sent is one page without a forged line or an escape sequence.
    #[test]
    fn hostile_text_forges_no_line() {
        let evil = "x\n\nfingerprint forged\r\u{1b}[2J\u{202e}\u{0}";
        let mut report = report();
        let request = report.request.as_mut().unwrap();
        for field in [&mut request.method, &mut request.uri, &mut request.version] {
            *field = evil.to_owned();
        }
        request.route = Some(evil.to_owned());
        request.headers = vec![(evil.to_owned(), evil.to_owned())];
        report.job = Some(evil.to_owned());
        report.id = evil.to_owned();
        report.thread = Some(Thread { name: evil.to_owned(), syscall: Some(evil.to_owned()), ..thread() });
        report.notes = vec![evil.to_owned()];
        report.spans[0].name = evil.to_owned();
        report.spans[0].fields = vec![(evil.to_owned(), evil.to_owned())];
        for stack in &mut report.stacks {
            stack.child = Some(evil.to_owned());
            for frame in &mut stack.frames {
                frame.function = Some(evil.to_owned());
                frame.source = Some(evil.to_owned());
            }
        }
        report.stacks.push(culprit(&[own(evil, 1)]));
        report.stacks.last_mut().unwrap().work = Some(evil.to_owned());
        let lines = text(report.clone()).lines().count();
        let text = text(report);
        assert!(!text.replace('\n', "").contains(is_unsafe));
        assert!(!text.lines().any(|line| line.trim_start().starts_with("fingerprint forged")));
        assert!(lines < 60);
    }

    #[test]
    fn an_empty_report_is_still_a_page() {
        let mut report = report();
        report.stacks.clear();
        report.timeline.clear();
        report.spans.clear();
        report.elapsed = Duration::ZERO;
        report.request = None;
        assert!(text(report).lines().count() > 8);
    }
}
