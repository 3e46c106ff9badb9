//! What others can read, and whom a mail is handed to.

use mailin::AuthMechanism;

use super::common::ms;
use super::server::{PASSWORD, Rules, Server, USER};
use super::{FROM, TO, mailed};
use heeler::{Email, Reports};

/// To this server by name, as its certificate has it.
fn to(server: &Server) -> Email {
    Email::smtp("localhost", FROM, [TO]).port(server.port()).timeout(ms(5_000))
}

fn starttls(auth: Option<AuthMechanism>) -> Server {
    Server::start(Rules { starttls: true, auth, ..Rules::default() })
}

/// Guards: STARTTLS works with a custom certificate, and no part of the mail is sent before it.
#[test]
fn starttls_works_with_a_custom_root() {
    let server = starttls(None);
    let (_, reports) = mailed(to(&server).root_certificate(server.root.clone()));
    assert!(server.mails(1)[0].encrypted);
    assert_eq!(reports.stats().failed_deliveries, 0);
    server.look(|seen| {
        let at = |command: &str| seen.lines.iter().position(|line| line.starts_with(command));
        assert!(at("STARTTLS") < at("MAIL"), "{:?}", seen.lines);
    });
}

/// Guards: a server that cannot prove its identity gets nothing: no mail, no password.
#[test]
fn starttls_without_the_root_is_refused() {
    super::common::in_own_process("tls::starttls_without_the_root_is_refused", || {
        let log = super::common::log::Log::start();
        let server = starttls(Some(AuthMechanism::Plain));
        let (_, reports) = mailed(to(&server).credentials(USER, PASSWORD));
        assert_eq!(reports.stats().failed_deliveries, 1);
        server.look(|seen| {
            assert!(seen.connections > 0, "the server was contacted");
            assert!(seen.mails.is_empty() && seen.logins.is_empty());
            assert!(seen.lines.iter().all(|line| line.starts_with("EHLO") || line == "STARTTLS"), "{:?}", seen.lines);
        });
        let text = log.text();
        assert!(text.contains("STARTTLS: invalid peer certificate: "), "{text}");
    });
}

#[test]
fn the_certificate_of_another_host_is_refused() {
    let (server, other) = (starttls(None), starttls(None));
    let (_, reports) = mailed(to(&server).root_certificate(other.root.clone()));
    assert_eq!((reports.stats().failed_deliveries, server.look(|seen| seen.mails.len())), (1, 0));
}

#[test]
fn implicit_tls_encrypts_from_the_first_byte() {
    let server = Server::start(Rules { implicit_tls: true, ..Rules::default() });
    let (_, reports) = mailed(to(&server).tls().root_certificate(server.root.clone()));
    assert!(server.mails(1)[0].encrypted);
    assert_eq!(reports.stats().failed_deliveries, 0);
}

/// Guards: the TLS error about a server that begins in plaintext (`smtps://` to port 587) is followed by advice.
#[test]
fn tls_on_a_starttls_port_explains_the_error() {
    super::common::in_own_process("tls::tls_on_a_starttls_port_explains_the_error", || {
        let log = super::common::log::Log::start();
        let server = starttls(None);
        let (_, reports) = mailed(to(&server).tls().root_certificate(server.root.clone()));
        assert_eq!(reports.stats().failed_deliveries, 1);
        let text = log.text();
        assert!(text.contains("there is no TLS from the first byte on: `starttls`"), "{text}");
    });
}

/// Guards: an attacker who hides the server's STARTTLS gets neither the mail nor the password.
#[test]
fn nothing_is_sent_without_starttls() {
    let server = Server::start(Rules { auth: Some(AuthMechanism::Plain), ..Rules::default() });
    let (_, reports) = mailed(to(&server).credentials(USER, PASSWORD));
    assert_eq!(reports.stats().failed_deliveries, 1);
    server.look(|seen| {
        assert!(seen.connections > 0 && seen.logins.is_empty() && seen.mails.is_empty());
        assert!(seen.lines.iter().all(|line| line.starts_with("EHLO") || line == "QUIT"), "{:?}", seen.lines);
    });
}

#[test]
fn logs_in_with_each_mechanism() {
    for mechanism in [AuthMechanism::Plain, AuthMechanism::Login] {
        let server = starttls(Some(mechanism.clone()));
        mailed(to(&server).root_certificate(server.root.clone()).credentials(USER, PASSWORD));
        assert_eq!(server.mails(1).len(), 1, "{mechanism:?}");
        assert_eq!(server.look(|seen| seen.logins.clone()), [(USER.to_owned(), PASSWORD.to_owned())]);
    }
    // Plaintext, to this machine alone; as a URL.
    let server = Server::start(Rules { auth: Some(AuthMechanism::Plain), ..Rules::default() });
    let url = format!("smtp+plaintext://{USER}:hunter2%20%26%20s%C3%B6ns@127.0.0.1:{}", server.port());
    mailed(Email::from_url(&url, FROM, [TO]).unwrap());
    assert_eq!(server.mails(1).len(), 1);
}

/// Guards: the log says that the password is wrong, but does not contain it, although the server repeats it.
#[test]
fn a_wrong_password_is_not_logged() {
    super::common::in_own_process("tls::a_wrong_password_is_not_logged", || {
        let log = super::common::log::Log::start();
        let server = starttls(Some(AuthMechanism::Login));
        let (_, reports) = mailed(to(&server).root_certificate(server.root.clone()).credentials(USER, "wrong-secret"));
        assert_eq!((reports.stats().failed_deliveries, server.look(|seen| seen.logins.len())), (1, 1));
        let text = log.text();
        assert!(text.contains("refuses the login with 535"), "{text}");
        assert!(!text.contains("wrong-secret"), "{text}");
    });
}

#[test]
fn bad_settings_are_errors() {
    let good = || Email::smtp("mail.example.com", FROM, [TO]);
    let refused = |email: Email| {
        let error = Reports::builder().email(email).build().unwrap_err();
        assert!(error.is_config(), "{error}");
        error.to_string()
    };
    assert!(Reports::builder().email(good()).email(good().tls()).build().is_ok());
    assert!(refused(good().from("nobody")).contains("`nobody`"));
    refused(good().from("a@b\r\nBcc: c@d"));
    refused(good().to(["a@example.com", "b@exa\nmple.com"]));
    refused(good().to([""; 0]));
    refused(good().to(["jörg@example.com"]));
    refused(good().subject_prefix("x\r\nBcc: y"));
    refused(good().timeout(ms(0)));
    refused(good().port(0));
    refused(good().per_hour(0));
    refused(good().root_certificate("no PEM"));
    refused(good().command("/usr/sbin/sendmail"));
    refused(Email::files("/nonexistent").starttls());
    refused(Email::smtp("", FROM, [TO]));
    refused(Email::smtp("mail example", FROM, [TO]));
    for host in ["mail.example.com:587", "smtps://mail.example.com"] {
        assert!(refused(Email::smtp(host, FROM, [TO])).contains("`port`"), "{host}");
    }
    let error = refused(good().plaintext().credentials(USER, PASSWORD));
    assert!(error.contains("plaintext") && !error.contains("hunter2"), "{error}");
    for local in ["localhost", "127.0.0.1", "::1"] {
        let email = Email::smtp(local, FROM, [TO]).plaintext().credentials(USER, PASSWORD);
        assert!(Reports::builder().email(email).build().is_ok(), "{local}");
    }
}
