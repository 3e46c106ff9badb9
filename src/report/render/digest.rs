//! A digest as text and as HTML.

use super::markup::Colour;
use super::page::Fact;
use super::subject::{MAX_SUBJECT, MAX_WHAT, cut, on};
use super::text::Text;
use crate::report::pipeline::digest::{Digest, Entry};
use crate::text::html::Html;
use crate::text::time::timestamp;
use crate::text::units::{count, duration};

/// How many places are shown: those that were seen most often.
const MAX_SHOWN: usize = 40;

/// How many bytes the places may have in HTML: see [`Report::to_html`](crate::Report::to_html).
const ENTRIES: usize = 70_000;

impl Digest {
    /// Returns the digest in a line: `31 reports about 5 places on web-1, most often GET /slow/{what}`. It is as short
    /// and safe as a [report's](crate::Report::subject).
    pub(crate) fn subject(&self) -> String {
        let most = self.entries().first().map(|entry| format!(", most often {}", cut(&entry.what, MAX_WHAT)));
        cut(&format!("{}{}", self.sum(), most.unwrap_or_default()), MAX_SUBJECT)
    }

    /// Returns `31 reports about 5 places on web-1`.
    fn sum(&self) -> String {
        let places = self.entries().len() as u64;
        let more = if self.others > 0 { "more than " } else { "" };
        let all = count(self.reports.saturating_add(self.held_back), "report");
        format!("{all} about {more}{}{}", count(places, "place"), on(&self.hostname))
    }

    /// Returns the digest as a page of text: the period, how many reports, and the places, the most frequent first.
    pub(crate) fn to_text(&self) -> String {
        let mut text = Text::default();
        text.line(0, &self.sum());
        text.line(0, "");
        text.facts(&self.facts());
        for entry in self.shown() {
            text.line(0, "");
            text.line(0, &headline(entry));
            text.facts(&details(entry));
        }
        if let Some(rest) = self.rest(0) {
            text.line(0, "");
            text.line(0, &rest);
        }
        text.finish()
    }

    /// Returns the same as HTML for mail clients, with a bar for each place.
    pub(crate) fn to_html(&self) -> String {
        let mut html = Html::message(&self.subject());
        html.raw("<h1 style=\"font-size:19px;line-height:1.35;margin:0\">");
        html.text(&self.sum());
        html.raw("</h1>\n");
        html.facts(ENTRIES, &self.facts());
        let shown = self.shown();
        let most = shown.first().map_or(1, |entry| entry.count.max(1));
        let left = html.fit(ENTRIES, &shown, |html, entry| {
            html.raw("<div style=\"margin-top:22px;font-size:15px;font-weight:bold\">");
            html.text(&headline(entry));
            html.raw("</div>\n");
            html.bar(Colour::of_verdict(entry.verdict), entry.count as f64 / most as f64);
            html.facts(ENTRIES, &details(entry));
        });
        if let Some(rest) = self.rest(left) {
            html.raw("<div style=\"margin-top:22px\">");
            html.text(&rest);
            html.raw("</div>");
        }
        html.finish_message()
    }

    fn shown(&self) -> Vec<&Entry> {
        let mut entries = self.entries();
        entries.truncate(MAX_SHOWN);
        entries
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![("from", timestamp(self.since)), ("to", timestamp(self.until))];
        if let Some(service) = &self.service {
            facts.push(("service", service.clone()));
        }
        facts.push(("host", self.hostname.clone()));
        let held = match self.held_back {
            0 => String::new(),
            held => format!(", and {held} like them that were held back"),
        };
        facts.push(("reports", format!("{} gathered here instead of sent one by one{held}", self.reports)));
        if self.lost > 0 {
            let lost = format!(
                "{} on the way here: more arrived than could be sent, or sending failed",
                count(self.lost, "report")
            );
            facts.push(("lost", lost));
        }
        facts
    }

    /// Describes the entries that are not shown, including the last `left` of the first [`MAX_SHOWN`].
    fn rest(&self, left: usize) -> Option<String> {
        let entries = self.entries();
        let rest = &entries[entries.len().min(MAX_SHOWN).saturating_sub(left)..];
        let reports = rest.iter().map(|entry| entry.count).fold(self.others, u64::saturating_add);
        (reports > 0).then(|| format!("… and {} about other places", count(reports, "report")))
    }
}

/// Returns `20 × waiting: GET /slow/{what}`.
fn headline(entry: &Entry) -> String {
    format!("{} × {}: {}", entry.count, entry.verdict, entry.what)
}

fn details(entry: &Entry) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(place) = &entry.place {
        facts.push(("in", place.clone()));
    }
    facts.push(("worst", format!("{}, report {}", duration(entry.worst), entry.worst_id)));
    facts.push(("fingerprint", entry.fingerprint.clone()));
    facts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::markup::tests::{MAX_MESSAGE, check, hostile};
    use super::*;
    use crate::report::testing::report;
    use crate::report::{Report, Verdict};

    fn like(fingerprint: usize, elapsed_ms: u64, suppressed: u64) -> Report {
        let mut report = report();
        report.location = crate::report::assemble::location::locate(&report);
        report.fingerprint = format!("{fingerprint:016x}");
        report.id = format!("id-{fingerprint}-{elapsed_ms}");
        Report { elapsed: Duration::from_millis(elapsed_ms), suppressed, ..report }
    }

    /// Guards: the whole text page is right, and the mail says the same.
    #[test]
    fn text_and_mail_of_a_digest_agree() {
        let mut digest = Digest::of(&like(1, 2_510, 0));
        let mut other = like(2, 61_000, 7);
        (other.verdict, other.location) = (Verdict::Unknown, None);
        other.captured_at += std::time::Duration::from_secs(1_800);
        digest.add(&other);
        digest.add(&like(1, 9_000, 0));
        digest.service = Some("photos".to_owned());
        let expected = "\
10 reports about 2 places on web1

  from        2025-01-01T00:00:02.510Z
  to          2025-01-01T00:30:02.510Z
  service     photos
  host        web1
  reports     3 gathered here instead of sent one by one, and 7 like them that were held back

8 × unknown: GET /slow/{what}
  worst       1 min 01 s, report id-2-61000
  fingerprint 0000000000000002

2 × waiting: GET /slow/{what}
  in          photos::wait_for_import at examples/photos/slow.rs:88
  worst       9.00 s, report id-1-9000
  fingerprint 0000000000000001
";
        assert_eq!(digest.to_text(), expected);
        let html = digest.to_html();
        let message = check(&html);
        for word in expected.split_whitespace() {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert!(html.contains("<td width=\"100%\"") && html.contains("<td width=\"25%\""), "a bar each");
        assert_eq!(digest.subject(), "10 reports about 2 places on web1, most often GET /slow/{what}");
    }

    /// Guards: an hour of reports from ever new places is one mail, in which every report is counted.
    #[test]
    fn a_digest_stays_small_and_counts_everything() {
        let mut digest = Digest::of(&like(0, 1, 0));
        (1..1_000).for_each(|number| digest.add(&like(number, 1, 0)));
        assert!(digest.to_text().ends_with(&format!("… and {} reports about other places\n", 1_000 - MAX_SHOWN)));
        assert!(check(&digest.to_html()).contains(&format!("… and {} reports about other", 1_000 - MAX_SHOWN)));
        let long = "\"".repeat(10_000);
        let mut digest = Digest::of(&Report { id: long.clone(), job: Some(long), request: None, ..like(0, 1, 0) });
        (1..100).for_each(|number| {
            let job = Some(format!("{number}{}", "<".repeat(10_000)));
            digest.add(&Report { job, request: None, ..like(number, 1, 0) });
        });
        let html = digest.to_html();
        assert!(html.len() < MAX_MESSAGE, "{}", html.len());
        let text = check(&html);
        let shown = text.matches("1 × waiting").count();
        assert!(shown < MAX_SHOWN && text.contains(&format!("… and {} reports", 100 - shown)), "{shown}");
    }

    /// Guards: numbers that only a damaged file contains are shown, and don't cause a panic.
    #[test]
    fn absurd_numbers_are_shown() {
        let mut digest = Digest::of(&like(0, 1, u64::MAX));
        (1..200).for_each(|place| digest.add(&like(place, u64::MAX, u64::MAX)));
        assert!(digest.to_text().contains(&u64::MAX.to_string()), "{}", digest.to_text());
        check(&digest.to_html());
    }

    proptest! {
        #[test]
        fn hostile_text_adds_no_line_or_markup(evil in hostile(), other in hostile()) {
            let mut report = like(1, 1, 0);
            report.request.as_mut().unwrap().route = Some(evil.clone());
            report.process.hostname = other.clone();
            report.process.service = Some(evil.clone());
            (report.id, report.fingerprint) = (other.clone(), evil.clone());
            report.location.as_mut().unwrap().function = Some(other);
            let digest = Digest::of(&report);
            check(&digest.to_html());
            prop_assert_eq!(digest.to_text().lines().count(), 12);
            prop_assert!(digest.subject().chars().count() <= 150);
        }
    }
}
