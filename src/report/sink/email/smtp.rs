//! The conversation with a mail server.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Noop, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;

use crate::capture::PerProcess;
use crate::report::told;
use crate::sync::lock_std;

/// How long a connection is kept for the next mail.
const IDLE: Duration = Duration::from_secs(10);

/// How many of a server's addresses are tried, in the time of one step, before an attempt ends.
const ADDRESSES: u32 = 3;

/// How much of a server's answer is shown, in characters.
const MAX_ANSWER: usize = 200;

/// A mail server. One connection to it is kept for a while after a mail.
pub(super) struct Smtp {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protection: Protection,
    pub(super) credentials: Option<Credentials>,
    /// The name we give in EHLO.
    pub(super) hello: ClientId,
    /// The most time that a step may take.
    pub(super) timeout: Duration,
    pub(super) kept: Arc<PerProcess<Mutex<Option<Kept>>>>,
}

/// How the conversation is protected from eavesdroppers.
pub(super) enum Protection {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

/// A connection that waits for the next mail.
pub(super) struct Kept {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// Why something did not work.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The server refused: its answer's code, and the answer, which is safe to print.
    Answer { code: u16, text: String },
    /// The conversation has ended.
    Lost(String),
}

impl Trouble {
    /// Returns whether another attempt would get the same answer.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Answer { code, .. } if *code >= 500)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { code, text } if text.is_empty() => write!(f, "{code}"),
            Self::Answer { code, text } => write!(f, "{code} {text}"),
            Self::Lost(problem) => f.write_str(problem),
        }
    }
}

/// The outcome of one transaction for one recipient.
#[derive(Clone)]
struct Fate {
    fate: Result<(), Trouble>,
    /// The server accepted the recipient, and refused the mail to all of them.
    as_whole: bool,
}

/// The outcome of a mail for each recipient.
pub(super) type Fates = Vec<(Address, Result<(), Trouble>)>;

impl Smtp {
    /// Sends one mail to several recipients. Calls `told` at once for each that has it or was refused it. After an
    /// error, nothing is known about the recipients that `told` was not called for.
    pub(super) async fn send(
        &self,
        from: &Address,
        to: &[Address],
        mail: &[u8],
        told: &(dyn Fn(&Address, &Result<(), Trouble>) + Send + Sync),
    ) -> Result<Fates, Trouble> {
        let mut connection = None;
        if let Some(mut kept) = self.take_kept().await {
            match self.transact(&mut kept, from, to, mail).await {
                // The server, or something in between, has closed it meanwhile. Nothing is wrong yet.
                Err(Trouble::Lost(_)) => {}
                outcome => connection = Some((kept, outcome?)),
            }
        }
        let (mut connection, outcome) = match connection {
            Some(done) => done,
            None => {
                let mut connection = self.connect().await?;
                let outcome = self.transact(&mut connection, from, to, mail).await?;
                (connection, outcome)
            }
        };
        // A mail may be refused as a whole because of one of its recipients.
        let together: Vec<bool> = outcome.iter().map(|fate| fate.as_whole && outcome.len() > 1).collect();
        let mut fates: Fates = to.iter().cloned().zip(outcome.into_iter().map(|fate| fate.fate)).collect();
        let known = fates.iter().zip(&together).filter(|(_, together)| !**together);
        known.for_each(|((address, fate), _)| told(address, fate));
        for ((address, fate), _) in fates.iter_mut().zip(together).filter(|(_, together)| *together) {
            let alone = self.transact(&mut connection, from, std::slice::from_ref(address), mail).await?;
            if let Some(alone) = alone.into_iter().next() {
                *fate = alone.fate;
            }
            told(address, fate);
        }
        self.keep(connection);
        Ok(fates)
    }

    /// Sends one mail on an open connection, to all recipients that aren't refused. Returns one fate per recipient, in
    /// order.
    async fn transact(
        &self,
        connection: &mut AsyncSmtpConnection,
        from: &Address,
        to: &[Address],
        mail: &[u8],
    ) -> Result<Vec<Fate>, Trouble> {
        let command = connection.command(Mail::new(Some(from.clone()), Vec::new()));
        if let Some(trouble) = self.step("answered MAIL", command).await? {
            return Ok(vec![Fate { fate: Err(trouble), as_whole: false }; to.len()]);
        }
        let mut fates = Vec::new();
        for address in to {
            let command = connection.command(Rcpt::new(address.clone(), Vec::new()));
            let answer = self.step("answered RCPT", command).await?;
            fates.push(Fate { fate: answer.map_or(Ok(()), Err), as_whole: false });
        }
        let mut sent = false;
        if fates.iter().any(|fate| fate.fate.is_ok()) {
            let mut trouble = self.step("answered DATA", connection.command(Data)).await?;
            if trouble.is_none() {
                // Servers scan a mail before they take it. A client that gives up too early sends it twice (RFC 5321,
                // 4.5.3.2.6).
                trouble = self
                    .step_within(self.timeout.saturating_mul(3), "taken the mail", connection.message(mail))
                    .await?;
            }
            sent = trouble.is_none();
            if let Some(trouble) = trouble {
                let as_whole = trouble.is_permanent();
                for fate in fates.iter_mut().filter(|fate| fate.fate.is_ok()) {
                    *fate = Fate { fate: Err(trouble.clone()), as_whole };
                }
            }
        }
        if !sent {
            let _ = self.step("answered RSET", connection.command(Rset)).await?;
        }
        Ok(fates)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Trouble> {
        let wrapper = match &self.protection {
            Protection::Tls(parameters) => Some(parameters.clone()),
            Protection::None | Protection::StartTls(_) => None,
        };
        let server = (&*self.host, self.port);
        // A name may have several addresses, and one (of IPv6, say) may be unreachable. The others must get their
        // turns.
        let an_address = self.timeout / ADDRESSES;
        let connect = AsyncSmtpConnection::connect_tokio1(server, Some(an_address), &self.hello, wrapper, None);
        let mut connection = self
            .bounded("let us in", connect)
            .await
            .and_then(|connected| connected.map_err(|error| self.set_up("", &error)))
            .map_err(|trouble| self.with_hint(trouble))?;
        if let Protection::StartTls(parameters) = &self.protection {
            if !connection.can_starttls() {
                let _ = self.bounded("said goodbye", connection.abort()).await;
                return Err(Trouble::Lost(format!("{} does not offer STARTTLS: nothing is sent", self.name())));
            }
            let starttls = connection.starttls(parameters.clone(), &self.hello);
            self.bounded("did STARTTLS", starttls).await?.map_err(|error| self.set_up("STARTTLS: ", &error))?;
        }
        if let Some(credentials) = &self.credentials {
            let log_in = connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials);
            // The text of an answer to a password may contain it.
            self.bounded("answered AUTH", log_in).await?.map_err(|error| match error.status() {
                Some(code) => Trouble::Lost(format!("{} refuses the login with {code}", self.name())),
                None if error.is_client() => Trouble::Lost(format!("{} offers no way to log in", self.name())),
                None => Trouble::Lost(format!("the login at {} was not finished", self.name())),
            })?;
        }
        Ok(connection)
    }

    /// Adds a hint, because a server that expects the other kind of TLS gives an obscure answer, or none.
    fn with_hint(&self, trouble: Trouble) -> Trouble {
        match (&self.protection, self.port, trouble) {
            (Protection::StartTls(_), 465, Trouble::Lost(problem)) => Trouble::Lost(format!(
                "{problem} (port 465 is mostly one for TLS from the first byte on: `tls`, `smtps`)"
            )),
            (Protection::Tls(_), _, Trouble::Lost(problem)) if problem.contains("InvalidContentType") => {
                Trouble::Lost(format!("{problem} (there is no TLS from the first byte on: `starttls`, `smtp`?)"))
            }
            (_, _, trouble) => trouble,
        }
    }

    /// Converts an error from before the mail is mentioned. The mail isn't at fault, so it may be sent later, even if
    /// the server calls the error final.
    fn set_up(&self, step: &str, error: &lettre::transport::smtp::Error) -> Trouble {
        match classify(error) {
            Trouble::Answer { code, text } => {
                Trouble::Lost(format!("{} does not let us in: {step}{code} {text}", self.name()))
            }
            Trouble::Lost(problem) => Trouble::Lost(format!("{}: {step}{problem}", self.name())),
        }
    }

    /// Runs one command. Returns the server's refusal if it is about the mail, or an error if the conversation has
    /// ended.
    async fn step(
        &self,
        what: &str,
        command: impl Future<Output = Result<Response, lettre::transport::smtp::Error>>,
    ) -> Result<Option<Trouble>, Trouble> {
        self.step_within(self.timeout, what, command).await
    }

    /// Like [`step`](Self::step), with more time.
    async fn step_within(
        &self,
        timeout: Duration,
        what: &str,
        command: impl Future<Output = Result<Response, lettre::transport::smtp::Error>>,
    ) -> Result<Option<Trouble>, Trouble> {
        match self.bounded_within(timeout, what, command).await? {
            Ok(_) => Ok(None),
            Err(error) => match classify(&error) {
                // The server closes the connection.
                Trouble::Answer { code: 421, text } => Err(Trouble::Lost(format!("{}: 421 {text}", self.name()))),
                Trouble::Lost(problem) => Err(Trouble::Lost(format!("{}: {problem}", self.name()))),
                answer @ Trouble::Answer { .. } => Ok(Some(answer)),
            },
        }
    }

    /// Runs a step with the timeout. `what` completes "the server has not ..".
    async fn bounded<T>(&self, what: &str, step: impl Future<Output = T>) -> Result<T, Trouble> {
        self.bounded_within(self.timeout, what, step).await
    }

    async fn bounded_within<T>(
        &self,
        timeout: Duration,
        what: &str,
        step: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let late = |_| Trouble::Lost(format!("{} has not {what} within {timeout:?}", self.name()));
        tokio::time::timeout(timeout, step).await.map_err(late)
    }

    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns the connection that was kept, if it answers.
    async fn take_kept(&self) -> Option<AsyncSmtpConnection> {
        let Kept { mut connection, since } = lock_std(self.kept.get()).take()?;
        if since.elapsed() < IDLE && matches!(self.step("answered NOOP", connection.command(Noop)).await, Ok(None)) {
            return Some(connection);
        }
        None
    }

    /// Keeps a connection for the next mail, and closes it properly if there is none for a while.
    fn keep(&self, connection: AsyncSmtpConnection) {
        let since = Instant::now();
        *lock_std(self.kept.get()) = Some(Kept { connection, since });
        let (kept, timeout) = (Arc::clone(&self.kept), self.timeout);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let idle = lock_std(kept.get()).take_if(|kept| kept.since == since);
            if let Some(mut idle) = idle {
                let _ = tokio::time::timeout(timeout, idle.connection.abort()).await;
            }
        });
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

fn classify(error: &lettre::transport::smtp::Error) -> Trouble {
    // Each error repeats the one below it.
    let mut innermost = error.source();
    while let Some(below) = innermost.and_then(|cause| cause.source()) {
        innermost = Some(below);
    }
    let cause = innermost.map(ToString::to_string).unwrap_or_default();
    let text = told(&cause, MAX_ANSWER);
    match error.status() {
        Some(code) => Trouble::Answer { code: code.into(), text },
        None if text.is_empty() => Trouble::Lost("the conversation broke off".to_owned()),
        None => Trouble::Lost(text),
    }
}
