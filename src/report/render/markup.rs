//! HTML, written so that nothing from outside gets into it unescaped.

/// HTML in the making. What is not literal in this program goes through [`text`](Self::text).
#[derive(Debug)]
pub(super) struct Html(String);

impl Html {
    pub(super) fn new() -> Self {
        Self("<!doctype html><html><body>".to_owned())
    }

    pub(super) fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    pub(super) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</body></html>");
        self.0
    }
}
