//! The settings of a mail sink.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// The default timeout of one step of the conversation with a mail server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The default number of mails per hour.
const PER_HOUR: u32 = 20;

/// Sends reports as mails: by SMTP, by the system's `sendmail`, or into files. See the [module](crate::report::email)
/// for what a mail contains and when one is sent.
///
/// # Example
///
/// ```
/// use heeler::{Email, Reports};
///
/// let mail = Email::smtp("smtp.example.com", "Watchdog <watchdog@example.com>", ["oncall@example.com"])
///     .credentials("watchdog", "correct horse battery staple")
///     .subject_prefix("[photos] ");
/// assert!(!format!("{mail:?}").contains("horse"));
/// let reports = Reports::builder().email(mail).build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "give it to `ReportsBuilder::email`"]
pub struct Email {
    pub(super) way: Way,
    pub(super) from: Option<String>,
    pub(super) to: Vec<String>,
    pub(super) subject_prefix: String,
    pub(super) timeout: Duration,
    pub(super) per_hour: Option<u32>,
    pub(super) endings: bool,
    /// The first setting that doesn't apply to this way of sending.
    pub(super) misplaced: Option<&'static str>,
}

/// How a mail is sent.
#[derive(Clone)]
pub(super) enum Way {
    Smtp(Server),
    Sendmail { command: OsString },
    Files { directory: PathBuf },
}

/// A mail server, and how to talk to it.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) host: String,
    /// `None` is the usual one for this security.
    pub(super) port: Option<u16>,
    pub(super) security: Security,
    pub(super) credentials: Option<Credentials>,
    /// Certificates, as PEM.
    pub(super) roots: Vec<Vec<u8>>,
}

/// How the connection is protected from eavesdroppers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    StartTls,
    Tls,
    Plaintext,
}

impl Security {
    pub(super) const fn usual_port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::Plaintext => 25,
        }
    }
}

#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl Email {
    fn new(way: Way) -> Self {
        Self {
            way,
            from: None,
            to: Vec::new(),
            subject_prefix: String::new(),
            timeout: TIMEOUT,
            per_hour: Some(PER_HOUR),
            endings: false,
            misplaced: None,
        }
    }

    /// Mails through this server. By default the connection is encrypted by STARTTLS on port 587.
    ///
    /// `host` is a name, which the server's certificate must contain, or an IP address. Addresses may have a name
    /// before them: `Watchdog <watchdog@example.com>`.
    pub fn smtp(
        host: impl Into<String>,
        from: impl Into<String>,
        to: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let host = host.into();
        let server = Server { host, port: None, security: Security::StartTls, credentials: None, roots: Vec::new() };
        Self::new(Way::Smtp(server)).from(from).to(to)
    }

    /// Mails through the system's `sendmail` program, which must be in the `PATH` of the process unless
    /// [`command`](Self::command) says where it is.
    ///
    /// It is run as `sendmail -i -f <from> -- <to>..`, with the mail on its standard input. Exit codes 64, 65, 67 and
    /// 68 (usage, data, no user, no host) mean that the mail is refused for good. After any other code but 0 it is
    /// tried again.
    pub fn sendmail(from: impl Into<String>, to: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(Way::Sendmail { command: "sendmail".into() }).from(from).to(to)
    }

    /// Writes each mail to this directory as `slow_request_<time>_<id>.eml`, and the mail about an update as
    /// `.._<id>_<update>.eml`. For development: mail programs can open these files.
    ///
    /// Creates the directory if it doesn't exist. Only the owner may read it and the files (on Unix). The newest 1,000
    /// mails are kept. Sender and recipient default to `heeler@<host>`, and there is no limit per hour.
    pub fn files(directory: impl Into<PathBuf>) -> Self {
        Self { per_hour: None, ..Self::new(Way::Files { directory: directory.into() }) }
    }

    /// Reads the mail server and the addresses from three environment variables:
    ///
    /// | variable | contains |
    /// |---|---|
    /// | `HEELER_SMTP_URL` | the server, as for [`from_url`](Self::from_url) |
    /// | `HEELER_MAIL_FROM` | the sender's address |
    /// | `HEELER_MAIL_TO` | the recipients' addresses, separated by commas |
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if one of them is missing or empty, or if the URL is invalid. The message names
    /// the variable and contains nothing of the URL.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let variable = |name: &str| {
            let value = get(name).unwrap_or_default().into_string();
            let value = value.map_err(|_| Error::config(format!("the environment variable {name} is not UTF-8")))?;
            match value.trim() {
                "" => Err(Error::config(format!("the environment variable {name} is not set"))),
                value => Ok(value.to_owned()),
            }
        };
        let (url, from, to) =
            (variable("HEELER_SMTP_URL")?, variable("HEELER_MAIL_FROM")?, variable("HEELER_MAIL_TO")?);
        let to = to.split(',').map(str::trim).filter(|address| !address.is_empty());
        Self::from_url(&url, from, to).map_err(|error| Error::config(format!("HEELER_SMTP_URL: {error}")))
    }

    /// Sets the sender's address.
    pub fn from(mut self, address: impl Into<String>) -> Self {
        self.from = Some(address.into());
        self
    }

    /// Sets the recipients' addresses, replacing those given before. All recipients see each other's.
    pub fn to(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.to = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the server's port. Defaults to 587 with [`starttls`](Self::starttls), 465 with [`tls`](Self::tls), 25 with
    /// [`plaintext`](Self::plaintext).
    pub fn port(self, port: u16) -> Self {
        self.server("port", |server| server.port = Some(port))
    }

    /// Encrypts by STARTTLS. This is the default. If the server doesn't offer it, nothing is sent, not even a password.
    pub fn starttls(self) -> Self {
        self.server("starttls", |server| server.security = Security::StartTls)
    }

    /// Encrypts from the first byte on ("SMTPS").
    pub fn tls(self) -> Self {
        self.server("tls", |server| server.security = Security::Tls)
    }

    /// Turns off encryption, for a server on this machine, or in a network that nobody else can read. With
    /// [`credentials`](Self::credentials), only a loopback address is accepted.
    pub fn plaintext(self) -> Self {
        self.server("plaintext", |server| server.security = Security::Plaintext)
    }

    /// Logs in with this name and password, by AUTH PLAIN or LOGIN. `Debug` shows neither.
    pub fn credentials(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let credentials = Credentials { user: user.into(), password: password.into() };
        self.server("credentials", |server| server.credentials = Some(credentials))
    }

    /// Trusts this certificate (PEM, one or several), in addition to those that the system trusts. May be called
    /// several times.
    pub fn root_certificate(self, pem: impl Into<Vec<u8>>) -> Self {
        self.server("root_certificate", |server| server.roots.push(pem.into()))
    }

    /// Sets the path of the `sendmail` program. Defaults to `sendmail`, from the `PATH`.
    pub fn command(mut self, path: impl Into<OsString>) -> Self {
        match &mut self.way {
            Way::Sendmail { command } => *command = path.into(),
            Way::Smtp(_) | Way::Files { .. } => self.misplace("command"),
        }
        self
    }

    /// Sets a prefix for every subject: `[photos] `. Defaults to nothing.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.subject_prefix = prefix.into();
        self
    }

    /// Sets how long a step may take. Defaults to 30 seconds.
    ///
    /// The steps are to connect, to get an answer, and to hand over the mail. With [`sendmail`](Self::sendmail), it is
    /// the time for the whole run. A whole attempt may take four times as long, and five minutes at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many mails may be sent per hour, at least one. Defaults to 20. Reports beyond that are gathered, and
    /// sent as one digest at the end of the hour.
    pub fn per_hour(mut self, mails: u32) -> Self {
        self.per_hour = Some(mails);
        self
    }

    /// Also mails how reported work has [ended](crate::Report::ending), as a reply to the mail about it: "finished after
    /// 2.60 s with 200". By default, this isn't mailed.
    ///
    /// It counts as a mail of the [hour](Self::per_hour). Beyond that number, and if the mail about the report was not
    /// sent by then, there is none.
    pub fn endings(mut self) -> Self {
        self.endings = true;
        self
    }

    pub(super) fn server(mut self, setting: &'static str, change: impl FnOnce(&mut Server)) -> Self {
        match &mut self.way {
            Way::Smtp(server) => change(server),
            Way::Sendmail { .. } | Way::Files { .. } => self.misplace(setting),
        }
        self
    }

    fn misplace(&mut self, setting: &'static str) {
        self.misplaced = self.misplaced.or(Some(setting));
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Email");
        match &self.way {
            Way::Smtp(server) => debug
                .field("host", &server.host)
                .field("port", &server.port.unwrap_or(server.security.usual_port()))
                .field("security", &server.security)
                .field("has_credentials", &server.credentials.is_some()),
            Way::Sendmail { command } => debug.field("sendmail", command),
            Way::Files { directory } => debug.field("files", directory),
        };
        debug.field("from", &self.from).field("to", &self.to).field("per_hour", &self.per_hour).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(url: &str, from: &str, to: &str) -> Result<Email> {
        let (url, from, to) = (url.to_owned(), from.to_owned(), to.to_owned());
        Email::from_variables(move |name| {
            let value = match name {
                "HEELER_SMTP_URL" => &url,
                "HEELER_MAIL_FROM" => &from,
                "HEELER_MAIL_TO" => &to,
                other => panic!("{other}"),
            };
            (value != "-").then(|| value.into())
        })
    }

    #[test]
    fn settings_are_read_from_the_environment() {
        let mail =
            environment("smtps://u:p@mail.example.com", "a@example.com", "b@example.com, c@example.com,").unwrap();
        assert_eq!(mail.from.as_deref(), Some("a@example.com"));
        assert_eq!(mail.to, ["b@example.com", "c@example.com"]);
        let Way::Smtp(server) = &mail.way else { panic!("{mail:?}") };
        assert_eq!((&*server.host, server.security), ("mail.example.com", Security::Tls));
    }

    /// Guards: an error names the variable that is missing, and contains no password.
    #[test]
    fn errors_name_the_variable_and_hold_no_secret() {
        let of = |url, from, to| environment(url, from, to).unwrap_err().to_string();
        assert_eq!(of("-", "a@b", "c@d"), "the environment variable HEELER_SMTP_URL is not set");
        assert_eq!(of("smtp://h", " ", "c@d"), "the environment variable HEELER_MAIL_FROM is not set");
        assert_eq!(of("smtp://h", "a@b", "-"), "the environment variable HEELER_MAIL_TO is not set");
        let error = of("smtp://user:hunter2@", "a@b", "c@d");
        assert!(error.starts_with("HEELER_SMTP_URL: ") && !error.contains("hunter2"), "{error}");
    }

    /// Guards: neither user nor password is in the output of the settings, or of what owns them.
    #[test]
    fn debug_output_contains_no_credentials() {
        let mail = Email::smtp("h", "a@b", ["c@d"]).credentials("somebody", "hunter2");
        let builder = crate::Reports::builder().email(mail.clone());
        for text in [format!("{mail:?}"), format!("{mail:#?}"), format!("{builder:?}")] {
            assert!(!text.contains("hunter2") && !text.contains("somebody"), "{text}");
        }
        assert!(format!("{mail:?}").contains("has_credentials: true"));
    }
}
