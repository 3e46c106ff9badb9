//! Reports as events of Sentry.

mod event;
mod request;
mod sink;
mod stacks;

pub use sink::Sentry;
