//! A digest as text and as HTML.

use super::markup::Html;
use super::text::Text;
use super::units::{count, duration};
use crate::report::digest::Digest;
use crate::report::time::timestamp;

impl Digest {
    /// The digest as a page of text: the period, how many reports, and the places, the most frequent first.
    pub(crate) fn to_text(&self) -> String {
        let mut text = Text::default();
        text.line(0, &self.sum());
        text.line(0, "");
        text.line(2, &format!("from  {}", timestamp(self.since)));
        text.line(2, &format!("to    {}", timestamp(self.until)));
        if let Some(service) = &self.service {
            text.line(2, &format!("service  {service}"));
        }
        for entry in self.entries() {
            text.line(0, "");
            text.line(2, &format!("{} times {}: {}", entry.count, entry.verdict, entry.what));
            if let Some(place) = &entry.place {
                text.line(4, place);
            }
            text.line(4, &format!("worst {}, report {}", duration(entry.worst_ms), entry.worst_id));
            text.line(4, &format!("fingerprint {}", entry.fingerprint));
        }
        if self.others > 0 {
            text.line(0, "");
            text.line(2, &format!("and {} about other places", count(self.others, "report")));
        }
        text.finish()
    }

    /// The same as HTML for mail clients.
    pub(crate) fn to_html(&self) -> String {
        let mut html = Html::new();
        html.raw("<pre>");
        html.text(&self.to_text());
        html.raw("</pre>");
        html.finish()
    }
}
