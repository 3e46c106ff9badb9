//! The text report: for a terminal, a file, a mail, at three in the morning.

use super::sentence::busy_with;
use super::units::{count, duration, place};
use crate::report::escape::escape;
use crate::report::location::location_of;
use crate::report::time::timestamp;
use crate::report::{Activity, Interval, Report, Stack, StackKind, Thread, Verdict};

/// How many stacks of one kind are printed. The JSON form has all.
const MAX_STACKS: usize = 16;

/// How many of the timeline's lines are printed.
const MAX_INTERVALS: usize = 20;

impl Report {
    /// The report as a page of text: the [sentence](Report::sentence), what is known of the request and the process, the
    /// stacks with the application's own frames marked `=>` and everybody else's folded, the spans, the timeline.
    ///
    /// Whatever comes from outside is escaped: no line is forged, and no terminal takes orders.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut page = Page::default();
        page.line(0, &self.sentence());
        page.blank();
        page.head(self);
        page.notes(self);
        page.current_stacks(self);
        page.spans(self);
        page.timeline(self);
        page.earlier_stacks(self);
        page.tail(self);
        page.finish()
    }
}

/// Text in lines. Everything in it went through [`escape`].
#[derive(Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(escape(text, usize::MAX).trim_end());
        self.text.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.blank();
        self.line(0, text);
    }

    fn field(&mut self, name: &str, value: &str) {
        self.line(2, &format!("{name:<11} {value}"));
    }

    fn head(&mut self, report: &Report) {
        let update = if report.update > 0 { format!(", update {}", report.update) } else { String::new() };
        self.field("report", &format!("{}{update}", report.id));
        self.field("captured", &timestamp(report.captured_at));
        self.field("started", &timestamp(report.started_at));
        let threshold = report.threshold_ms.map(|ms| format!(" (threshold {})", duration(ms))).unwrap_or_default();
        self.field("elapsed", &format!("{}{threshold}", duration(report.elapsed_ms)));
        self.field("verdict", &format!("{} ({})", report.verdict, report.kind));
        if let Some(job) = &report.job {
            self.field("job", job);
        }
        if let Some(request) = &report.request {
            self.field("request", &format!("{} {} {}", request.method, request.uri, request.version));
            if let Some(route) = &request.route {
                self.field("route", route);
            }
            for (name, value) in &request.headers {
                self.field("header", &format!("{name}: {value}"));
            }
        }
        let process = &report.process;
        if let Some(service) = &process.service {
            self.field("service", &format!("{service} {}", process.version.as_deref().unwrap_or_default()));
        }
        self.field("host", &process.hostname);
        let build = process.build_id.as_ref().map(|id| format!(" (build id {id})")).unwrap_or_default();
        self.field("process", &format!("{} {}{build}", process.pid, process.executable));
        if let Some(thread) = &report.thread {
            self.field("thread", &describe(thread));
        }
        let busy = format!("{} busy, {} waiting", duration(report.busy_ms), duration(report.waiting_ms));
        self.field("polls", &format!("{}: {busy}, longest poll {}", report.polls, duration(report.longest_poll_ms)));
    }

    fn notes(&mut self, report: &Report) {
        if report.notes.is_empty() {
            return;
        }
        self.heading("Notes");
        for note in &report.notes {
            self.line(2, &format!("- {note}"));
        }
    }

    fn current_stacks(&mut self, report: &Report) {
        let current = || report.stacks.iter().filter(|stack| stack.current);
        let culprits: Vec<&Stack> = current().filter(|stack| stack.kind == StackKind::Culprit).collect();
        let own: Vec<&Stack> =
            current().filter(|stack| stack.kind != StackKind::Culprit && stack.child.is_none()).collect();
        for stack in culprits.iter().take(MAX_STACKS) {
            let work = stack.work.as_ref().map(|work| format!(" by {work}")).unwrap_or_default();
            let thread = stack.thread.as_ref().map(|thread| format!(", thread {}", describe(thread)));
            self.heading(&format!("A worker is held{work}{}", thread.unwrap_or_default()));
            self.stack(stack, 2);
        }
        self.more(culprits.len());
        // Branches that part below the application's own code are one place to a reader.
        let mut places: Vec<(&Stack, u64)> = Vec::new();
        for stack in own {
            match places.iter_mut().find(|(known, _)| known.is_at_same_place_as(stack)) {
                Some((_, more)) => *more += 1,
                None => places.push((stack, 0)),
            }
        }
        for (number, (stack, more)) in places.iter().enumerate().take(MAX_STACKS) {
            let branch =
                if places.len() > 1 { format!(", branch {} of {}", number + 1, places.len()) } else { String::new() };
            self.heading(&format!("{}{branch}{}", title(stack, report.verdict), doubt(stack)));
            self.stack(stack, 2);
            if *more > 0 {
                self.line(2, &format!("   and {} through the same lines, in the JSON form", count(*more, "more wait")));
            }
        }
        self.more(places.len());
        let mut children = 0;
        let mut before = None;
        for stack in current().filter(|stack| stack.kind != StackKind::Culprit) {
            let Some(child) = &stack.child else { continue };
            children += 1;
            if children > MAX_STACKS {
                continue;
            }
            if before != Some(child) {
                self.heading(&format!("Its child work: {child}"));
                before = Some(child);
            }
            self.line(4, &format!("{}{}", title(stack, report.verdict), doubt(stack)));
            self.stack(stack, 6);
        }
        self.more(children);
    }

    fn more(&mut self, stacks: usize) {
        if stacks > MAX_STACKS {
            self.heading(&format!("… {} more, in the JSON form", stacks - MAX_STACKS));
        }
    }

    fn spans(&mut self, report: &Report) {
        if report.spans.is_empty() {
            return;
        }
        self.heading("Spans, outermost first");
        for span in &report.spans {
            let fields: Vec<String> = span.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            self.line(2, &format!("{} {}", span.name, fields.join(" ")));
        }
    }

    fn timeline(&mut self, report: &Report) {
        if report.timeline.is_empty() {
            return;
        }
        self.heading("Where the time went");
        let timeline = by_place(report);
        for interval in timeline.iter().take(MAX_INTERVALS) {
            self.line(2, &describe_interval(interval, report));
        }
        let rest = &timeline[timeline.len().min(MAX_INTERVALS)..];
        if !rest.is_empty() {
            let ms = rest.iter().map(|interval| interval.ms).sum();
            self.line(2, &format!("{} in {} more, in the JSON form", duration(ms), count(rest.len() as u64, "place")));
        }
    }

    /// The stacks that the timeline speaks of.
    fn earlier_stacks(&mut self, report: &Report) {
        let mut known: Vec<&Stack> = report.stacks.iter().filter(|stack| stack.current).collect();
        let mut earlier: Vec<&Stack> = Vec::new();
        for stack in report.stacks.iter().filter(|stack| !stack.current) {
            if !known.iter().any(|known| known.is_at_same_place_as(stack)) {
                known.push(stack);
                earlier.push(stack);
            }
        }
        for stack in earlier.iter().take(MAX_STACKS) {
            let child = stack.child.as_ref().map(|child| format!(", child work {child}")).unwrap_or_default();
            self.heading(&format!("Earlier{child}{}", doubt(stack)));
            self.stack(stack, 2);
        }
        self.more(earlier.len());
    }

    fn tail(&mut self, report: &Report) {
        self.blank();
        if report.suppressed > 0 {
            let many = count(report.suppressed, "report");
            self.field("held back", &format!("{many} like this one since the last that went out"));
        }
        self.field("fingerprint", &report.fingerprint);
    }
}

/// Where the time went, in lines: by place, longest first.
#[cfg(feature = "sentry")]
pub(crate) fn timeline(report: &Report) -> Vec<String> {
    by_place(report).iter().take(MAX_INTERVALS).map(|interval| describe_interval(interval, report)).collect()
}

fn title(stack: &Stack, verdict: Verdict) -> String {
    let thread = || stack.thread.as_ref().map(|thread| format!(", thread {}", describe(thread))).unwrap_or_default();
    match (stack.kind, verdict) {
        (StackKind::Await, Verdict::Abandoned | Verdict::Interrupted | Verdict::NoWaker) => {
            "Where it last was".to_owned()
        }
        (StackKind::Await, Verdict::Yielding) => "Where it yields".to_owned(),
        (StackKind::Await, _) => "Where it waits".to_owned(),
        (StackKind::Thread | StackKind::Culprit, _) => format!("What runs{}", thread()),
    }
}

fn doubt(stack: &Stack) -> &'static str {
    if stack.reconstructed { " (reconstructed from what the last poll left behind: likely, not certain)" } else { "" }
}

/// `4243 tokio-rt-worker, sleeping, in system call futex`.
fn describe(thread: &Thread) -> String {
    let mut text = format!("{} {}", thread.id, thread.name);
    let busy = busy_with(thread).filter(|busy| thread.state.as_ref() != Some(busy));
    for part in [thread.state.clone(), busy].into_iter().flatten() {
        text.push_str(", ");
        text.push_str(&part);
    }
    text
}

/// The timeline with one interval a place of the application's own, longest first: what plumbing does differently on the
/// way is for the JSON form.
fn by_place(report: &Report) -> Vec<Interval> {
    let location = |interval: &Interval| interval.stack.and_then(|at| report.stacks.get(at)).and_then(location_of);
    let mut merged: Vec<Interval> = Vec::new();
    for interval in &report.timeline {
        let same = |known: &&mut Interval| {
            known.activity == interval.activity && location(known) == location(interval) && known.stack.is_some()
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.ms += interval.ms;
                known.waits += interval.waits;
            }
            None => merged.push(interval.clone()),
        }
    }
    merged.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    merged
}

/// `9.80 s of 10.0 s waiting in PhotoStore::get at photos.rs:41, 3 waits`.
fn describe_interval(interval: &Interval, report: &Report) -> String {
    let share = format!("{} of {}", duration(interval.ms), duration(report.elapsed_ms));
    let location = interval.stack.and_then(|at| report.stacks.get(at)).and_then(location_of);
    let place = location.map(|location| format!(" in {}", place(&location))).unwrap_or_default();
    match interval.activity {
        Activity::Waiting => format!("{share} waiting{place}, {}", count(interval.waits, "wait")),
        Activity::Running => format!("{share} running{place}, {}", count(interval.waits, "poll")),
        Activity::Runnable => format!("{share} woken and not polled"),
        Activity::Yielding => format!("{share} yielding{place}, {}", count(interval.waits, "time")),
        Activity::Unobserved => {
            let percent = if report.elapsed_ms > 0.0 { interval.ms / report.elapsed_ms * 100.0 } else { 0.0 };
            format!("{share} not observed ({percent:.0} %)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::escape::is_unsafe;
    use crate::report::location::{arrange, locate};
    use crate::report::testing::{await_stack, culprit, own, report, thread, thread_stack};

    fn text(mut report: Report) -> String {
        arrange(&mut report);
        report.location = locate(&report);
        report.fingerprint = "00c0ffee00c0ffee".to_owned();
        report.to_text()
    }

    /// Guards: the whole page, as an operator gets it.
    #[test]
    fn page() {
        let mut report = report();
        report.suppressed = 12;
        report.thread = Some(thread());
        report.process.service = Some("photos".to_owned());
        report.process.version = Some("1.2.0".to_owned());
        let expected = "\
GET /slow/lock is waiting: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at examples/photos/slow.rs:88

  report      8f14e45fceea167a-17
  captured    2025-01-01T00:00:02.510Z
  started     2025-01-01T00:00:00.000Z
  elapsed     2.51 s (threshold 2.50 s)
  verdict     waiting (slow_request)
  request     GET /slow/lock HTTP/1.1
  route       /slow/{what}
  header      host: localhost:3000
  service     photos 1.2.0
  host        web1
  process     4242 /opt/photos (build id abcdef)
  thread      4243 tokio-rt-worker, running
  polls       2: 0.40 ms busy, 2.20 s waiting, longest poll 0.30 ms

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
  0.40 ms of 2.51 s running, 2 polls

  held back   12 reports like this one since the last that went out
  fingerprint 00c0ffee00c0ffee
";
        assert_eq!(text(report), expected);
    }

    #[test]
    fn branches_children_and_earlier_stacks() {
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

    #[test]
    fn culprits_come_first() {
        let mut report = report();
        report.verdict = Verdict::Starved;
        report.stacks.extend(vec![culprit(&[own("photos::is_valid_tag", 9)]); MAX_STACKS + 3]);
        let text = text(report);
        let held = text.find("A worker is held by POST /tags, thread 4243 tokio-rt-worker").unwrap();
        assert!(held < text.find("Where it waits").unwrap());
        assert!(text.contains("… 3 more, in the JSON form"));
    }

    /// Guards: a report of nothing but what an attacker sent is one page without a forged line or an escape sequence.
    #[test]
    fn hostile_text() {
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
    fn empty_reports_are_pages_too() {
        let mut report = report();
        report.stacks.clear();
        report.timeline.clear();
        report.spans.clear();
        report.elapsed_ms = f64::NAN;
        report.request = None;
        assert!(text(report).lines().count() > 8);
    }
}
