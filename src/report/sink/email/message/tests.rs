use lettre::message::Mailbox;
use mail_parser::{Message, MessageParser};
use proptest::prelude::*;

use super::*;
use crate::report::model::Span;
use crate::report::testing::report;

fn messages(subject_prefix: &str) -> Messages {
    let mailbox = |text: &str| -> Mailbox { text.parse().unwrap() };
    let to = vec![mailbox("one@example.com"), mailbox("Zwei äöü <two@example.com>")];
    Messages { from: mailbox("Watchdog <watchdog@example.com>"), to, subject_prefix: subject_prefix.to_owned() }
}

fn place(messages: &Messages, report: &Report) -> Place {
    let message_id = messages.report_id(report);
    let first = "<first@example.com>".to_owned();
    Place { message_id, in_reply_to: Some(first.clone()), references: vec![messages.root_id(report), first] }
}

/// Returns the names of a mail's headers, in order. The continuation of a line is a part of it.
fn names(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    lines.map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

fn parts(mail: &Message<'_>) -> Vec<String> {
    mail.parts
        .iter()
        .map(|part| part.headers.iter().map(|header| header.name().to_ascii_lowercase()).collect::<Vec<_>>().join(","))
        .collect()
}

/// Text that a request may contain, most of it hostile.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\nBcc: evil@example.com\r\n".to_owned()),
        Just("\n\n<script>".to_owned()),
        Just("\r\n.\r\nMAIL FROM:<evil@example.com>\r\n".to_owned()),
        Just("\0".to_owned()),
        Just("=?utf-8?q?=0D=0ABcc:_evil@example.com?=".to_owned()),
        Just("x".repeat(1_200)),
        Just("ä".repeat(700)),
        Just("\u{202e}\u{feff}\u{2028}\u{85}".to_owned()),
        any::<String>(),
        "[ -~]{0,40}",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Guards: whatever a request contains, a mail has its own headers and parts and no others, in lines that every
    /// server accepts.
    #[test]
    fn nothing_in_a_request_becomes_a_header(
        texts in proptest::collection::vec(hostile(), 11),
        job in any::<bool>(),
    ) {
        let mut report = report();
        let [uri, route, method, host, job_name, service, prefix, id, fingerprint, span, note] = &texts[..] else {
            unreachable!()
        };
        let request = report.request.as_mut().unwrap();
        (request.uri, request.route, request.method) = (uri.clone(), Some(route.clone()), method.clone());
        request.headers.push(("user-agent".to_owned(), span.clone()));
        if job {
            (report.request, report.job) = (None, Some(job_name.clone()));
        }
        (report.process.hostname, report.process.service) = (host.clone(), Some(service.clone()));
        (report.id, report.fingerprint) = (id.clone(), fingerprint.clone());
        report.spans = vec![Span { name: span.clone(), fields: vec![(uri.clone(), span.clone())] }];
        report.notes.push(note.clone());

        let messages = messages(prefix);
        let place = place(&messages, &report);
        let bytes = messages.report(&report, &place).unwrap();

        let expected = [
            "From", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "To",
            "X-Heeler-Fingerprint", "In-Reply-To", "References", "MIME-Version", "Content-Type",
        ];
        let mut seen = names(&bytes);
        let mut expected = expected.map(str::to_owned).to_vec();
        seen.sort();
        expected.sort();
        prop_assert_eq!(seen, expected);
        prop_assert!(bytes.is_ascii());
        let text = std::str::from_utf8(&bytes).unwrap();
        prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])));

        let mail = MessageParser::default().parse(&bytes).unwrap();
        prop_assert_eq!(mail.headers().len(), 12);
        prop_assert_eq!(mail.parts.len(), 6, "{:?}", parts(&mail));
        prop_assert_eq!(mail.attachment_count(), 2);
        prop_assert!(mail.bcc().is_none() && mail.cc().is_none());
        prop_assert_eq!(mail.to().unwrap().iter().count(), 2);
        let subject = mail.subject().unwrap();
        prop_assert!(!subject.contains(crate::text::escape::is_unsafe), "{subject:?}");
        let whole = format!("{prefix}{}", report.subject());
        let whole = escape(&whole, MAX_SUBJECT).replace("=?", "= ?");
        // Where a long header is folded, several spaces in a row may become fewer, or none between encoded words.
        let words = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(words(subject), words(&whole));
        let lines = |text: &str| text.replace("\r\n", "\n");
        prop_assert_eq!(lines(&mail.body_text(0).unwrap()), report.to_text());
        let json = report.to_json();
        prop_assert_eq!(mail.attachment(0).unwrap().contents(), json.as_bytes());
        let message_id = mail.message_id().unwrap();
        prop_assert_eq!(format!("<{message_id}>"), &*place.message_id);
        prop_assert!(message_id.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_@".contains(&c)), "{message_id}");
    }
}

/// Guards: a wrong clock doesn't prevent a mail.
#[test]
fn any_time_has_a_date() {
    let messages = messages("");
    let times = [UNIX_EPOCH - Duration::from_secs(1 << 33), UNIX_EPOCH + Duration::from_secs(1 << 40)];
    for time in times {
        let report = Report { captured_at: time, ..report() };
        let bytes = messages.report(&report, &place(&messages, &report)).unwrap();
        assert!(MessageParser::default().parse(&bytes).unwrap().date().is_some());
        let digest = Digest::of(&report);
        assert!(messages.digest_id(&digest).starts_with("<digest."));
        let place = Place { message_id: messages.digest_id(&digest), in_reply_to: None, references: Vec::new() };
        assert!(MessageParser::default().parse(&messages.digest(&digest, &place).unwrap()).unwrap().date().is_some());
    }
}

/// Guards: ids tell reports and places apart. They are the same in the next process, so conversations outlive a
/// restart.
#[test]
fn message_ids_are_stable_and_distinct() {
    let messages = messages("");
    let with = |id: &str, update, fingerprint: &str, service: Option<&str>| {
        let mut report = Report { id: id.to_owned(), update, fingerprint: fingerprint.to_owned(), ..report() };
        report.process.service = service.map(str::to_owned);
        report
    };
    assert_eq!(messages.report_id(&with("5cf4", 0, "f", None)), "<5cf4.0@example.com>");
    assert_eq!(messages.report_id(&with("5cf4", 2, "f", None)), "<5cf4.2@example.com>");
    let root = |fingerprint, service| messages.root_id(&with("1", 0, fingerprint, service));
    assert_eq!(root("81d76b211c51e3c4", Some("photos")), "<place.891d875793b91c40@example.com>");
    assert_ne!(root("a", Some("photos")), root("b", Some("photos")));
    assert_ne!(root("a", Some("photos")), root("a", Some("videos")));
    assert_ne!(root("ab", Some("c")), root("b", Some("ca")));
}

/// Guards: a report of many megabytes is mailed without the parts that make it so large.
#[test]
fn large_attachments_are_left_out() {
    let messages = messages("");
    let report = Report { notes: vec!["x".repeat(MAX_ATTACHMENT)], ..report() };
    let bytes = messages.report(&report, &place(&messages, &report)).unwrap();
    let mail = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(mail.attachment_count(), 1);
}
