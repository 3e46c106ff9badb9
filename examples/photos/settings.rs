//! Flags and environment variables, checked before anything starts.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use crate::Problem;

pub(crate) const HELP: &str = "\
A photo-organising service with thirteen ways to be slow, and heeler watching it.

usage: photos [--tour | --serve | --worker] [--full]

  (no flag)  seed, serve, walk the tour, print what it found, go on serving
  --tour     exit after the tour: 0 only if every cause was found
  --serve    serve only
  --worker   make profiles for other instances; needs the feature remote
  --full     100000 users and 1000000 photos instead of 10000 and 100000

environment:
  PHOTOS_ADDR          where to serve                          (127.0.0.1:3000)
  PHOTOS_REPORTS       directory for the reports               (target/photos)
                       and, with the feature email, for mail: in mail
  PHOTOS_THRESHOLD_MS  a request is slow after that long       (250; 50 to 10000)
  PHOTOS_LAYERS        heeler's tools, or none                 (watchdog,timebox,profile)
  PHOTOS_CONSOLE       where to show what is in flight         (127.0.0.1:3001)
  PHOTOS_ADMIN_TOKEN   who has it may profile and look         (made up and printed)

with the feature remote, profiles are made by workers if these are set,
and PHOTOS_ADMIN_TOKEN, and are the same for all instances:
  PHOTOS_QUEUE         a Redis: redis://127.0.0.1:6379/
  PHOTOS_STORE         the directory that all instances share
  PHOTOS_SECRET        what seals it: openssl rand -base64 32
";

const DEFAULT_CONSOLE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3001));

pub(crate) const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3000));

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    TourThenServe,
    Tour,
    Serve,
    Worker,
}

/// One of heeler's tools, as named in `PHOTOS_LAYERS`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Watchdog,
    Timebox,
    Profile,
}

/// The secret that lets somebody profile requests. Not printed by accident.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: String,
    /// Nobody has set one, so the person who starts the service has to be told.
    pub(crate) made_up: bool,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) users: i64,
    pub(crate) photos: i64,
    /// `None` if nobody asked for a certain one.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) reports: PathBuf,
    pub(crate) threshold: Duration,
    pub(crate) tools: Vec<Tool>,
    pub(crate) console: SocketAddr,
    pub(crate) token: Token,
    /// Where profiles are made, if not here.
    #[cfg(feature = "remote")]
    pub(crate) remote: Option<heeler::profile::remote::Remote>,
}

impl Settings {
    /// Returns `None` if help was asked for.
    pub(crate) fn read() -> Result<Option<Self>, Problem> {
        let (mut tour, mut serve, mut worker, mut full) = (false, false, false, false);
        for argument in env::args_os().skip(1) {
            match argument.to_str() {
                Some("--tour") => tour = true,
                Some("--serve") => serve = true,
                Some("--worker") => worker = true,
                Some("--full") => full = true,
                Some("--help" | "-h") => return Ok(None),
                _ => return Err(format!("unknown argument {argument:?}; --help lists the known ones").into()),
            }
        }
        let mode = match (tour, serve, worker) {
            (true, false, false) => Mode::Tour,
            (false, true, false) => Mode::Serve,
            (false, false, true) => Mode::Worker,
            (false, false, false) => Mode::TourThenServe,
            _ => return Err("--tour, --serve and --worker exclude each other".into()),
        };
        let (users, photos) = if full { (100_000, 1_000_000) } else { (10_000, 100_000) };
        Ok(Some(Self {
            mode,
            users,
            photos,
            address: address_in("PHOTOS_ADDR")?,
            reports: reports()?,
            threshold: threshold()?,
            tools: tools()?,
            console: address_in("PHOTOS_CONSOLE")?.unwrap_or(DEFAULT_CONSOLE),
            token: token()?,
            #[cfg(feature = "remote")]
            remote: remote()?,
        }))
    }

    /// Where messages are put instead of being sent.
    #[cfg(feature = "email")]
    pub(crate) fn messages(&self) -> PathBuf {
        self.reports.join("mail")
    }

    pub(crate) fn has(&self, tool: Tool) -> bool {
        self.tools.contains(&tool)
    }

    /// How long something slow lasts: past the reports at one, two and four times the threshold, and no longer.
    pub(crate) fn stuck_for(&self) -> Duration {
        self.threshold * 5
    }
}

fn variable(name: &str) -> Result<Option<String>, Problem> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(value)) => Err(format!("{name}={value:?} is not UTF-8").into()),
    }
}

fn address_in(name: &str) -> Result<Option<SocketAddr>, Problem> {
    let Some(value) = variable(name)? else { return Ok(None) };
    match value.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(format!("{name}={value:?} is not an address and port such as 127.0.0.1:3000").into()),
    }
}

fn reports() -> Result<PathBuf, Problem> {
    match env::var_os("PHOTOS_REPORTS") {
        None => Ok("target/photos".into()),
        Some(value) if value.is_empty() => Err("PHOTOS_REPORTS is empty: it names a directory".into()),
        Some(value) => Ok(value.into()),
    }
}

/// Below 50 ms even a normal request on a busy machine is slow. Above 10 s the tour takes longer than anybody waits.
fn threshold() -> Result<Duration, Problem> {
    let Some(value) = variable("PHOTOS_THRESHOLD_MS")? else { return Ok(Duration::from_millis(250)) };
    match value.parse() {
        Ok(milliseconds @ 50..=10_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(format!("PHOTOS_THRESHOLD_MS={value:?} is not a whole number from 50 to 10000").into()),
    }
}

fn tools() -> Result<Vec<Tool>, Problem> {
    let Some(value) = variable("PHOTOS_LAYERS")? else { return Ok(vec![Tool::Watchdog, Tool::Timebox, Tool::Profile]) };
    if value.trim() == "none" {
        return Ok(Vec::new());
    }
    let mut tools = Vec::new();
    for word in value.split(',') {
        let tool = match word.trim() {
            "watchdog" => Tool::Watchdog,
            "timebox" => Tool::Timebox,
            "profile" => Tool::Profile,
            "none" => return Err(format!("PHOTOS_LAYERS={value:?}: \"none\" stands alone").into()),
            word => {
                return Err(format!(
                    "PHOTOS_LAYERS={value:?}: {word:?} is none of watchdog, timebox, profile and none"
                )
                .into());
            }
        };
        if !tools.contains(&tool) {
            tools.push(tool);
        }
    }
    Ok(tools)
}

#[cfg(feature = "remote")]
fn remote() -> Result<Option<heeler::profile::remote::Remote>, Problem> {
    use heeler::profile::ProfileStore;
    use heeler::profile::remote::{JobQueue, Remote, Secret};
    let (queue, store, secret) = (variable("PHOTOS_QUEUE")?, variable("PHOTOS_STORE")?, variable("PHOTOS_SECRET")?);
    match (queue, store, secret) {
        (None, None, None) => Ok(None),
        (Some(queue), Some(store), Some(secret)) => {
            std::fs::create_dir_all(&store)?;
            let store = object_store::local::LocalFileSystem::new_with_prefix(store)?.with_automatic_cleanup(true);
            let store = ProfileStore::object_store(std::sync::Arc::new(store), "profiles");
            Ok(Some(Remote::new(JobQueue::redis(&queue)?, store, Secret::from_base64(&secret)?)?))
        }
        _ => Err("PHOTOS_QUEUE, PHOTOS_STORE and PHOTOS_SECRET go together".into()),
    }
}

fn token() -> Result<Token, Problem> {
    if let Some(secret) = variable("PHOTOS_ADMIN_TOKEN")? {
        return Ok(Token { secret, made_up: false });
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let secret = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Token { secret, made_up: true })
}
