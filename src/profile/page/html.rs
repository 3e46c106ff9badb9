//! HTML, written so that nothing from outside gets into it unescaped.

use std::fmt::{Display, Write as _};

use super::context::{Context, in_page};
use crate::text::escape::escape;

/// The most of one text, in characters.
const MAX_TEXT: usize = 2_000;

const STYLE: &str = include_str!("page.css");

/// HTML in the making. What is not literal in this program goes through [`text`](Self::text).
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// A page with this title, up to the beginning of what it says.
    pub(super) fn page(title: &str, context: &Context<'_>) -> Self {
        Self::begin(title, "", false, context)
    }

    /// A page whose script asks for what is new. Where there is no script, the browser loads the page every 2 seconds.
    pub(super) fn asking_page(title: &str, context: &Context<'_>) -> Self {
        Self::begin(title, "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>", true, context)
    }

    fn begin(title: &str, head: &'static str, asks: bool, context: &Context<'_>) -> Self {
        let mut html = Self::default();
        html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title);
        html.raw("</title><meta http-equiv=\"Content-Security-Policy\" content=\"").text(&in_page(context.nonce, asks));
        html.raw("\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
        html.raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">");
        html.raw("<meta name=\"format-detection\" content=\"telephone=no\"><link rel=\"icon\" href=\"data:,\">");
        html.raw(head)
            .raw("<style nonce=\"")
            .text(context.nonce)
            .raw("\">")
            .raw(STYLE)
            .raw("</style></head>\n<body>\n");
        html
    }

    pub(super) fn finish(mut self) -> String {
        self.raw("</body></html>\n");
        self.0
    }

    /// Markup that is written in this program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, safe in an element and in a quoted attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.push(&escape(text, MAX_TEXT))
    }

    /// Text from anywhere that takes no part in the direction of what is around it.
    pub(super) fn isolated(&mut self, text: &str) -> &mut Self {
        self.raw("<bdi>").text(text).raw("</bdi>")
    }

    /// A number, or something else that is displayed without a character that means something to HTML.
    pub(super) fn number(&mut self, number: impl Display) -> &mut Self {
        self.push(&number.to_string())
    }

    /// A document, as the value of an attribute in single quotes.
    pub(super) fn document(&mut self, document: &str) -> &mut Self {
        self.0.reserve(document.len() + document.len() / 16);
        for c in document.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A link to where the flag has that value.
    pub(super) fn link(&mut self, context: &Context<'_>, value: &str, text: &str) -> &mut Self {
        self.raw("<a href=\"").text(&context.link(value)).raw("\">").text(text).raw("</a>")
    }

    /// A script of this program.
    pub(super) fn script(&mut self, script: &'static str, nonce: &str) -> &mut Self {
        self.raw("<script nonce=\"").text(nonce).raw("\">").raw(script).raw("</script>")
    }

    /// A picture that inferno has drawn, and escaped.
    pub(super) fn svg(&mut self, svg: &str) -> &mut Self {
        self.0.push_str(svg);
        self
    }

    /// What has no beginning of a page.
    pub(super) fn finish_fragment(self) -> String {
        self.0
    }

    fn push(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => {
                    // Writing to a string cannot fail.
                    let _ = self.0.write_char(c);
                }
            }
        }
        self
    }
}
