//! The sink: reports and digests in, mails out.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use super::files::Files;
use super::letter::Letters;
use super::sendmail;
use super::settings::{Email, Security, Server, Way};
use super::smtp::{Protection, Smtp, Trouble};
use super::thread::{Bounded, Place, Threads};
use crate::error::{Error, Result};
use crate::report::escape::is_unsafe;
use crate::report::sink::directory::stem;
use crate::report::sink::{Delivery, Failure, Remote, TARGET};
use crate::report::time::timestamp;
use crate::report::{Digest, Report, log_safely, process};
use crate::sync::lock_std;

/// No attempt takes longer, whatever the timeout of a step.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(5 * 60);

/// A refused recipient is logged this often at most.
const LOG_REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Sends reports as mails.
pub(crate) struct Mailer {
    letters: Letters,
    to: Vec<Address>,
    carrier: Carrier,
    timeout: Duration,
    per_hour: Option<u32>,
    threads: Mutex<Threads>,
    /// Mails that not all recipients have, by their Message-ID.
    partly: Mutex<Bounded<String, Partly>>,
    refusal_logged: Mutex<Option<Instant>>,
}

enum Carrier {
    Smtp(Smtp),
    Sendmail(OsString),
    Files(Files),
}

/// Who has a mail already, and who will never.
#[derive(Debug, Default)]
struct Partly {
    has: Vec<Address>,
    refused: Vec<(Address, Trouble)>,
}

impl Partly {
    fn is_done(&self, address: &Address) -> bool {
        self.has.contains(address) || self.refused.iter().any(|(refused, _)| refused == address)
    }
}

impl Email {
    /// Checks everything, and opens the directory of [`files`](Self::files).
    pub(crate) fn prepare(self) -> Result<Mailer> {
        if let Some(setting) = self.misplaced {
            let whose = if setting == "command" { "`Email::sendmail`" } else { "`Email::smtp`" };
            return Err(Error::config(format!("`{setting}` is a setting of {whose}")));
        }
        if self.timeout.is_zero() {
            return Err(Error::config("a mail server that has no time to answer: the timeout must be above zero"));
        }
        if self.per_hour == Some(0) {
            return Err(Error::config("no mail an hour: the limit must be above zero"));
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
        let letters = Letters { from: mailbox("the sender's", &from)?, to, subject_prefix: self.subject_prefix };
        let mut to: Vec<Address> = Vec::new();
        for mailbox in &letters.to {
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
        Ok(Mailer {
            letters,
            to,
            carrier,
            timeout: self.timeout,
            per_hour: self.per_hour,
            threads: Mutex::new(Threads::new()),
            partly: Mutex::new(Bounded::new()),
            refusal_logged: Mutex::default(),
        })
    }
}

impl Server {
    fn prepare(self, timeout: Duration) -> Result<Smtp> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let ip = self.host.parse::<IpAddr>().ok();
        if self.host.is_empty() || ip.is_none() && !self.host.chars().all(is_host) {
            return Err(Error::config("the mail server's host is neither a name in ASCII nor an IP address"));
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
            kept: Arc::default(),
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

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An address, with or without a name. One that is not ASCII would need a server that is asked for it.
fn mailbox(whose: &str, text: &str) -> Result<Mailbox> {
    let refuse = |why: &str| Error::config(format!("{whose} address `{}` {why}", text.escape_debug()));
    if text.contains(is_unsafe) {
        return Err(refuse("has control characters or invisible ones"));
    }
    let mailbox: Mailbox = text.parse().map_err(|_| refuse("is none"))?;
    if !mailbox.email.to_string().is_ascii() {
        return Err(refuse("is not ASCII; of a domain, use the form that begins with `xn--`"));
    }
    Ok(mailbox)
}

/// What this machine is called, as far as that can stand in an address.
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

impl Mailer {
    async fn send_report(&self, report: &Report) -> Result<(), Failure> {
        let (id, root) = (self.letters.report_id(report), self.letters.root_id(report));
        let Some(place) = lock_std(&self.threads).place(report, id, root) else { return Ok(()) };
        let mail = self.letters.report(report, &place).map_err(Failure::permanent)?;
        let update = if report.update > 0 { format!("_{}", report.update) } else { String::new() };
        self.send(&place.message_id, &format!("{}{update}", stem(report)), &mail).await?;
        lock_std(&self.threads).sent(report, &place);
        Ok(())
    }

    async fn send_digest(&self, digest: &Digest) -> Result<(), Failure> {
        let place = Place { message_id: self.letters.digest_id(digest), in_reply_to: None, references: Vec::new() };
        let mail = self.letters.digest(digest, &place).map_err(Failure::permanent)?;
        let time: String = timestamp(digest.until).chars().filter(|c| !matches!(c, '-' | ':')).collect();
        self.send(&place.message_id, &format!("digest_{time}"), &mail).await
    }

    async fn send(&self, id: &str, stem: &str, mail: &[u8]) -> Result<(), Failure> {
        match &self.carrier {
            Carrier::Smtp(smtp) => {
                let longest = self.timeout.saturating_mul(4).min(LONGEST_ATTEMPT);
                let late = |_| Failure::transient(format!("the mail was not sent within {longest:?}"));
                tokio::time::timeout(longest, self.send_by(smtp, id, mail)).await.map_err(late)?
            }
            Carrier::Sendmail(command) => {
                let longest = self.timeout.min(LONGEST_ATTEMPT);
                sendmail::send(command, &self.letters.from.email, &self.to, mail, longest).await
            }
            Carrier::Files(files) => files.write(stem, mail).map_err(Failure::transient),
        }
    }

    /// Sends a mail to all who do not have it yet.
    async fn send_by(&self, smtp: &Smtp, id: &str, mail: &[u8]) -> Result<(), Failure> {
        let id = id.to_owned();
        let left: Vec<Address> = {
            let mut partly = lock_std(&self.partly);
            let partly = partly.entry(&id, Partly::default);
            self.to.iter().filter(|address| !partly.is_done(address)).cloned().collect()
        };
        let told = |address: &Address, fate: &Result<(), Trouble>| {
            let mut partly = lock_std(&self.partly);
            let partly = partly.entry(&id, Partly::default);
            match fate {
                Ok(()) => partly.has.push(address.clone()),
                Err(trouble) if trouble.is_permanent() => partly.refused.push((address.clone(), trouble.clone())),
                Err(_) => {}
            }
        };
        let fates = smtp.send(&self.letters.from.email, &left, mail, &told).await;
        let fates = fates.map_err(|trouble| Failure::transient(trouble.to_string()))?;
        let later = fates.iter().find_map(|(address, fate)| match fate {
            Err(trouble) if !trouble.is_permanent() => Some(format!("{address} cannot be reached now: {trouble}")),
            _ => None,
        });
        if let Some(later) = later {
            return Err(Failure::transient(later));
        }
        let Some(Partly { has, refused }) = lock_std(&self.partly).remove(&id) else { return Ok(()) };
        let Some((address, trouble)) = refused.first() else { return Ok(()) };
        if has.is_empty() {
            return Err(Failure::permanent(format!("{address} is refused: {trouble}")));
        }
        for (address, trouble) in &refused {
            self.log_refusal(address, trouble);
        }
        Ok(())
    }

    /// Others have the mail, so it counts as delivered; somebody must hear of it all the same.
    fn log_refusal(&self, recipient: &Address, answer: &Trouble) {
        let now = Instant::now();
        let mut logged = lock_std(&self.refusal_logged);
        if logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_REFUSALS_EVERY) {
            *logged = Some(now);
            drop(logged);
            log_safely(|| {
                tracing::warn!(target: TARGET, %recipient, %answer, "a report did not reach one of several recipients");
            });
        }
    }
}

impl Remote for Mailer {
    fn name(&self) -> &'static str {
        "email"
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(self.send_report(report))
    }

    fn per_hour(&self) -> Option<u32> {
        self.per_hour
    }

    fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
        Box::pin(self.send_digest(digest))
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer").field("from", &self.letters.from).field("to", &self.letters.to).finish_non_exhaustive()
    }
}
