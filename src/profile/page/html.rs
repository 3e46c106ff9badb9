//! The building blocks of a profile's pages.

use super::context::Context;
use crate::text::html::Html;
use crate::text::page::{PageHead, policy_in_page};

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

    fn begin(title: &str, more: &'static str, asks: bool, context: &Context<'_>) -> Self {
        let policy = policy_in_page(context.nonce, asks);
        Self::begin_page(PageHead {
            title,
            nonce: context.nonce,
            policy: &policy,
            more,
            style: STYLE,
            max_text: MAX_TEXT,
        })
    }

    /// Begins a part of a page.
    pub(super) fn fragment() -> Self {
        Self::new(MAX_TEXT)
    }

    /// Writes a link to the URL with that value of the flag.
    pub(super) fn link(&mut self, context: &Context<'_>, value: &str, text: &str) -> &mut Self {
        self.raw("<a href=\"").text(&context.link(value)).raw("\">").text(text).raw("</a>")
    }
}
