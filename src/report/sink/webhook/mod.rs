//! Reports by HTTP: as JSON, or as a message for Slack and what understands its messages.

mod body;
mod remote;
mod settings;
mod sign;
mod slack;

pub use settings::Webhook;
