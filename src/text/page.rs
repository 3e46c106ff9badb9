//! The frame of a page: what profiles and the console have in common.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderName, HeaderValue};

use super::html::Html;

/// The beginning of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageHead<'a> {
    pub(crate) title: &'a str,
    /// Identifies the page's own scripts and styles: see [`nonce`].
    pub(crate) nonce: &'a str,
    /// The page's policy, which it states itself, for a page that is a file has no header.
    pub(crate) policy: &'a str,
    /// More elements of the head.
    pub(crate) more: &'static str,
    pub(crate) style: &'static str,
    /// The most characters of one text.
    pub(crate) max_text: usize,
}

impl Html {
    pub(crate) fn begin_page(head: PageHead<'_>) -> Self {
        let mut html = Self::new(head.max_text);
        html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(head.title);
        html.raw("</title><meta http-equiv=\"Content-Security-Policy\" content=\"").text(head.policy);
        html.raw("\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
        html.raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">");
        html.raw("<meta name=\"format-detection\" content=\"telephone=no\"><link rel=\"icon\" href=\"data:,\">");
        html.raw(head.more).raw("<style nonce=\"").text(head.nonce).raw("\">").raw(head.style);
        html.raw("</style></head>\n<body>\n");
        html
    }

    pub(crate) fn finish_page(mut self) -> String {
        self.raw("</body></html>\n");
        self.into_markup()
    }

    /// Writes a script of this program.
    pub(crate) fn script(&mut self, script: &'static str, nonce: &str) -> &mut Self {
        self.raw("<script nonce=\"").text(nonce).raw("\">").raw(script).raw("</script>")
    }
}

/// Returns a number for one use: 128 random bits.
///
/// # Errors
///
/// Returns an error if the system has no randomness.
pub(crate) fn nonce() -> Result<String, getrandom::Error> {
    use base64::Engine as _;

    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The policy of what is no page: a document, a download.
pub(crate) const NO_PAGE: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

/// The policy of a picture that has a script of its own: no network, no origin.
pub(crate) const PICTURE: &str = concat!(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; ",
    "form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts allow-modals"
);

/// Returns the part of a page's policy that the page states itself. A page that sends no requests has no network, nor
/// have the frames in it.
pub(crate) fn policy_in_page(nonce: &str, asks: bool) -> String {
    let connect = if asks { " connect-src 'self';" } else { "" };
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:;{connect} \
         base-uri 'none'; form-action 'self'"
    )
}

/// Returns the headers that all answers of heeler's pages have. They are kept nowhere, and shown in no frame.
pub(crate) fn fixed_headers(content_type: &'static str) -> [(HeaderName, HeaderValue); 6] {
    const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

    [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With no referrer at all, a browser would not say which page cancels, either.
        (REFERRER_POLICY, "same-origin"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        // The same as in the policy, for browsers that do not know it.
        (X_FRAME_OPTIONS, "DENY"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}
