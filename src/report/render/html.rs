//! The report as HTML for mail clients.

use super::markup::Html;
use crate::report::Report;

impl Report {
    /// The report as a small page of HTML that mail clients show: no script, no image, nothing loaded from elsewhere.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut html = Html::new();
        html.raw("<pre>");
        html.text(&self.to_text());
        html.raw("</pre>");
        html.finish()
    }
}
