//! Reports as mails: by SMTP, by the system's `sendmail`, or into files.
//!
//! ```
//! use heeler::{Email, Reports};
//!
//! let mail = Email::smtp("smtp.example.com", "watchdog@example.com", ["oncall@example.com"])
//!     .credentials("watchdog", "correct horse battery staple");
//! let reports = Reports::builder().email(mail).build()?;
//! # Ok::<(), heeler::Error>(())
//! ```
//!
//! With the server in the environment, as [`from_env`](Email::from_env) reads it, and into files while one develops:
//!
//! ```no_run
//! use heeler::{Email, Reports};
//!
//! let mail = match std::env::var_os("HEELER_SMTP_URL") {
//!     Some(_) => Email::from_env()?.subject_prefix("[photos] "),
//!     None => Email::files("slow-mail"),
//! };
//! let reports = Reports::builder().email(mail).spool("/var/spool/my-service").build()?;
//! # Ok::<(), heeler::Error>(())
//! ```
//!
//! | variable | example |
//! |---|---|
//! | `HEELER_SMTP_URL` | `smtps://user:password@smtp.example.com:465`, `smtp://..` (STARTTLS), `smtp+plaintext://127.0.0.1` |
//! | `HEELER_MAIL_FROM` | `Watchdog <watchdog@example.com>` |
//! | `HEELER_MAIL_TO` | `oncall@example.com, archive@example.com` |
//!
//! The URL's scheme says how the connection is encrypted, see [`from_url`](Email::from_url): `smtp://` by STARTTLS, without which
//! nothing is sent, `smtps://` from the first byte on, and `smtp+plaintext://` not at all, for a relay on this machine or in a
//! network that nobody else can read. With the last one, a user and a password go to this machine alone (`localhost` or a loopback address).
//!
//! # What a mail holds
//!
//! - **Subject**: verdict, how long, method, route and host.
//! - **Text**: the page of the report directory, [`Report::to_text`], word for word; and the same as
//!   [HTML](crate::Report::to_html), without images, scripts or anything that is fetched.
//! - **Attached**: the report as JSON, `<id>.json`, and its flamegraph, `timeline.svg`. One of more than 4 MiB is left out.
//! - **Headers**: `Date` is when the stacks were taken. `Auto-Submitted` and `X-Auto-Response-Suppress` keep those who are on
//!   holiday from answering, `X-Heeler-Fingerprint` is there to filter by.
//!
//! Nothing is in a mail that is not in the [report](crate::report#privacy): no body, no credentials, no cookie. Nothing that
//! a request says can become a header, a recipient or a part of the mail. The password of the server is in no log, error or
//! `Debug`; of what a server says to a password, its code alone is told.
//!
//! # Conversations
//!
//! Reports with one [fingerprint](crate::Report::fingerprint) are one conversation: the second mail and those after it are
//! replies to the first. After a restart the first is not known any more; all of them refer to the same beginning (a
//! Message-ID made of service, fingerprint and the sender's domain, of a mail that was never sent), by which most mail
//! programs keep them together. Some also want subjects to be equal, and show each mail by itself.
//!
//! An [update](crate::Report::update) of a report is mailed as a reply if its verdict or its location differ from those of
//! the last mail about it. Otherwise it counts as delivered, for it has no news.
//!
//! # What is delivered
//!
//! Every report at least once, as far as there is a [spool](crate::ReportsBuilder::spool), until
//! [`retry_for`](crate::ReportsBuilder::retry_for) is over. If a connection breaks after the whole mail was sent and before
//! the server's answer, nobody knows whether it was taken: it is sent again, with the same Message-ID.
//!
//! | what happens | what follows |
//! |---|---|
//! | the server cannot be reached, does not answer, or breaks off | tried again |
//! | it answers 4xx, "not now" | tried again, for those recipients that do not have the mail |
//! | it answers 5xx to one of several recipients | the others get the mail; a line in the log |
//! | it answers 5xx to all recipients, or to the mail | the report is given up for this sink; the log has the answer |
//! | it refuses user and password, or a connection as such | tried again: it is us, not the mail, and may be set right |
//! | its certificate is not to be trusted | tried again, for certificates are renewed; nothing is sent, no password |
//! | it offers no STARTTLS | tried again; nothing is sent, no password |
//!
//! A mail refused as a whole with 5xx is sent to each recipient alone, for one of them may be the reason. Each step has a
//! [timeout](Email::timeout), and so has the whole. A connection is kept for ten seconds for the next mail; if the server has
//! closed it meanwhile, another is made at once.
//!
//! [`Report::to_text`]: crate::Report::to_text

mod files;
mod mailer;
mod message;
mod prepare;
mod sendmail;
mod settings;
mod smtp;
mod thread;
mod url;

pub use settings::Email;
