//! The sink that turns reports and digests into mails.

use std::ffi::OsString;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lettre::Address;

use super::files::Files;
use super::message::Messages;
use super::sendmail;
use super::smtp::{Smtp, Trouble};
use super::thread::{Place, Threads};
use crate::capture::PerProcess;
use crate::log::TARGET;
use crate::log::log_safely;
use crate::report::sink::directory::stem;
use crate::report::sink::news::Bounded;
use crate::report::sink::{Delivery, DynAsyncSink, SinkError};
use crate::report::{Digest, Report};
use crate::sync::lock_std;
use crate::text::time::timestamp;

/// No attempt takes longer than this, whatever the timeout of a step.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(5 * 60);

/// How often a refused recipient is logged at most.
const LOG_REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Sends reports as mails.
pub(crate) struct Mailer {
    messages: Messages,
    to: Vec<Address>,
    carrier: Carrier,
    timeout: Duration,
    per_hour: Option<u32>,
    /// Whether mails about the ends of reported work are wanted.
    endings: bool,
    threads: PerProcess<Mutex<Threads>>,
    /// Mails that some recipients don't have yet, by their Message-ID.
    partly: PerProcess<Mutex<Bounded<String, Partly>>>,
    refusal_logged: PerProcess<Mutex<Option<Instant>>>,
}

pub(super) enum Carrier {
    Smtp(Smtp),
    Sendmail(OsString),
    Files(Files),
}

/// Which recipients already have a mail, and which never will.
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

impl Mailer {
    pub(super) fn new(
        messages: Messages,
        to: Vec<Address>,
        carrier: Carrier,
        timeout: Duration,
        per_hour: Option<u32>,
        endings: bool,
    ) -> Self {
        Self {
            messages,
            to,
            carrier,
            timeout,
            per_hour,
            endings,
            threads: PerProcess::new(|| Mutex::new(Threads::new())),
            partly: PerProcess::new(|| Mutex::new(Bounded::new())),
            refusal_logged: PerProcess::new(Mutex::default),
        }
    }

    async fn send_report(&self, report: &Report) -> Result<(), SinkError> {
        let (id, root) = (self.messages.report_id(report), self.messages.root_id(report));
        let place = lock_std(self.threads.get()).place(report, id, root);
        let mail = self.messages.report(report, &place).map_err(SinkError::permanent)?;
        let update = if report.update > 0 { format!("_{}", report.update) } else { String::new() };
        self.send(&place.message_id, &format!("{}{update}", stem(report)), &mail).await?;
        lock_std(self.threads.get()).sent(report, &place);
        Ok(())
    }

    async fn send_digest(&self, digest: &Digest) -> Result<(), SinkError> {
        let place = Place { message_id: self.messages.digest_id(digest), in_reply_to: None, references: Vec::new() };
        let mail = self.messages.digest(digest, &place).map_err(SinkError::permanent)?;
        let time: String = timestamp(digest.until).chars().filter(|c| !matches!(c, '-' | ':')).collect();
        self.send(&place.message_id, &format!("digest_{time}"), &mail).await
    }

    async fn send(&self, id: &str, stem: &str, mail: &[u8]) -> Result<(), SinkError> {
        match &self.carrier {
            Carrier::Smtp(smtp) => {
                let longest = self.timeout.saturating_mul(4).min(LONGEST_ATTEMPT);
                let late = |_| SinkError::transient(format!("the mail was not sent within {longest:?}"));
                tokio::time::timeout(longest, self.send_by(smtp, id, mail)).await.map_err(late)?
            }
            Carrier::Sendmail(command) => {
                let longest = self.timeout.min(LONGEST_ATTEMPT);
                sendmail::send(command, &self.messages.from.email, &self.to, mail, longest).await
            }
            Carrier::Files(files) => files.write(stem, mail).map_err(SinkError::transient),
        }
    }

    /// Sends a mail to all recipients that don't have it yet.
    async fn send_by(&self, smtp: &Smtp, id: &str, mail: &[u8]) -> Result<(), SinkError> {
        let id = id.to_owned();
        let left: Vec<Address> = {
            let mut partly = lock_std(self.partly.get());
            let partly = partly.entry(&id, Partly::default);
            self.to.iter().filter(|address| !partly.is_done(address)).cloned().collect()
        };
        let told = |address: &Address, fate: &Result<(), Trouble>| {
            let mut partly = lock_std(self.partly.get());
            let partly = partly.entry(&id, Partly::default);
            match fate {
                Ok(()) => partly.has.push(address.clone()),
                Err(trouble) if trouble.is_permanent() => partly.refused.push((address.clone(), trouble.clone())),
                Err(_) => {}
            }
        };
        let fates = smtp.send(&self.messages.from.email, &left, mail, &told).await;
        let fates = fates.map_err(|trouble| SinkError::transient(trouble.to_string()))?;
        let later = fates.iter().find_map(|(address, fate)| match fate {
            Err(trouble) if !trouble.is_permanent() => Some(format!("{address} cannot be reached now: {trouble}")),
            _ => None,
        });
        if let Some(later) = later {
            return Err(SinkError::transient(later));
        }
        let Some(Partly { has, refused }) = lock_std(self.partly.get()).remove(&id) else { return Ok(()) };
        let Some((address, trouble)) = refused.first() else { return Ok(()) };
        if has.is_empty() {
            return Err(SinkError::permanent(format!("{address} is refused: {trouble}")));
        }
        for (address, trouble) in &refused {
            self.log_refusal(address, trouble);
        }
        Ok(())
    }

    /// Logs a refusal. Others have the mail, so it counts as delivered, but the refusal must not go unnoticed.
    fn log_refusal(&self, recipient: &Address, answer: &Trouble) {
        let now = Instant::now();
        let mut logged = lock_std(self.refusal_logged.get());
        if logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_REFUSALS_EVERY) {
            *logged = Some(now);
            drop(logged);
            log_safely(|| {
                tracing::warn!(target: TARGET, %recipient, %answer, "a report did not reach one of several recipients");
            });
        }
    }
}

impl DynAsyncSink for Mailer {
    fn name(&self) -> &'static str {
        "email"
    }

    fn tells_people(&self) -> bool {
        true
    }

    fn has_news(&self, report: &Report) -> bool {
        let threads = lock_std(self.threads.get());
        if report.ending.is_some() { self.endings && threads.knows(report) } else { threads.has_news(report) }
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
        f.debug_struct("Mailer")
            .field("from", &self.messages.from)
            .field("to", &self.messages.to)
            .finish_non_exhaustive()
    }
}
