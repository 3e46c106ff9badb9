//! From a report to the bytes of a mail.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::Message;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, MultiPart, SinglePart};

use super::thread::Place;
use crate::report::sink::directory::file_id;
use crate::report::{Digest, Report};
use crate::text::escape::escape;

/// A larger attachment, in bytes, is left out, because a mail that a server refuses for its size is useless.
const MAX_ATTACHMENT: usize = 4 << 20;

/// The longest subject, in characters.
const MAX_SUBJECT: usize = 300;

/// What all mails of a sink have in common.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) subject_prefix: String,
}

/// The content of one mail.
struct Content<'a> {
    subject: String,
    place: &'a Place,
    date: SystemTime,
    fingerprint: Option<&'a str>,
    text: String,
    html: String,
    attachments: Vec<(String, &'static str, Vec<u8>)>,
}

impl Messages {
    /// Creates the mail about a report.
    pub(super) fn report(&self, report: &Report, place: &Place) -> Result<Vec<u8>, lettre::error::Error> {
        // The mail that an ending replies to has them.
        let attachments = match report.ending {
            Some(_) => Vec::new(),
            None => vec![
                (format!("{}.json", file_id(report)), "application/json", report.to_json().into_bytes()),
                ("timeline.svg".to_owned(), "image/svg+xml", report.to_svg().into_bytes()),
            ],
        };
        self.compose(Content {
            subject: report.subject(),
            place,
            date: report.told_at(),
            fingerprint: Some(&report.fingerprint),
            text: report.to_text(),
            html: report.to_html(),
            attachments,
        })
    }

    /// Creates the mail about a digest.
    pub(super) fn digest(&self, digest: &Digest, place: &Place) -> Result<Vec<u8>, lettre::error::Error> {
        self.compose(Content {
            subject: digest.subject(),
            place,
            date: digest.until,
            fingerprint: None,
            text: digest.to_text(),
            html: digest.to_html(),
            attachments: Vec::new(),
        })
    }

    /// Returns `<5cf400b2380cbd97.0@example.com>`: the same whenever the mail about this update is made.
    pub(super) fn report_id(&self, report: &Report) -> String {
        format!("<{}.{}@{}>", file_id(report), report.update, self.domain())
    }

    /// Returns the same id whenever the same digest is sent.
    pub(super) fn digest_id(&self, digest: &Digest) -> String {
        let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (since, until, domain) = (millis(digest.since), millis(digest.until), self.domain());
        format!("<digest.{since}.{until}.{}.{:016x}@{domain}>", digest.reports, hash(&[&digest.hostname]))
    }

    /// Returns the id of a mail that is never sent, which all mails about one incident in one service refer to. It
    /// outlives the process.
    pub(super) fn root_id(&self, report: &Report) -> String {
        let service = report.process.service.as_deref().unwrap_or_default();
        format!("<place.{:016x}@{}>", hash(&[service, report.conversation()]), self.domain())
    }

    /// Returns the sender's domain, which was checked to be a plain one.
    fn domain(&self) -> &str {
        self.from.email.domain().trim_matches(['[', ']'])
    }

    fn compose(&self, content: Content<'_>) -> Result<Vec<u8>, lettre::error::Error> {
        let subject = format!("{}{}", self.subject_prefix, content.subject);
        let mut message = Message::builder()
            .from(self.from.clone())
            // A mail program would decode what looks encoded, and a request could make it say anything.
            .subject(escape(&subject, MAX_SUBJECT).replace("=?", "= ?"))
            .date(told(content.date))
            .message_id(Some(content.place.message_id.clone()))
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"));
        for to in &self.to {
            message = message.to(to.clone());
        }
        if let Some(fingerprint) = content.fingerprint {
            let fingerprint: String = fingerprint.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
            message = message.raw_header(header("X-Heeler-Fingerprint", &fingerprint));
        }
        if let Some(id) = &content.place.in_reply_to {
            message = message.in_reply_to(id.clone());
        }
        if !content.place.references.is_empty() {
            message = message.references(content.place.references.join(" "));
        }
        let both = MultiPart::alternative()
            .singlepart(SinglePart::plain(lines(content.text)))
            .singlepart(SinglePart::html(lines(content.html)));
        let mut all = MultiPart::mixed().multipart(both);
        for (name, kind, bytes) in content.attachments {
            if bytes.len() <= MAX_ATTACHMENT
                && let Ok(kind) = ContentType::parse(kind)
                && let Ok(body) = Body::new_with_encoding(bytes, ContentTransferEncoding::Base64)
            {
                all = all.singlepart(Attachment::new(name).body(body, kind));
            }
        }
        Ok(message.multipart(all)?.formatted())
    }
}

/// Creates a header from a value of our own: ASCII, without a line end.
fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Converts line ends to those of mails, in one pass.
fn lines(text: String) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                out.push_str(line.strip_suffix('\r').unwrap_or(line));
                out.push_str("\r\n");
            }
            None => out.push_str(line),
        }
    }
    out
}

/// Returns a date that a mail can have. A clock before 1970 or after 9999 is wrong, but that is no reason to fail.
fn told(time: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    UNIX_EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST)
}

/// FNV-1a, because the hash must be the same in every version of this program.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
