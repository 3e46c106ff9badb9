//! Mails through a real server, read back from the mailbox: run by `.ci/postfix`, which starts one. Skipped without it.
#![cfg(feature = "watchdog")]
#![cfg(feature = "email")]

mod common;

use std::path::PathBuf;

use common::{PATIENCE, collect_with, ms, runtime, until};
use heeler::report::Report;
use heeler::{Email, Reports};
use mail_parser::{Message, MessageParser, MimeHeaders};

const FROM: &str = "Watchdog <watchdog@heeler.test>";
const TO: [&str; 2] = ["oncall@heeler.test", "nobody-of-that-name@elsewhere.test"];

struct Postfix {
    host: String,
    port: u16,
    /// A maildir.
    mailbox: PathBuf,
    /// PEM; without it, the conversation is in plaintext.
    root: Option<Vec<u8>>,
    /// Its `sendmail`.
    sendmail: Option<PathBuf>,
}

impl Postfix {
    fn find() -> Option<Self> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(server), Some(mailbox)) = (get("HEELER_TEST_SMTP"), get("HEELER_TEST_MAILBOX")) else {
            println!("skipped: HEELER_TEST_SMTP (host:port) and HEELER_TEST_MAILBOX (a maildir) are not set");
            return None;
        };
        let (host, port) = server.rsplit_once(':').expect("host:port");
        Some(Self {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            mailbox: mailbox.into(),
            root: get("HEELER_TEST_ROOT").map(|path| std::fs::read(path).unwrap()),
            sendmail: get("HEELER_TEST_SENDMAIL").map(PathBuf::from),
        })
    }

    fn email(&self) -> Email {
        let email = Email::smtp(&*self.host, FROM, [TO[0]]).port(self.port);
        match &self.root {
            Some(root) => email.root_certificate(root.clone()),
            None => email.plaintext(),
        }
    }

    /// The mail with this Message-ID, once it is in the mailbox.
    #[track_caller]
    fn mail(&self, id: &str) -> Vec<u8> {
        let mut found = None;
        until("the mail is in the mailbox", || {
            let entries = std::fs::read_dir(self.mailbox.join("new"));
            for entry in entries.into_iter().flatten() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                if parse(&bytes).message_id() == Some(id) {
                    found = Some(bytes);
                }
            }
            found.is_some()
        });
        found.unwrap()
    }
}

fn parse(bytes: &[u8]) -> Message<'_> {
    MessageParser::default().parse(bytes).unwrap()
}

fn id(report: &Report) -> String {
    format!("{}.{}@heeler.test", report.id, report.update)
}

/// The report of a job that is slow, and that it was mailed.
fn mailed(email: Email, job: &str) -> (Report, Reports) {
    let (collected, reports) = collect_with(|builder| builder.email(email));
    let slow = collected.reported(|_| true);
    runtime(0).block_on(heeler::watch(job.to_owned(), ms(300), slow).reports(reports.clone()));
    let report = collected.first();
    assert!(reports.blocking_flush(PATIENCE));
    (report, reports)
}

fn check(mail: &Message<'_>, report: &Report) {
    assert_eq!(mail.body_text(0).unwrap().replace("\r\n", "\n"), report.to_text());
    assert_eq!(mail.body_html(0).unwrap().replace("\r\n", "\n"), report.to_html());
    assert_eq!(mail.attachment_count(), 2);
    let parsed: Report = serde_json::from_slice(mail.attachment(0).unwrap().contents()).unwrap();
    assert_eq!(parsed.id, report.id);
    assert_eq!(mail.attachment(1).unwrap().attachment_name(), Some("timeline.svg"));
}

/// Guards: what a mail program gets through a real server is what was sent, with one mail per report.
#[test]
fn mail_arrives_unchanged_over_smtp() {
    let Some(postfix) = Postfix::find() else { return };
    let (report, reports) = mailed(postfix.email(), "a job with\r\nlines, .dots and Größe");
    assert_eq!(reports.stats().failed_deliveries, 0);
    let bytes = postfix.mail(&id(&report));
    let mail = parse(&bytes);
    check(&mail, &report);
    assert!(mail.subject().unwrap().contains("Größe"), "{:?}", mail.subject());
    assert_eq!(mail.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    let received = mail.header_raw("Received").unwrap();
    assert_eq!(received.contains("TLS"), postfix.root.is_some(), "{received}");
}

/// Guards: if a real server refuses one recipient, the others get the mail.
#[test]
fn one_refused_recipient_does_not_stop_the_mail() {
    let Some(postfix) = Postfix::find() else { return };
    let (report, reports) = mailed(postfix.email().to(TO), "for two");
    assert_eq!((reports.stats().failed_deliveries, reports.stats().undelivered), (0, 0));
    check(&parse(&postfix.mail(&id(&report))), &report);
    let (_, reports) = mailed(postfix.email().to([TO[1]]), "for one who is not there");
    assert!(reports.stats().undelivered > 0);
}

#[test]
fn mail_arrives_unchanged_through_sendmail() {
    let Some(postfix) = Postfix::find() else { return };
    let Some(sendmail) = &postfix.sendmail else { return println!("skipped: HEELER_TEST_SENDMAIL is not set") };
    let (report, reports) = mailed(Email::sendmail(FROM, [TO[0]]).command(sendmail), "by sendmail");
    assert_eq!(reports.stats().failed_deliveries, 0);
    check(&parse(&postfix.mail(&id(&report))), &report);
}
