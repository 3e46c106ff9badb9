//! The building blocks of a profile's pages.

use super::context::{Context, in_page};
use crate::text::html::Html;

/// The most characters of one text.
const MAX_TEXT: usize = 2_000;

const STYLE: &str = include_str!("page.css");

impl Html {
    /// Begins a page with this title.
    pub(super) fn page(title: &str, context: &Context<'_>) -> Self {
        Self::begin(title, "", false, context)
    }

    /// Begins a page whose script asks for news. Without a script, the browser loads the page every 2 seconds.
    pub(super) fn asking_page(title: &str, context: &Context<'_>) -> Self {
        Self::begin(title, "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>", true, context)
    }

    fn begin(title: &str, head: &'static str, asks: bool, context: &Context<'_>) -> Self {
        let mut html = Self::new(MAX_TEXT);
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

    pub(super) fn finish_page(mut self) -> String {
        self.raw("</body></html>\n");
        self.into_markup()
    }

    /// Begins a part of a page.
    pub(super) fn fragment() -> Self {
        Self::new(MAX_TEXT)
    }

    /// Writes a link to the URL with that value of the flag.
    pub(super) fn link(&mut self, context: &Context<'_>, value: &str, text: &str) -> &mut Self {
        self.raw("<a href=\"").text(&context.link(value)).raw("\">").text(text).raw("</a>")
    }

    /// Writes a script of this program.
    pub(super) fn script(&mut self, script: &'static str, nonce: &str) -> &mut Self {
        self.raw("<script nonce=\"").text(nonce).raw("\">").raw(script).raw("</script>")
    }
}
