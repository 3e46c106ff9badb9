//! The subject of a letter: what a mail client lists, and a pager reads out.

use super::units::{count, duration};
use crate::report::digest::Digest;
use crate::report::escape::escape;
use crate::report::route::route_line;
use crate::report::{Kind, Report, Verdict};

/// The most of all, in characters.
const MAX_SUBJECT: usize = 150;

/// The most of a route or a job's name, in characters.
const MAX_WHAT: usize = 70;

/// The most of a host's name, in characters.
const MAX_HOST: usize = 36;

impl Report {
    /// The report in a line: `waiting 2.51 s: GET /slow/{what} on web-1`. At most 150 characters, none of which could end
    /// the line or the header that it stands in.
    pub(crate) fn subject(&self) -> String {
        let state = state(self);
        let what = cut(&route_line(self), MAX_WHAT);
        let what = match (&self.request, &self.job) {
            (None, Some(_)) => format!("the job \"{what}\""),
            _ => what,
        };
        let body = if self.kind == Kind::SlowBody { "the body of " } else { "" };
        cut(&format!("{state}: {body}{what}{}", on(&self.process.hostname)), MAX_SUBJECT)
    }
}

/// What it does, and for how long: `waiting 2.51 s`.
pub(super) fn state(report: &Report) -> String {
    let poll = report.kind == Kind::BlockingPoll && report.longest_poll_ms > 0.0;
    let elapsed = duration(if poll { report.longest_poll_ms } else { report.elapsed_ms });
    match report.verdict {
        Verdict::Waiting => format!("waiting {elapsed}"),
        Verdict::Blocking => format!("blocking {elapsed}"),
        Verdict::Starved => format!("starved {elapsed}"),
        Verdict::Yielding => format!("yielding {elapsed}"),
        Verdict::NoWaker => format!("no waker {elapsed}"),
        Verdict::Abandoned => format!("abandoned after {elapsed}"),
        Verdict::Interrupted => format!("interrupted after {elapsed}"),
        Verdict::Unknown => format!("slow {elapsed}"),
    }
}

impl Digest {
    /// The digest in a line: `31 reports about 5 places on web-1, most often GET /slow/{what}`. Bounded and safe as a
    /// [report's](Report::subject).
    pub(crate) fn subject(&self) -> String {
        let most = self.entries().first().map(|entry| format!(", most often {}", cut(&entry.what, MAX_WHAT)));
        cut(&format!("{}{}", self.sum(), most.unwrap_or_default()), MAX_SUBJECT)
    }

    /// `31 reports about 5 places on web-1`.
    pub(super) fn sum(&self) -> String {
        let places = self.entries().len() as u64;
        let more = if self.others > 0 { "more than " } else { "" };
        let all = count(self.reports + self.held_back, "report");
        format!("{all} about {more}{}{}", count(places, "place"), on(&self.hostname))
    }
}

fn on(hostname: &str) -> String {
    if hostname.is_empty() { String::new() } else { format!(" on {}", cut(hostname, MAX_HOST)) }
}

/// `text` without anything unsafe, at most `max` characters of it.
fn cut(text: &str, max: usize) -> String {
    let safe = escape(text, max);
    match safe.char_indices().nth(max) {
        Some(_) => safe.chars().take(max - 1).chain(['…']).collect(),
        None => safe.into_owned(),
    }
}
