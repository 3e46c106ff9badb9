//! The sentence at the top of a report.

use std::fmt;

use crate::report::assemble::location::locate_child;
use crate::report::assemble::location::place;
use crate::report::{Kind, Report, StackKind, Thread, Verdict};
use crate::text::escape::escape;
use crate::text::units::{count, duration};

/// How much of a URI or a name the sentence quotes at most, in characters.
const MAX_SUBJECT: usize = 120;

impl Report {
    /// Returns the report in one sentence: what is slow, since when, and in which function, file and line.
    ///
    /// `GET /slow/lock is waiting: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at src/slow.rs:88`
    #[must_use]
    pub fn sentence(&self) -> String {
        let subject = self.work();
        let elapsed = duration(self.elapsed);
        let limit = self.limit().map(|limit| format!(" ({limit})")).unwrap_or_default();
        let place = self.place();
        let sentence = match self.verdict {
            Verdict::Waiting => format!("{subject} is waiting: {elapsed} so far{limit}{place}"),
            Verdict::Blocking if self.kind == Kind::BlockingPoll => {
                let poll = duration(if !self.longest_poll.is_zero() { self.longest_poll } else { self.elapsed });
                let on = self.on_thread();
                format!("{subject} is blocking its thread{on}: one poll of {poll} so far{limit}{place}")
            }
            Verdict::Blocking => {
                format!("{subject} is blocking its thread{}: {elapsed} so far{limit}{place}", self.on_thread())
            }
            Verdict::Starved => {
                let held = match &*place {
                    "" => "and what holds the runtime's threads is not known",
                    _ => "the runtime's threads are held",
                };
                format!("{subject} is starved: {elapsed} so far{limit}, woken but not polled, {held}{place}")
            }
            Verdict::Yielding => {
                format!("{subject} yields: {elapsed} and {} so far{limit}{place}", count(self.polls, "poll"))
            }
            Verdict::NoWaker => {
                format!("{subject} is pending and its last poll left no waker: {elapsed} so far{limit}{place}")
            }
            Verdict::Abandoned => {
                // The cause isn't known: a client that leaves, a timeout around it and a shutdown all drop it alike.
                let end = if self.request.is_some() { "it had an answer" } else { "it was done" };
                format!("{subject} was abandoned: dropped before {end}, after {elapsed}{limit}{place}")
            }
            Verdict::Interrupted => format!("{subject} was interrupted: its time was up after {elapsed}{limit}{place}"),
            Verdict::Unknown => {
                let why = self.notes.first().map(|note| format!(": {note}")).unwrap_or_default();
                format!("{subject} is slow: {elapsed} so far{limit}{place}, and where it is could not be captured{why}")
            }
        };
        // The parts come from requests and from debug information.
        escape(&sentence, usize::MAX).into_owned()
    }

    /// Returns `threshold 2.50 s`, or `limit 2.50 s` for a timebox.
    pub(in crate::report) fn limit(&self) -> Option<String> {
        let word = if self.kind == Kind::Interrupted { "limit" } else { "threshold" };
        self.threshold.map(|threshold| format!("{word} {}", duration(threshold)))
    }

    /// Returns `GET /users/4711`, `the body of GET /users/4711`, `the job "import"`.
    pub(super) fn work(&self) -> String {
        let work = match (&self.request, &self.job) {
            (Some(request), _) => format!("{} {}", request.method, cut(&request.uri)),
            (None, Some(job)) => format!("the job \"{}\"", cut(job)),
            (None, None) => "a job".to_owned(),
        };
        if self.kind == Kind::SlowBody { format!("the body of {work}") } else { work }
    }

    /// Returns `, in photos::load at src/slow.rs:88`, or nothing.
    pub(crate) fn place(&self) -> String {
        let Some(location) = &self.location else { return String::new() };
        let current = || self.stacks.iter().filter(|stack| stack.current);
        let own = current().flat_map(|stack| &stack.frames).any(|frame| frame.own);
        let word = match (self.verdict, own, &location.function) {
            (_, false, _) => " near",
            (Verdict::Starved, ..) => " in",
            (Verdict::NoWaker | Verdict::Abandoned, true, Some(_)) => " last in",
            (Verdict::NoWaker | Verdict::Abandoned, true, None) => " last at",
            (_, true, Some(_)) => " in",
            (_, true, None) => " at",
        };
        let comma = if self.verdict == Verdict::Starved { "" } else { "," };
        let child = locate_child(self).map(|child| format!(", on its child work in {}", place(&child)));
        format!("{comma}{word} {}{}", place(location), child.unwrap_or_default())
    }

    /// Returns ` (running)`, ` (in system call futex)`, or nothing.
    fn on_thread(&self) -> String {
        let of_stack = |kind| self.stacks.iter().find(|stack| stack.current && stack.kind == kind)?.thread.as_ref();
        let thread = self.thread.as_ref().or_else(|| of_stack(StackKind::Thread));
        thread.and_then(busy_with).map(|what| format!(" ({what})")).unwrap_or_default()
    }
}

/// Returns what a thread is doing, as far as known.
pub(crate) fn busy_with(thread: &Thread) -> Option<String> {
    match (&thread.syscall, thread.on_cpu, &thread.wchan) {
        // A system call that uses the CPU, such as a large read, is still reported as the call.
        (Some(syscall), _, _) => Some(format!("in system call {syscall}")),
        (None, Some(true), _) => Some("running".to_owned()),
        (None, _, Some(wchan)) => Some(format!("in the kernel, at {wchan}")),
        (None, Some(false), None) => Some("off the CPU".to_owned()),
        (None, None, None) => None,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SUBJECT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Report {
    /// Writes [`Report::sentence`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::assemble::location::{arrange, locate};
    use crate::report::testing::{await_stack, culprit, library, own, report, thread, thread_stack};

    fn say(mut report: Report) -> String {
        arrange(&mut report);
        report.location = locate(&report);
        report.to_string()
    }

    #[test]
    fn the_sentence_says_where_work_waits() {
        assert_eq!(
            say(report()),
            "GET /slow/lock is waiting: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at examples/photos/slow.rs:88"
        );
        let mut body = report();
        body.kind = Kind::SlowBody;
        body.stacks = vec![await_stack(&[library("tokio::sync::mpsc::poll")])];
        body.threshold = None;
        assert_eq!(
            say(body),
            "the body of GET /slow/lock is waiting: 2.51 s so far, near tokio::sync::mpsc::poll at tokio-1.2.3/src/lib.rs:100"
        );
        let mut nothing = report();
        nothing.stacks.clear();
        assert_eq!(say(nothing), "GET /slow/lock is waiting: 2.51 s so far (threshold 2.50 s)");
    }

    /// Guards: with `debug = "line-tables-only"` an inlined async function has no name.
    #[test]
    fn the_sentence_falls_back_to_file_and_line() {
        let mut report = report();
        report.stacks[0].frames[3].function = None;
        assert!(say(report).ends_with("(threshold 2.50 s), at examples/photos/slow.rs:88"));
    }

    #[test]
    fn the_sentence_names_the_child_work() {
        let mut report = report();
        let mut child = thread_stack(&[own("photos::resize_photo", 7)]);
        child.child = Some("resize".to_owned());
        report.stacks.push(child);
        assert!(say(report).ends_with("slow.rs:88, on its child work in photos::resize_photo at src/app.rs:7"));
    }

    #[test]
    fn the_sentence_says_what_blocks_the_thread() {
        let mut blocking = report();
        blocking.verdict = Verdict::Blocking;
        blocking.stacks = vec![thread_stack(&[library("regex::exec"), own("photos::is_valid_tag", 9)])];
        assert_eq!(
            say(blocking.clone()),
            "GET /slow/lock is blocking its thread (running): 2.51 s so far (threshold 2.50 s), in photos::is_valid_tag at src/app.rs:9"
        );
        blocking.kind = Kind::BlockingPoll;
        blocking.longest_poll = Duration::from_millis(1_200);
        blocking.threshold = Some(Duration::from_secs(1));
        blocking.thread = Some(Thread { syscall: Some("futex".to_owned()), on_cpu: Some(false), ..thread() });
        assert_eq!(
            say(blocking),
            "GET /slow/lock is blocking its thread (in system call futex): one poll of 1.20 s so far (threshold 1.00 s), in photos::is_valid_tag at src/app.rs:9"
        );
    }

    #[test]
    fn the_sentence_explains_each_verdict() {
        let with = |verdict| Report { verdict, ..report() };
        let mut starved = with(Verdict::Starved);
        assert_eq!(
            say(starved.clone()),
            "GET /slow/lock is starved: 2.51 s so far (threshold 2.50 s), woken but not polled, and what holds the runtime's threads is not known"
        );
        starved.stacks.push(culprit(&[own("photos::is_valid_tag", 9)]));
        assert!(say(starved).ends_with("the runtime's threads are held in photos::is_valid_tag at src/app.rs:9"));
        assert!(
            say(with(Verdict::Yielding)).contains("/lock yields: 2.51 s and 2 polls so far (threshold 2.50 s), in")
        );
        let pending = "GET /slow/lock is pending and its last poll left no waker: 2.51 s so far (threshold 2.50 s), last in photos::";
        assert!(say(with(Verdict::NoWaker)).starts_with(pending));
        let gone = "GET /slow/lock was abandoned: dropped before it had an answer, after 2.51 s (threshold 2.50 s), last in photos::";
        assert!(say(with(Verdict::Abandoned)).starts_with(gone));
        let interrupted = Report { kind: Kind::Interrupted, ..with(Verdict::Interrupted) };
        assert!(say(interrupted).contains("its time was up after 2.51 s (limit 2.50 s), in photos::"));
        let mut unknown = with(Verdict::Unknown);
        unknown.stacks.clear();
        unknown.notes.push("the thread did not answer".to_owned());
        unknown.request = None;
        unknown.job = Some("import\n".to_owned());
        assert_eq!(
            say(unknown),
            "the job \"import\\n\" is slow: 2.51 s so far (threshold 2.50 s), and where it is could not be captured: the thread did not answer"
        );
    }

    #[test]
    fn long_uris_are_cut() {
        let mut report = report();
        report.request.as_mut().unwrap().uri = "/ä".repeat(1_000);
        assert!(say(report).chars().count() < 300);
    }
}
