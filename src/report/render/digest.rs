//! A digest as text and as HTML.

use super::markup::{Colour, Html};
use super::page::Fact;
use super::text::Text;
use super::units::{count, duration};
use crate::report::digest::{Digest, Entry};
use crate::report::time::timestamp;

/// How many places are shown, of those that were seen most often.
const MAX_SHOWN: usize = 40;

/// How many bytes the places may have in HTML: see [`Report::to_html`](crate::Report::to_html).
const ENTRIES: usize = 70_000;

impl Digest {
    /// The digest as a page of text: the period, how many reports, and the places, the most frequent first.
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

    /// The same as HTML for mail clients, with a bar for each place.
    pub(crate) fn to_html(&self) -> String {
        let mut html = Html::page(&self.subject());
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
        html.finish()
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
        facts
    }

    /// What is not shown, the last `left` of the shown among it.
    fn rest(&self, left: usize) -> Option<String> {
        let entries = self.entries();
        let rest = &entries[entries.len().min(MAX_SHOWN).saturating_sub(left)..];
        let reports = rest.iter().map(|entry| entry.count).sum::<u64>() + self.others;
        (reports > 0).then(|| format!("… and {} about other places", count(reports, "report")))
    }
}

/// `20 × waiting: GET /slow/{what}`.
fn headline(entry: &Entry) -> String {
    format!("{} × {}: {}", entry.count, entry.verdict, entry.what)
}

fn details(entry: &Entry) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(place) = &entry.place {
        facts.push(("in", place.clone()));
    }
    facts.push(("worst", format!("{}, report {}", duration(entry.worst_ms), entry.worst_id)));
    facts.push(("fingerprint", entry.fingerprint.clone()));
    facts
}
