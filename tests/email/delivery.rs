//! Servers that refuse, break off, or say nothing; workers that are blocked.

use std::time::{Duration, Instant};

use mailin::Response;

use super::common::{self, PATIENCE, ms, runtime};
use super::server::{Rules, Server};
use super::{FROM, mailed, plain, slow_request};
use heeler::{Email, Reports};

const THREE: [&str; 3] = ["one@example.com", "gone@example.com", "two@example.com"];

/// Reports that go to this mail sink alone, and are tried again.
fn reports(email: Email) -> Reports {
    Reports::builder().without_log().repeat_after(Duration::ZERO).without_endings().email(email).build().unwrap()
}

/// Guards: a refused recipient does not keep the mail from the others, and is not tried again.
#[test]
fn a_refused_recipient_does_not_stop_the_mail() {
    let rcpt = |to: &str, _| to.starts_with("gone").then(|| Response::custom(550, "5.1.1 no such user".to_owned()));
    let server = Server::start(Rules { rcpt, ..Rules::default() });
    let (_, reports) = mailed(plain(&server).to(THREE));
    assert_eq!(server.mails(1)[0].to, ["one@example.com", "two@example.com"]);
    assert_eq!(reports.stats().failed_deliveries, 0, "the others have the mail");
    assert_eq!(server.look(|seen| (seen.mails.len(), seen.recipients)), (1, 3));
}

/// Guards: if a server refuses the whole mail because of one recipient, the mail is sent to each alone.
#[test]
fn a_refused_mail_is_sent_to_each_alone() {
    let mail = |to: &[String], _| {
        let gone = to.iter().any(|to| to.starts_with("gone"));
        gone.then(|| Response::custom(554, "5.7.1 not for gone".to_owned()))
    };
    let server = Server::start(Rules { mail, ..Rules::default() });
    let (_, reports) = mailed(plain(&server).to(THREE));
    let mut to: Vec<_> = server.mails(2).into_iter().flat_map(|mail| mail.to).collect();
    to.sort();
    assert_eq!(to, ["one@example.com", "two@example.com"]);
    assert_eq!(reports.stats().failed_deliveries, 0);
}

/// Guards: if everybody is refused for good, the report is given up at once, and the log has the server's words, escaped.
#[test]
fn a_permanent_refusal_gives_the_report_up() {
    common::in_own_process("delivery::a_permanent_refusal_gives_the_report_up", || {
        let log = super::common::log::Log::start();
        let rcpt = |_: &str, _| Some(Response::custom(550, "5.1.1 no\u{1b}[31m such user".to_owned()));
        let server = Server::start(Rules { rcpt, ..Rules::default() });
        let reports = reports(plain(&server).to(THREE));
        slow_request(&reports, "/");
        let stats = reports.stats();
        assert_eq!((stats.undelivered, stats.failed_deliveries), (stats.made, stats.made));
        let text = log.text();
        assert!(text.contains("one@example.com is refused: 550 5.1.1 no\\u{1b}[31m such user"), "{text}");
    });
}

/// Guards: "try again later" is tried again, only for those who do not have the mail yet.
#[test]
fn a_retry_goes_only_to_the_rest() {
    let rcpt = |to: &str, number| {
        (to.starts_with("two") && number < 3).then(|| Response::custom(450, "4.2.0 greylisted".to_owned()))
    };
    let server = Server::start(Rules { rcpt, ..Rules::default() });
    let reports = reports(plain(&server).to(THREE));
    slow_request(&reports, "/");
    let mails = server.mails(2);
    assert_eq!(mails[0].to, ["one@example.com", "gone@example.com"]);
    assert_eq!(mails[1].to, ["two@example.com"]);
    let id = |at: usize| mails[at].parse().message_id().unwrap().to_owned();
    assert_eq!(id(0), id(1));
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!((reports.stats().failed_deliveries, reports.stats().undelivered), (1, 0));
}

/// Guards: a mail that is refused for now arrives later.
#[test]
fn a_mail_refused_for_now_arrives_later() {
    let mail = |_: &[String], number| (number < 2).then(|| Response::custom(451, "4.3.0 busy".to_owned()));
    let server = Server::start(Rules { mail, ..Rules::default() });
    let reports = reports(plain(&server));
    slow_request(&reports, "/");
    server.mails(1);
    assert!(reports.blocking_flush(PATIENCE));
    let stats = reports.stats();
    assert!((stats.failed_deliveries, stats.undelivered) == (2, 0), "{stats:?}");
}

/// Guards: a connection that breaks in the middle of a mail costs an attempt, not the mail.
#[test]
fn a_broken_connection_is_tried_again() {
    let server = Server::start(Rules { resets: 2, ..Rules::default() });
    let reports = reports(plain(&server));
    slow_request(&reports, "/");
    server.mails(1);
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!((reports.stats().failed_deliveries, reports.stats().undelivered), (2, 0));
}

/// Guards: the next mail uses the connection of the last. If the server has closed it meanwhile, nothing is lost.
#[test]
fn a_connection_is_reused_and_reopened() {
    let server = Server::start(Rules { mails_a_connection: 2, ..Rules::default() });
    let reports = reports(plain(&server));
    for number in 1..=5 {
        slow_request(&reports, &format!("/{number}"));
        server.mails(number);
    }
    assert_eq!(reports.stats().failed_deliveries, 0);
    let (connections, mails) = server.look(|seen| (seen.connections, seen.mails.len()));
    assert!(connections < mails, "{connections} connections for {mails} mails");
}

/// Guards: an unused connection is not kept forever, and ends as SMTP requires.
#[test]
fn an_idle_connection_is_closed() {
    let server = Server::start(Rules::default());
    mailed(plain(&server));
    server.wait("QUIT", |seen| seen.lines.iter().any(|line| line == "QUIT"));
    assert_eq!(server.look(|seen| (seen.connections, seen.mails.len())), (1, 1));
}

/// Guards: an attempt ends, whatever the server fails to do.
#[test]
fn a_silent_server_ends_the_attempt() {
    let server = Server::start(Rules { silent: true, ..Rules::default() });
    let began = Instant::now();
    let (_, reports) = mailed(plain(&server).timeout(ms(200)));
    common::until("the attempt has ended", || reports.stats().undelivered > 0);
    assert!(server.look(|seen| seen.connections) > 0);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// Guards: a server that responds in time each time, but takes forever altogether, is given up, too.
#[test]
fn a_very_slow_server_is_given_up() {
    let server = Server::start(Rules { delay: ms(200), ..Rules::default() });
    let to: Vec<String> = (0..1_000).map(|number| format!("{number}@example.com")).collect();
    let (_, reports) = mailed(plain(&server).to(to).timeout(ms(400)));
    common::until("the attempt has ended", || reports.stats().undelivered > 0);
    let (recipients, mails) = server.look(|seen| (seen.recipients, seen.mails.len()));
    assert!((1..20).contains(&recipients) && mails == 0, "{recipients}");
}

/// Guards: a mail needs nothing of the application's runtime, whose workers are all blocked until it has arrived.
#[test]
fn mail_is_sent_while_every_worker_is_blocked() {
    let _alone = common::alone();
    let server = Server::start(Rules::default());
    let reports = reports(plain(&server));
    let runtime = runtime(2);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let tasks: Vec<_> = (0..2)
        .map(|number| {
            let released = std::sync::Arc::clone(&released);
            let blocked = async move { block(&released) };
            runtime.spawn(heeler::watch(format!("worker {number}"), ms(50), blocked).reports(reports.clone()))
        })
        .collect();
    // Both have to be in their poll: a runtime with a worker to spare proves nothing.
    for number in 0..2 {
        let name = format!("worker {number}");
        server.wait(&name, |seen| seen.mails.iter().any(|mail| mail.parse().subject().unwrap().contains(&name)));
    }
    assert!(tasks.iter().all(|task| !task.is_finished()), "the workers were still blocked");
    drop(release);
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

/// Holds its worker until the sender is gone, or, lest a failed test hang, for a while.
fn block(released: &std::sync::Mutex<std::sync::mpsc::Receiver<()>>) {
    // The lock is what one of them waits for, the channel what the other does.
    let _ = released.lock().unwrap().recv_timeout(2 * PATIENCE);
}

#[cfg(unix)]
mod sendmail {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::*;

    /// A program that does as this script says, in place of sendmail.
    fn script(place: &Path, script: &str) -> PathBuf {
        let path = place.join("sendmail");
        let text = format!("#!/bin/sh\ncd '{}'\n{script}\n", place.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    fn email(command: PathBuf) -> Email {
        Email::sendmail(FROM, ["one@example.com", "two@example.com"]).command(command)
    }

    #[test]
    fn sendmail_gets_the_mail_and_its_recipients() {
        let place = tempfile::tempdir().unwrap();
        let command = script(place.path(), "echo \"$@\" > arguments; cat > mail; mv mail done");
        let (report, reports) = mailed(email(command));
        assert_eq!(reports.stats().failed_deliveries, 0);
        let arguments = std::fs::read_to_string(place.path().join("arguments")).unwrap();
        assert_eq!(arguments, "-i -f watchdog@example.com -- one@example.com two@example.com\n");
        let bytes = std::fs::read(place.path().join("done")).unwrap();
        let mail = mail_parser::MessageParser::default().parse(&bytes).unwrap();
        assert_eq!(mail.body_text(0).unwrap().replace("\r\n", "\n"), report.to_text());
    }

    /// Guards: "temporary failure" is tried again, and "no user" is not.
    #[test]
    fn sendmail_exit_codes_decide_about_a_retry() {
        let place = tempfile::tempdir().unwrap();
        let once = "cat > mail; if [ -e tried ]; then mv mail done; else touch tried; echo later >&2; exit 75; fi";
        let reports_of_one = reports(email(script(place.path(), once)));
        slow_request(&reports_of_one, "/");
        common::until("it was tried again", || place.path().join("done").exists());
        assert!(reports_of_one.blocking_flush(PATIENCE));
        assert_eq!((reports_of_one.stats().failed_deliveries, reports_of_one.stats().undelivered), (1, 0));

        let place = tempfile::tempdir().unwrap();
        let never = reports(email(script(place.path(), "echo x >> tries; exit 67")));
        slow_request(&never, "/");
        assert!(never.blocking_flush(PATIENCE));
        let stats = never.stats();
        assert_eq!((stats.failed_deliveries, stats.undelivered), (stats.made, stats.made));
    }

    #[test]
    fn a_sendmail_that_hangs_is_killed() {
        let place = tempfile::tempdir().unwrap();
        let command = script(place.path(), "echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 3600");
        let (_, reports) = mailed(email(command).timeout(ms(300)));
        common::until("the attempt has ended", || reports.stats().undelivered > 0);
        let pid = std::fs::read_to_string(place.path().join("pid")).unwrap();
        let process = Path::new("/proc").join(pid.trim());
        if Path::new("/proc/self").exists() {
            common::until("the program is gone", || !process.exists());
        }
    }

    #[test]
    fn a_missing_sendmail_leaves_the_report_undelivered() {
        let (_, reports) = mailed(email("/nonexistent/sendmail".into()));
        common::until("the attempt has ended", || reports.stats().undelivered > 0);
    }
}
