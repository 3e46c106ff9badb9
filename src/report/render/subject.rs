//! The subject of a message, which a mail client lists and a pager reads out.

use crate::report::assemble::route::{job_name, route_line};
use crate::report::{FleetNews, Kind, Report, Verdict};
use crate::text::escape::escape;
use crate::text::units::duration;

/// The longest subject, in characters.
pub(super) const MAX_SUBJECT: usize = 150;

/// The most of a route or a job's name, in characters.
pub(super) const MAX_WHAT: usize = 70;

/// The most of a host's name, in characters.
const MAX_HOST: usize = 36;

impl Report {
    /// Returns the report in a line: `waiting 2.51 s: GET /slow/{what} on web-1`. It has at most 150 characters, and
    /// none of them can end the line or the header that it is in.
    pub(crate) fn subject(&self) -> String {
        let prefix = match self.fleet.as_ref().map(|fleet| &fleet.news) {
            None | Some(FleetNews::Began) => return self.own_subject(),
            Some(FleetNews::Doubled) => "twice as many: ",
            Some(FleetNews::Spread { .. }) => "another route: ",
            Some(FleetNews::Ended { .. }) => "ended: ",
        };
        cut(&format!("{prefix}{}", self.own_subject()), MAX_SUBJECT)
    }

    fn own_subject(&self) -> String {
        if let Some(dump) = &self.dump {
            let text = format!("dump: {} in flight{}", dump.in_flight, on(&self.process.hostname));
            return cut(&text, MAX_SUBJECT);
        }
        let state = state(self);
        let what = cut(&route_line(self), MAX_WHAT);
        let what = if self.job.is_some() { job_name(&what, None) } else { what };
        let body = if self.kind == Kind::SlowBody { "the body of " } else { "" };
        cut(&format!("{state}: {body}{what}{}", on(&self.process.hostname)), MAX_SUBJECT)
    }
}

/// Returns what it does, and for how long: `waiting 2.51 s`.
pub(super) fn state(report: &Report) -> String {
    if let Some(ended) = report.ended() {
        return ended;
    }
    let poll = report.kind == Kind::BlockingPoll && !report.longest_poll.is_zero();
    let elapsed = duration(if poll { report.longest_poll } else { report.elapsed });
    match report.verdict {
        Verdict::Waiting => format!("waiting {elapsed}"),
        Verdict::Churning => format!("churning {elapsed}"),
        Verdict::Blocking => format!("blocking {elapsed}"),
        Verdict::Starved => format!("starved {elapsed}"),
        Verdict::Throttled => format!("throttled {elapsed}"),
        Verdict::Yielding => format!("yielding {elapsed}"),
        Verdict::NoWaker => format!("no waker {elapsed}"),
        Verdict::Abandoned => format!("abandoned after {elapsed}"),
        Verdict::Interrupted => format!("interrupted after {elapsed}"),
        Verdict::Unknown => format!("slow {elapsed}"),
    }
}

/// Returns ` on web-1`, or nothing.
pub(super) fn on(hostname: &str) -> String {
    if hostname.is_empty() { String::new() } else { format!(" on {}", cut(hostname, MAX_HOST)) }
}

/// Returns at most `max` characters of `text`, without anything unsafe.
pub(super) fn cut(text: &str, max: usize) -> String {
    let safe = escape(text, max);
    match safe.char_indices().nth(max) {
        Some(_) => safe.chars().take(max - 1).chain(['…']).collect(),
        None => safe.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::markup::tests::hostile;
    use super::*;
    use crate::report::testing::report;
    use crate::text::escape::is_unsafe;

    #[test]
    fn the_subject_leads_with_the_verdict() {
        let say = |verdict| Report { verdict, ..report() }.subject();
        assert_eq!(say(Verdict::Waiting), "waiting 2.51 s: GET /slow/{what} on web1");
        assert_eq!(say(Verdict::NoWaker), "no waker 2.51 s: GET /slow/{what} on web1");
        assert_eq!(say(Verdict::Abandoned), "abandoned after 2.51 s: GET /slow/{what} on web1");
        assert_eq!(say(Verdict::Unknown), "slow 2.51 s: GET /slow/{what} on web1");
        let poll = Report {
            kind: Kind::BlockingPoll,
            verdict: Verdict::Blocking,
            longest_poll: Duration::from_millis(1_200),
            ..report()
        };
        assert_eq!(poll.subject(), "blocking 1.20 s: GET /slow/{what} on web1");
    }

    #[test]
    fn the_subject_names_bodies_and_jobs() {
        let mut report = report();
        report.kind = Kind::SlowBody;
        assert_eq!(report.subject(), "waiting 2.51 s: the body of GET /slow/{what} on web1");
        report.request.as_mut().unwrap().route = None;
        report.request.as_mut().unwrap().uri = "/users/4711?token=x".to_owned();
        assert_eq!(report.subject(), "waiting 2.51 s: the body of GET /users/{id} on web1");
        (report.kind, report.request, report.job) = (Kind::SlowJob, None, Some("nightly import".to_owned()));
        assert_eq!(report.subject(), "waiting 2.51 s: the job \"nightly import\" on web1");
        (report.job, report.process.hostname) = (None, String::new());
        assert_eq!(report.subject(), "waiting 2.51 s: a job");
    }

    proptest! {
        /// Guards: a subject neither ends its header nor forges one, whatever the names of the request, its route and
        /// the host.
        #[test]
        fn the_subject_is_one_short_line(evil in hostile(), time in any::<Duration>(), job in any::<bool>()) {
            let mut report = report();
            report.kind = Kind::SlowBody;
            report.elapsed = time;
            report.process.hostname = evil.repeat(5);
            let request = report.request.as_mut().unwrap();
            (request.method, request.route) = (evil.clone(), Some(evil.repeat(9)));
            if job {
                (report.request, report.job) = (None, Some(evil));
            }
            let subject = report.subject();
            prop_assert!(!subject.contains(is_unsafe), "{:?}", subject);
            prop_assert!(subject.chars().count() <= MAX_SUBJECT);
        }
    }
}
