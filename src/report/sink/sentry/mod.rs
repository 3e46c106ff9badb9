//! Reports as Sentry events.

mod event;
mod request;
mod sink;
mod stacks;

pub use sink::Sentry;

/// The event, as text.
#[cfg(test)]
pub(super) fn printed(report: &crate::report::Report) -> String {
    let event = event::event(report, &::sentry::ClientOptions::new());
    format!("{} {event:?}", serde_json::to_string(&event).unwrap())
}
