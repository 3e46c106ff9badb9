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
//! This reads the server from the environment, with [`from_env`](Email::from_env), and writes files during development:
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
//! The URL's scheme says how the connection is encrypted: see [`from_url`](Email::from_url). `smtp://` uses STARTTLS
//! and sends nothing without it. `smtps://` encrypts from the first byte on. `smtp+plaintext://` doesn't encrypt, for a
//! relay on this machine or in a network that nobody else can read. With `smtp+plaintext://`, a user and a password are
//! only sent to this machine (`localhost` or a loopback address).
//!
//! # What a mail contains
//!
//! - **Subject**: verdict, how long, method, route and host.
//! - **Text**: the page of the report directory, [`Report::to_text`], word for word, and the same as
//!   [HTML](crate::Report::to_html), without images, scripts or anything that is fetched.
//! - **Attached**: the report as JSON, `<id>.json`, and its flamegraph, `timeline.svg`. An attachment of more than 4
//!   MiB is left out.
//! - **Headers**: `Date` is when the stacks were taken. `Auto-Submitted` and `X-Auto-Response-Suppress` prevent
//!   out-of-office replies. `X-Heeler-Fingerprint` is there to filter by.
//!
//! A mail contains only what is in the [report](crate::report#privacy): no body, no credentials, no cookie. Nothing in
//! a request can become a header, a recipient or a part of the mail. The server's password never appears in a log,
//! error or `Debug` output. Of a server's answer to a password, only the code is shown.
//!
//! # Conversations
//!
//! Reports of one [incident](crate::Report::incident) are one conversation: later mails are replies to the first. After a
//! restart the first mail is no longer known. All of them refer to the same beginning, the Message-ID of a mail that was
//! never sent, made of service, incident and the sender's domain. Most mail programs keep the mails
//! together by it. Some also require equal subjects, and show each mail by itself.
//!
//! An [update](crate::Report::update) of a report is mailed as a reply if its verdict or its location differs from
//! those of the last mail about it. Otherwise it has no news, and counts as delivered. The last update, which says how
//! the work has [ended](crate::Report::ending), is mailed if [`Email::endings`] asks for it.
//!
//! # What is delivered
//!
//! With a [spool](crate::ReportsBuilder::spool), every report is delivered at least once, until
//! [`retry_for`](crate::ReportsBuilder::retry_for) is over. If a connection breaks after the whole mail was sent and
//! before the server's answer, the mail may or may not have been taken. It is sent again, with the same Message-ID.
//!
//! | what happens | what follows |
//! |---|---|
//! | the server cannot be reached, does not answer, or breaks off | tried again |
//! | it answers 4xx, "not now" | tried again, for those recipients that don't have the mail |
//! | it answers 5xx to one of several recipients | the others get the mail; a line in the log |
//! | it answers 5xx to all recipients, or to the mail | the report is given up for this sink; the log has the answer |
//! | it refuses user and password, or any connection | tried again: the mail isn't at fault, and the cause may be fixed |
//! | its certificate cannot be trusted | tried again, because certificates are renewed; nothing is sent, no password |
//! | it offers no STARTTLS | tried again; nothing is sent, no password |
//!
//! If a mail is refused as a whole with 5xx, it is sent to each recipient alone, because one of them may be the reason.
//! Each step has a [timeout](Email::timeout), and so does the whole attempt. A connection is kept for ten seconds for
//! the next mail. If the server has closed it meanwhile, another is made at once.
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
