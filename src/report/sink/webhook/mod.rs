//! Reports by HTTP: as JSON, or as a message for Slack and services that accept Slack's messages.

mod body;
mod post;
mod settings;
mod sign;
mod slack;

pub use settings::Webhook;

/// Returns what is posted for a report, and for a digest, in each form.
#[cfg(test)]
pub(super) fn printed(report: &crate::report::Report, digest: &crate::report::Digest) -> String {
    let forms = [body::Form::Short, body::Form::Whole, body::Form::Slack];
    let bodies = forms.map(|form| [form.report(report).unwrap(), form.digest(digest).unwrap()].concat());
    String::from_utf8(bodies.concat()).unwrap()
}
