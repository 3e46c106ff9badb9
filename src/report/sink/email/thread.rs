//! Which mails belong together, so that a mail program shows them as one conversation.

use crate::report::Report;
use crate::report::sink::news::{Bounded, News};

/// What has been mailed.
#[derive(Debug)]
pub(super) struct Threads {
    /// The first mail for each incident.
    first: Bounded<String, String>,
    /// The first mail for each report, by its id.
    reports: Bounded<String, Place>,
    news: News,
}

/// A mail's place in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) message_id: String,
    /// The mail it is a reply to.
    pub(super) in_reply_to: Option<String>,
    /// The beginning of the conversation, and the first mail in it that this process sent.
    pub(super) references: Vec<String>,
}

impl Report {
    /// Returns what all reports of one conversation have in common. Reports of earlier versions have no incident.
    pub(super) fn conversation(&self) -> &String {
        if self.incident.is_empty() { &self.fingerprint } else { &self.incident }
    }
}

impl Threads {
    pub(super) fn new() -> Self {
        Self { first: Bounded::new(), reports: Bounded::new(), news: News::new() }
    }

    /// Returns whether the report says anything different from the last mail about it.
    pub(super) fn has_news(&self, report: &Report) -> bool {
        self.news.are_in(report)
    }

    /// Returns whether there is a mail about the report that this is the end of.
    pub(super) fn knows(&self, report: &Report) -> bool {
        self.reports.get(&report.id).is_some()
    }

    /// Returns where a mail about this report belongs.
    pub(super) fn place(&self, report: &Report, message_id: String, root: String) -> Place {
        if let Some(first) = self.reports.get(&report.id).filter(|first| first.message_id != message_id) {
            let mut references = first.references.clone();
            references.push(first.message_id.clone());
            return Place { message_id, in_reply_to: Some(first.message_id.clone()), references };
        }
        let first = self.first.get(report.conversation()).filter(|first| **first != message_id).cloned();
        let references = [Some(root), first.clone()].into_iter().flatten().collect();
        Place { message_id, in_reply_to: first, references }
    }

    /// Records that the mail about this report was sent.
    pub(super) fn sent(&mut self, report: &Report, place: &Place) {
        self.first.entry(report.conversation(), || place.message_id.clone());
        self.reports.entry(&report.id, || place.clone());
        self.news.told(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;
    use crate::report::{Location, Verdict};

    fn mail(threads: &mut Threads, report: &Report, message_id: &str) -> Option<Place> {
        if !threads.has_news(report) {
            return None;
        }
        let place = threads.place(report, message_id.to_owned(), "<root>".to_owned());
        threads.sent(report, &place);
        Some(place)
    }

    #[test]
    fn repeated_reports_are_replies() {
        let mut threads = Threads::new();
        let of =
            |id: &str, fingerprint: &str| Report { id: id.to_owned(), fingerprint: fingerprint.to_owned(), ..report() };
        let first = mail(&mut threads, &of("1", "f"), "<1>").unwrap();
        assert_eq!((first.in_reply_to, first.references), (None, vec!["<root>".to_owned()]));
        for id in ["2", "3"] {
            let next = mail(&mut threads, &of(id, "f"), id).unwrap();
            assert_eq!(next.in_reply_to.as_deref(), Some("<1>"));
            assert_eq!(next.references, ["<root>", "<1>"]);
        }
        assert_eq!(mail(&mut threads, &of("4", "g"), "<4>").unwrap().in_reply_to, None);
    }

    /// Guards: an update is mailed as a reply if it has news, and not otherwise. What could not be sent still counts as
    /// news.
    #[test]
    fn only_updates_with_news_are_mailed() {
        let mut threads = Threads::new();
        let of = |update: u32, verdict: Verdict| Report { update, verdict, ..report() };
        let unsent = threads.place(&of(0, Verdict::Waiting), "<0>".to_owned(), "<root>".to_owned());
        assert_eq!(unsent.in_reply_to, None);
        assert!(mail(&mut threads, &of(0, Verdict::Waiting), "<0>").is_some(), "it was not sent before");
        assert_eq!(mail(&mut threads, &of(1, Verdict::Waiting), "<1>"), None);
        let news = mail(&mut threads, &of(2, Verdict::Starved), "<2>").unwrap();
        assert_eq!(news.in_reply_to.as_deref(), Some("<0>"));
        assert_eq!(mail(&mut threads, &of(3, Verdict::Starved), "<3>"), None);
        let mut moved = of(4, Verdict::Starved);
        moved.location = Some(Location { function: None, file: Some("a.rs".to_owned()), line: Some(1) });
        moved.fingerprint = "another".to_owned();
        let moved = mail(&mut threads, &moved, "<4>").unwrap();
        assert_eq!((moved.in_reply_to.as_deref(), moved.references.len()), (Some("<0>"), 2));
        // A mail that waited for its turn while a later one was sent.
        assert!(mail(&mut threads, &of(1, Verdict::Starved), "<1>").is_some());
        assert!(mail(&mut threads, &of(5, Verdict::Starved), "<5>").is_some(), "the last mail told of another place");
    }
}
