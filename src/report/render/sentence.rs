//! The sentence at the top of a report.

use std::fmt;

use crate::report::assemble::location::{leading_frame, locate_child, place};
use crate::report::assemble::route::job_name;
use crate::report::{Denied, Ended, Ending, Kind, Repeats, Report, StackKind, Thread, Verdict};
use crate::text::escape::escape;
use crate::text::units::{count, duration};

/// How much of a URI or a name the sentence quotes at most, in characters.
const MAX_SUBJECT: usize = 120;

impl Report {
    /// Returns the report in one sentence: what is slow, since when, and in which function, file and line.
    ///
    /// `GET /slow/lock is waiting for a lock: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at src/slow.rs:88`
    #[must_use]
    pub fn sentence(&self) -> String {
        if let Some(dump) = &self.dump {
            let why = self.notes.first().map(|why| format!(" ({why})")).unwrap_or_default();
            return escape(&format!("a dump{why}: {}", dump.sentence()), usize::MAX).into_owned();
        }
        let subject = self.work();
        let elapsed = duration(self.elapsed);
        let limit = self.limit().map(|limit| format!(" ({limit})")).unwrap_or_default();
        let place = format!("{}{}", self.place(), self.cause());
        let awaited =
            |before: &str| self.awaiting.as_ref().map(|what| format!("{before} for {what}")).unwrap_or_default();
        let sentence = match self.verdict {
            _ if self.ending.is_some() => format!("{subject} {}: {}", self.ended().unwrap_or_default(), self.before()),
            Verdict::Waiting => {
                format!(
                    "{subject} is waiting{}: {elapsed} so far{limit}{}{}{}",
                    awaited(""),
                    self.place(),
                    self.times(),
                    self.cause()
                )
            }
            Verdict::Churning => format!("{subject} churns: {}{elapsed} so far{limit}{place}", self.waits_in()),
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
            Verdict::Throttled => {
                format!("{subject} was denied the CPU{}: {elapsed} so far{limit}{place}", self.denial())
            }
            Verdict::Yielding => {
                format!("{subject} yields: {elapsed} and {} so far{limit}{place}", count(self.polls, "poll"))
            }
            Verdict::NoWaker => {
                format!("{subject} is pending and its last poll left no waker: {elapsed} so far{limit}{place}")
            }
            Verdict::Abandoned => {
                // The cause isn't known: a client that leaves, a timeout around it and a shutdown all drop it alike.
                let end = if self.job.is_none() && self.request.is_some() { "it had an answer" } else { "it was done" };
                let awaited = awaited(", while waiting");
                format!("{subject} was abandoned: dropped before {end}, after {elapsed}{limit}{awaited}{place}")
            }
            Verdict::Interrupted => {
                let awaited = awaited(", while waiting");
                format!("{subject} was interrupted: its time was up after {elapsed}{limit}{awaited}{place}")
            }
            Verdict::Unknown => {
                let why = self.notes.first().map(|note| format!(": {note}")).unwrap_or_default();
                format!("{subject} is slow: {elapsed} so far{limit}{place}, and where it is could not be captured{why}")
            }
        };
        // The parts come from requests and from debug information.
        escape(&sentence, usize::MAX).into_owned()
    }

    /// Returns `finished after 2.60 s with 200`, if it has ended.
    pub(in crate::report) fn ended(&self) -> Option<String> {
        let Ending { how, status, after } = self.ending.as_ref()?;
        let (after, body) = (duration(*after), self.kind == Kind::SlowBody);
        let with = status.map(|status| format!(" with {status}")).unwrap_or_default();
        // Why it was dropped isn't known, as for an abandoned request.
        let before = match (&self.job, &self.request) {
            _ if body => "it was complete",
            (None, Some(_)) => "it had an answer",
            _ => "it was done",
        };
        Some(match how {
            Ended::Finished if body => format!("went on after {after}"),
            Ended::Finished => format!("finished after {after}{with}"),
            Ended::Failed => format!("failed after {after}{with}"),
            Ended::Dropped => format!("was dropped after {after}, before {before}"),
            Ended::Interrupted => format!("was ended by its timebox after {after}{with}"),
            Ended::Panicked => format!("panicked after {after}"),
            Ended::Unknown => format!("ended after {after}{with}"),
        })
    }

    /// Returns what it did before it ended, when the report was made.
    fn before(&self) -> String {
        let (elapsed, place) = (duration(self.elapsed), self.place());
        let limit = self.limit().map(|limit| format!(" ({limit})")).unwrap_or_default();
        let state = match self.verdict {
            Verdict::Waiting => "waiting",
            Verdict::Blocking => "blocking its thread",
            Verdict::Starved if place.is_empty() => "starved",
            Verdict::Starved => "starved, and the runtime's threads were held",
            Verdict::Churning => "churning",
            Verdict::Throttled => "denied the CPU",
            Verdict::Yielding => "yielding",
            Verdict::NoWaker => "pending without a waker",
            Verdict::Abandoned | Verdict::Interrupted | Verdict::Unknown => "slow",
        };
        let awaited = self.awaiting.as_ref().map(|what| format!(" for {what}")).unwrap_or_default();
        format!("after {elapsed}{limit} it was {state}{awaited}{place}{}", self.cause())
    }

    /// Returns `threshold 2.50 s`, or `limit 2.50 s` for a timebox.
    pub(in crate::report) fn limit(&self) -> Option<String> {
        let word = if self.kind == Kind::Interrupted { "limit" } else { "threshold" };
        self.threshold.map(|threshold| format!("{word} {}", duration(threshold)))
    }

    /// Returns `GET /users/4711`, `the body of GET /users/4711`, `the job "import"`.
    pub(super) fn work(&self) -> String {
        let request = self.request.as_ref().map(|request| format!("{} {}", request.method, cut(&request.uri)));
        let work = match &self.job {
            Some(job) => job_name(&cut(job), request),
            None => request.unwrap_or_else(|| "a job".to_owned()),
        };
        if self.kind == Kind::SlowBody { format!("the body of {work}") } else { work }
    }

    /// Returns `, in photos::load at src/slow.rs:88`, or nothing.
    pub(crate) fn place(&self) -> String {
        let Some(location) = &self.location else { return String::new() };
        let current = || self.stacks.iter().filter(|stack| stack.current);
        // An ending has no stacks, and a place only if that is the application's own.
        let own =
            self.ending.is_some() && self.stacks.is_empty() || current().any(|stack| leading_frame(stack).is_some());
        let word = match (self.verdict, own, &location.function) {
            (Verdict::Unknown, false, _) if current().next().is_none() => " last seen in",
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

    /// Returns `, 16 waits there`, or nothing. Fewer may be one that something else has interrupted.
    fn times(&self) -> String {
        let many = self.repeats.filter(|repeats| repeats.waits > 2 && locate_child(self).is_none());
        many.map(|repeats| format!(", {} there", count(repeats.waits, "wait"))).unwrap_or_default()
    }

    /// Returns ` for 800 ms of 1.20 s because the cgroup is throttled`, or nothing.
    fn denial(&self) -> String {
        let text = |denied: Denied| {
            let (time, of) = (duration(denied.time), duration(denied.of));
            format!(" for {time} of {of} because {}", denied.by.explain())
        };
        self.denied.map(text).unwrap_or_default()
    }

    /// Returns `3412 waits of 0.30 ms each in `, or nothing.
    fn waits_in(&self) -> String {
        let Some(Repeats { waits, time }) = self.repeats.filter(|repeats| repeats.waits > 0) else {
            return String::new();
        };
        format!("{} of {} each in ", count(waits, "wait"), duration(time / waits))
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

pub(super) fn cut(text: &str) -> String {
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
    use crate::report::DeniedBy;
    use crate::report::assemble::awaiting::awaiting;
    use crate::report::assemble::location::{arrange, locate};
    use crate::report::testing::{await_stack, culprit, library, own, report, thread, thread_stack};

    fn say(mut report: Report) -> String {
        arrange(&mut report);
        report.location = locate(&report);
        report.awaiting = awaiting(&report);
        report.to_string()
    }

    #[test]
    fn the_sentence_says_where_work_waits() {
        assert_eq!(
            say(report()),
            "GET /slow/lock is waiting for a lock: 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at examples/photos/slow.rs:88"
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
        let repeats = Some(Repeats { waits: 3_412, time: Duration::from_millis(1_024) });
        assert_eq!(
            say(Report { repeats, ..with(Verdict::Churning) }),
            "GET /slow/lock churns: 3412 waits of 0.30 ms each in 2.51 s so far (threshold 2.50 s), in photos::wait_for_import at examples/photos/slow.rs:88"
        );
        assert!(say(Report { repeats, ..report() }).ends_with("slow.rs:88, 3412 waits there"));
        let twice = Some(Repeats { waits: 2, time: Duration::from_secs(2) });
        assert!(say(Report { repeats: twice, ..report() }).ends_with("slow.rs:88"), "not a loop");
        let denied = Denied { time: Duration::from_millis(800), of: Duration::from_millis(1_200), by: DeniedBy::Quota };
        assert!(say(Report { denied: Some(denied), ..with(Verdict::Throttled) }).starts_with(
            "GET /slow/lock was denied the CPU for 800 ms of 1.20 s because the cgroup is throttled: 2.51 s so far"
        ));
        assert!(
            say(with(Verdict::Yielding)).contains("/lock yields: 2.51 s and 2 polls so far (threshold 2.50 s), in")
        );
        let pending = "GET /slow/lock is pending and its last poll left no waker: 2.51 s so far (threshold 2.50 s), last in photos::";
        assert!(say(with(Verdict::NoWaker)).starts_with(pending));
        let gone = "GET /slow/lock was abandoned: dropped before it had an answer, after 2.51 s (threshold 2.50 s), while waiting for a lock, last in photos::";
        assert!(say(with(Verdict::Abandoned)).starts_with(gone));
        let interrupted = Report { kind: Kind::Interrupted, ..with(Verdict::Interrupted) };
        assert!(
            say(interrupted)
                .contains("its time was up after 2.51 s (limit 2.50 s), while waiting for a lock, in photos::")
        );
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

    /// Guards: an ending says how long it took in all, and what it was doing before. It doesn't say why it was dropped.
    #[test]
    fn the_sentence_says_how_it_ended() {
        let with = |how, status, report: Report| {
            let ending = Ending { how, status, after: Duration::from_millis(2_600) };
            say(Report { ending: Some(ending), ..report })
        };
        let before = "after 2.51 s (threshold 2.50 s) it was waiting for a lock, in photos::wait_for_import at examples/photos/slow.rs:88";
        for (how, status, expected) in [
            (Ended::Finished, Some(200), "GET /slow/lock finished after 2.60 s with 200: "),
            (Ended::Failed, None, "GET /slow/lock failed after 2.60 s: "),
            (Ended::Dropped, None, "GET /slow/lock was dropped after 2.60 s, before it had an answer: "),
            (Ended::Interrupted, Some(503), "GET /slow/lock was ended by its timebox after 2.60 s with 503: "),
            (Ended::Panicked, None, "GET /slow/lock panicked after 2.60 s: "),
            (Ended::Unknown, None, "GET /slow/lock ended after 2.60 s: "),
        ] {
            assert_eq!(with(how, status, report()), format!("{expected}{before}"));
        }
        let body = Report { kind: Kind::SlowBody, ..report() };
        assert!(
            with(Ended::Finished, None, body.clone()).starts_with("the body of GET /slow/lock went on after 2.60 s: ")
        );
        assert!(with(Ended::Dropped, None, body).contains(", before it was complete: "));
        let job = Report { request: None, job: Some("import".to_owned()), ..report() };
        assert!(
            with(Ended::Dropped, None, job)
                .starts_with("the job \"import\" was dropped after 2.60 s, before it was done: ")
        );
        let mut starved = Report { verdict: Verdict::Starved, ..report() };
        assert!(with(Ended::Finished, None, starved.clone()).ends_with(" it was starved"));
        starved.stacks.push(culprit(&[own("photos::is_valid_tag", 9)]));
        let held = " it was starved, and the runtime's threads were held in photos::is_valid_tag at src/app.rs:9";
        assert!(with(Ended::Finished, None, starved).ends_with(held));
    }

    #[test]
    fn long_uris_are_cut() {
        let mut report = report();
        report.request.as_mut().unwrap().uri = "/ä".repeat(1_000);
        assert!(say(report).chars().count() < 300);
    }
}
