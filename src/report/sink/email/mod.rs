//! Reports as mails.

mod files;
mod letter;
mod mailer;
mod sendmail;
mod settings;
mod smtp;
mod thread;
mod url;

pub use settings::Email;
