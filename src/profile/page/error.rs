//! The page that explains why there is no other page.

use super::context::Context;
use super::result::top;
use crate::text::html::Html;

/// Says what went wrong, in a few words and in a sentence.
pub(crate) fn error(what: &str, why: &str, context: &Context<'_>) -> String {
    let mut html = Html::page(what, context);
    top(&mut html, context, false);
    html.raw("<main><h1>").text(what).raw("</h1>\n<p class=\"end\">").isolated(why).raw("</p>\n");
    if context.links {
        html.raw("<p><a href=\"").text(&context.plain()).raw("\">This URL without a profile</a></p>\n");
    }
    html.raw("</main>\n");
    html.finish_page()
}
