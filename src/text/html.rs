//! HTML in which everything from outside is escaped.
//!
//! The contents of a page are next to what the page is for: messages with reports in `report/render/markup.rs`, pages
//! of profiles in `profile/page/html.rs`.

use std::fmt::{Display, Write as _};

use super::escape;

/// HTML under construction. Whatever isn't a literal in this program goes through [`text`](Self::text).
#[derive(Debug)]
pub(crate) struct Html {
    markup: String,
    /// The limit for one text, in characters.
    max_text: usize,
}

impl Html {
    /// Creates an empty document. Up to `max_text` characters of each text are kept.
    pub(crate) fn new(max_text: usize) -> Self {
        Self { markup: String::new(), max_text }
    }

    /// Returns the markup.
    pub(crate) fn into_markup(self) -> String {
        self.markup
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.markup.len()
    }

    /// Appends markup that is written in this program.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.markup.push_str(markup);
        self
    }

    /// Appends text from anywhere, safe in an element and in a quoted attribute.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.push(&escape(text, self.max_text))
    }

    /// Appends text that is as long as it is, with its lines.
    #[cfg(feature = "console")]
    pub(crate) fn whole(&mut self, text: &str) -> &mut Self {
        for (number, line) in text.lines().enumerate() {
            if number > 0 {
                self.markup.push('\n');
            }
            self.push(&escape(line, usize::MAX));
        }
        self
    }

    /// Appends text from anywhere, isolated so that its direction doesn't affect the text around it.
    pub(crate) fn isolated(&mut self, text: &str) -> &mut Self {
        self.raw("<bdi>").text(text).raw("</bdi>")
    }

    /// Appends a number, or something else that is displayed in few characters.
    pub(crate) fn number(&mut self, number: impl Display) -> &mut Self {
        self.push(&number.to_string())
    }

    /// Appends a document as the value of an attribute in single quotes.
    pub(crate) fn document(&mut self, document: &str) -> &mut Self {
        self.markup.reserve(document.len() + document.len() / 16);
        for c in document.chars() {
            match c {
                '&' => self.markup.push_str("&amp;"),
                '\'' => self.markup.push_str("&#39;"),
                c => self.markup.push(c),
            }
        }
        self
    }

    /// Appends a URL as the value of an attribute in double quotes. Nothing is cut, because half a URL is of no use.
    pub(crate) fn url(&mut self, url: &str) -> &mut Self {
        self.push(url)
    }

    /// Appends a picture that inferno has drawn and escaped.
    pub(crate) fn svg(&mut self, svg: &str) -> &mut Self {
        self.markup.push_str(svg);
        self
    }

    /// Appends markup that another `Html` has made.
    #[cfg(feature = "console")]
    pub(crate) fn append(&mut self, markup: &str) -> &mut Self {
        self.markup.push_str(markup);
        self
    }

    /// Writes items as long as they fit into `room` bytes, then says how many did not.
    pub(crate) fn fit<T>(
        &mut self,
        room: usize,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> usize {
        let end = self.markup.len() + room;
        let mut items = items.into_iter();
        for item in &mut items {
            let before = self.markup.len();
            write(self, item);
            if self.markup.len() > end {
                self.markup.truncate(before);
                return 1 + items.count();
            }
        }
        0
    }

    fn push(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '<' => self.markup.push_str("&lt;"),
                '>' => self.markup.push_str("&gt;"),
                '&' => self.markup.push_str("&amp;"),
                '"' => self.markup.push_str("&quot;"),
                '\'' => self.markup.push_str("&#39;"),
                c => {
                    // Writing to a string cannot fail.
                    let _ = self.markup.write_char(c);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_do_not_fit_are_counted() {
        let mut html = Html::new(100);
        let left = html.fit(10, ["12345", "12345", "1", "1"], |html, item| {
            html.text(item);
        });
        assert_eq!((left, html.len()), (2, 10));
    }

    #[test]
    fn text_is_escaped_and_cut() {
        let mut html = Html::new(8);
        html.raw("<b>").text("<&\"'>").number(7).document("it's & <b>");
        assert_eq!(html.into_markup(), "<b>&lt;&amp;&quot;&#39;&gt;7it&#39;s &amp; <b>");
        let mut html = Html::new(8);
        html.text("12345678x");
        assert!(!html.into_markup().contains('x'), "cut");
    }
}
