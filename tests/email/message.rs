//! What is in a mail.

use mail_parser::{Message, MimeHeaders};

use super::common::{self, PATIENCE, ms, runtime};
use super::server::{Rules, Server};
use super::{FROM, TO, mailed, plain, slow_request, wait_for_the_database};
use heeler::Email;

/// What a mail program says is the plain text, with the lines of a file.
fn text(mail: &Message<'_>) -> String {
    mail.body_text(0).unwrap().replace("\r\n", "\n")
}

/// A header as it stands there, unfolded.
fn header(mail: &Message<'_>, name: &str) -> Option<String> {
    mail.header_raw(name).map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Guards: a slow request leads to a mail that a mail program understands, part by part.
#[test]
fn the_mail_about_a_slow_request_is_complete() {
    let server = Server::start(Rules::default());
    let (report, reports) = mailed(plain(&server).subject_prefix("[photos] "));
    assert_eq!(reports.stats().failed_deliveries, 0);
    let received = server.mails(1).remove(0);
    assert_eq!(
        (&*received.from, &*received.to, received.encrypted),
        ("watchdog@example.com", &[TO.to_owned()][..], false)
    );
    let mail = received.parse();

    assert_eq!(header(&mail, "From").unwrap().replace('"', ""), FROM);
    assert_eq!(header(&mail, "To").as_deref(), Some(TO));
    let subject = mail.subject().unwrap();
    assert!(subject.starts_with("[photos] waiting ") && subject.contains(": GET /photos/"), "{subject}");
    assert!(subject.ends_with(&format!(" on {}", report.process.hostname)), "{subject}");
    assert_eq!(mail.message_id(), Some(&*format!("{}.0@example.com", report.id)));
    assert_eq!(header(&mail, "Auto-Submitted").as_deref(), Some("auto-generated"));
    assert_eq!(header(&mail, "X-Auto-Response-Suppress").as_deref(), Some("All"));
    assert_eq!(header(&mail, "X-Heeler-Fingerprint"), Some(report.fingerprint.clone()));
    let date = u64::try_from(mail.date().unwrap().to_timestamp()).unwrap();
    assert_eq!(date, report.captured_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());

    assert_eq!(text(&mail), report.to_text());
    assert_eq!(mail.body_html(0).unwrap().replace("\r\n", "\n"), report.to_html());
    assert_eq!((mail.text_body_count(), mail.html_body_count(), mail.attachment_count()), (1, 1, 2));
    let json = mail.attachment(0).unwrap();
    assert_eq!(json.attachment_name(), Some(&*format!("{}.json", report.id)));
    assert_eq!(json.content_type().unwrap().subtype(), Some("json"));
    let parsed: heeler::Report = serde_json::from_slice(json.contents()).unwrap();
    assert_eq!((&parsed.id, parsed.stacks.len()), (&report.id, report.stacks.len()));
    let svg = mail.attachment(1).unwrap();
    assert_eq!(svg.attachment_name(), Some("timeline.svg"));
    assert_eq!(svg.content_type().unwrap().subtype(), Some("svg+xml"));
    assert!(std::str::from_utf8(svg.contents()).unwrap().contains("<svg"));
}

/// Guards: a mail program shows what happens again and again as one conversation, and what happens elsewhere as another.
#[test]
fn repeated_reports_make_one_conversation() {
    let server = Server::start(Rules::default());
    let reports = || common::collect_with(|builder| builder.email(plain(&server))).1;
    let here = reports();
    for number in 1..=3 {
        slow_request(&here, "/photos");
        server.mails(number);
    }
    slow_request(&here, "/elsewhere");
    let received = server.mails(4);
    let mails: Vec<_> = received.iter().map(|received| received.parse()).collect();
    let first = format!("<{}>", mails[0].message_id().unwrap());
    assert_eq!(header(&mails[0], "In-Reply-To"), None);
    let root = header(&mails[0], "References").unwrap();
    for mail in &mails[1..3] {
        assert_eq!(header(mail, "In-Reply-To").as_ref(), Some(&first));
        assert_eq!(header(mail, "References"), Some(format!("{root} {first}")));
        assert_ne!(mail.message_id(), mails[0].message_id());
    }
    assert_eq!(header(&mails[3], "In-Reply-To"), None);
    assert_ne!(header(&mails[3], "References").as_ref(), Some(&root));

    // Another process, or this one after a restart, knows where the conversation begins.
    slow_request(&reports(), "/photos");
    let received = server.mails(5).remove(4);
    assert_eq!(header(&received.parse(), "References").as_ref(), Some(&root));
}

/// Guards: a mail about the same request is sent only if there is news.
#[test]
fn updates_without_news_are_not_mailed() {
    let server = Server::start(Rules::default());
    let (collected, reports) = common::collect_with(|builder| builder.email(plain(&server)));
    let _alone = common::alone();
    // Updates come at 2, 4 and 8 times the threshold.
    let job = async { tokio::time::sleep(ms(400)).await };
    runtime(0).block_on(heeler::watch("nightly import", ms(40), job).reports(reports.clone()));
    collected.wait("an update", |report| report.update > 0);
    assert!(reports.blocking_flush(PATIENCE));
    // On a busy machine there may be news: another verdict.
    let mut told: Vec<_> = collected.all().into_iter().map(|report| (report.verdict, report.location)).collect();
    let all = told.len();
    told.dedup();
    assert!(told.len() < all, "{told:?}");
    let mails = server.look(|seen| seen.mails.clone());
    assert_eq!(mails.len(), told.len());
    for mail in &mails[1..] {
        let first = mails[0].parse().message_id().unwrap().to_owned();
        assert_eq!(header(&mail.parse(), "In-Reply-To"), Some(format!("<{first}>")));
    }
    assert_eq!(reports.stats().undelivered, 0);
}

/// Guards: reports beyond the hourly limit arrive as one mail.
#[test]
fn reports_beyond_the_limit_are_one_mail() {
    let server = Server::start(Rules::default());
    let email = plain(&server).per_hour(1);
    let (seen, reports) = common::collect_with_endings(|builder| builder.email(email));
    let runtime = runtime(0);
    for number in 0..4 {
        let name = format!("job {number}");
        let alone = common::alone();
        let job = heeler::watch(name.clone(), ms(300), wait_for_the_database());
        runtime.block_on(job.reports(reports.clone()));
        drop(alone);
        seen.wait(&name, |report| report.job.as_ref() == Some(&name));
    }
    // A flush waits for nothing, not for the end of the hour either.
    common::until("there is a digest", || {
        assert!(reports.blocking_flush(PATIENCE));
        server.look(|seen| seen.mails.len()) >= 2
    });
    let received = server.mails(2);
    let digest = received.last().unwrap().parse();
    assert!(digest.message_id().unwrap().starts_with("digest."));
    assert!(text(&digest).contains("3 × waiting: job 1"), "{}", text(&digest));
    assert!(digest.subject().unwrap().contains("job 1"), "{:?}", digest.subject());
    assert_eq!(header(&digest, "X-Heeler-Fingerprint"), None);
}

/// Guards: mails written as files contain what mails contain, and their names are in order of time.
#[test]
fn mails_are_written_as_files() {
    let place = tempfile::tempdir().unwrap();
    let (report, _) = mailed(Email::files(place.path().join("mail")));
    let mut names: Vec<_> = std::fs::read_dir(place.path().join("mail")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let path = names.remove(0);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("slow_request_2") && name.ends_with(&format!("_{}.eml", report.id)), "{name}");
    let bytes = std::fs::read(&path).unwrap();
    let mail = mail_parser::MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(text(&mail), report.to_text());
    assert!(header(&mail, "From").unwrap().starts_with("heeler@"));
}
