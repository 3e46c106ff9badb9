//! Turns settings into a sink, and checks all of them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use super::files::Files;
use super::mailer::{Carrier, Mailer};
use super::message::Messages;
use super::settings::{Email, Security, Server, Way};
use super::smtp::{Protection, Smtp};
use crate::capture::PerProcess;
use crate::error::{Error, Result};
use crate::report::model::process;
use crate::text::escape::is_unsafe;

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

impl Email {
    /// Checks all settings, and opens the directory of [`files`](Self::files).
    pub(crate) fn prepare(self) -> Result<Mailer> {
        if let Some(setting) = self.misplaced {
            let whose = if setting == "command" { "`Email::sendmail`" } else { "`Email::smtp`" };
            return Err(Error::config(format!("`{setting}` is a setting of {whose}")));
        }
        if self.timeout.is_zero() {
            return Err(Error::config("a mail server that has no time to answer: the timeout must be above zero"));
        }
        if self.per_hour == Some(0) {
            return Err(Error::config("the number of mails per hour must be above zero"));
        }
        if self.subject_prefix.contains(is_unsafe) {
            return Err(Error::config("the subject prefix has control characters or invisible ones"));
        }
        let is_file = matches!(self.way, Way::Files { .. });
        let local = || is_file.then(|| format!("heeler@{}", local_domain()));
        let from = self.from.or_else(local).ok_or_else(|| Error::config("the sender's address is missing"))?;
        let to = if self.to.is_empty() { local().into_iter().collect() } else { self.to };
        if to.is_empty() {
            return Err(Error::config("nobody is to get the mails: the recipients' addresses are missing"));
        }
        let to = to.iter().map(|address| mailbox("a recipient's", address)).collect::<Result<Vec<Mailbox>>>()?;
        let messages = Messages { from: mailbox("the sender's", &from)?, to, subject_prefix: self.subject_prefix };
        let mut to: Vec<Address> = Vec::new();
        for mailbox in &messages.to {
            if !to.contains(&mailbox.email) {
                to.push(mailbox.email.clone());
            }
        }
        let carrier = match self.way {
            Way::Smtp(server) => Carrier::Smtp(server.prepare(self.timeout)?),
            Way::Sendmail { command } if command.is_empty() => {
                return Err(Error::config("the path of sendmail is empty"));
            }
            Way::Sendmail { command } => Carrier::Sendmail(command),
            Way::Files { directory } => Carrier::Files(Files::open(Path::new(&directory))?),
        };
        Ok(Mailer::new(messages, to, carrier, self.timeout, self.per_hour, self.endings))
    }
}

impl Server {
    fn prepare(self, timeout: Duration) -> Result<Smtp> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let ip = self.host.parse::<IpAddr>().ok();
        if self.host.is_empty() || ip.is_none() && !self.host.chars().all(is_host) {
            let hint =
                if self.host.contains(':') { ": a port is set with `port`, a URL is for `from_url`" } else { "" };
            let problem = "the mail server's host is neither a name in ASCII nor an IP address";
            return Err(Error::config(format!("{problem}{hint}")));
        }
        if self.port == Some(0) {
            return Err(Error::config("the mail server's port is 0"));
        }
        if self.security == Security::Plaintext && !self.roots.is_empty() {
            return Err(Error::config("a root certificate is of no use with `plaintext`"));
        }
        if let Some(credentials) = &self.credentials {
            let is_loopback =
                ip.map_or_else(|| self.host.eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback());
            if self.security == Security::Plaintext && !is_loopback {
                return Err(Error::config("a password would be sent in plaintext to another machine: use TLS"));
            }
            if credentials.user.is_empty() {
                return Err(Error::config("the user of the mail server is empty"));
            }
            if credentials.user.contains('\0') || credentials.password.contains('\0') {
                return Err(Error::config("the user or password of the mail server has a NUL in it"));
            }
        }
        let protection = match self.security {
            Security::Plaintext => Protection::None,
            Security::StartTls => Protection::StartTls(self.tls()?),
            Security::Tls => Protection::Tls(self.tls()?),
        };
        let credentials = self.credentials;
        Ok(Smtp {
            port: self.port.unwrap_or(self.security.usual_port()),
            host: self.host,
            protection,
            credentials: credentials
                .map(|credentials| authentication::Credentials::new(credentials.user, credentials.password)),
            hello: ClientId::Domain(local_domain()),
            timeout,
            kept: Arc::new(PerProcess::new(Mutex::default)),
        })
    }

    fn tls(&self) -> Result<TlsParameters> {
        let unusable = |error| Error::config(format!("TLS cannot be set up for the mail server: {error}"));
        let mut parameters = TlsParameters::builder(self.host.clone()).certificate_store(CertificateStore::Default);
        for pem in &self.roots {
            if !pem.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
                return Err(Error::config("a root certificate is not PEM"));
            }
            let root = Certificate::from_pem(pem).map_err(|_| Error::config("a root certificate is not PEM"))?;
            parameters = parameters.add_root_certificate(root);
        }
        parameters.build().map_err(unusable)
    }
}

/// Parses an address, with or without a name. An address that isn't ASCII would need a server that supports it.
fn mailbox(whose: &str, text: &str) -> Result<Mailbox> {
    let refuse = |why: &str| Error::config(format!("{whose} address `{}` {why}", text.escape_debug()));
    if text.contains(is_unsafe) {
        return Err(refuse("has control characters or invisible ones"));
    }
    let mailbox: Mailbox = text.parse().map_err(|_| refuse("is not one like `name@example.com`"))?;
    if !mailbox.email.to_string().is_ascii() {
        return Err(refuse("is not ASCII; of a domain, use the form that begins with `xn--`"));
    }
    Ok(mailbox)
}

/// Returns this machine's name, in a form that can stand in an address.
fn local_domain() -> String {
    let name: String = process::hostname()
        .split('.')
        .map(|label| label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect::<String>())
        .map(|label| label.trim_matches('-').to_owned())
        .filter(|label| !label.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    if name.is_empty() || name.len() > 253 { "localhost".to_owned() } else { name }
}
