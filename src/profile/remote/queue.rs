//! The queue between the instances that are asked for profiles and the workers that make them. apalis keeps it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::consume::Handler;
#[cfg(feature = "apalis-postgres")]
use super::postgres::Postgres;
#[cfg(feature = "apalis-redis")]
use super::redis::Redis;
use crate::error::Error;
use crate::log::{TARGET, log_safely};
use crate::profile::id::Id;
use crate::report::told;

/// The name of a queue that the user has not named.
const NAME: &str = "heeler-profiles";

/// How long one answer of the server may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to add a job. The first one takes some answers: to connect, and to load a script.
const PUSH_PATIENCE: Duration = Duration::from_secs(12);

/// How often a worker asks for news.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(500);

/// How long the server keeps what is over, at least.
pub(super) const KEPT: Duration = Duration::from_secs(60 * 60);

/// A queue that carries the ids of profiles from the instances that are asked for them to the [workers](crate::profile::remote::Worker) that
/// make them. It carries nothing else: the request is in the [store](crate::profile::ProfileStore), sealed.
///
/// It connects on first use, with connections of its own: when somebody asks for a profile, those of the application may be
/// exhausted.
#[derive(Clone)]
pub struct JobQueue {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    #[cfg(feature = "apalis-redis")]
    Redis(Arc<Redis>),
    #[cfg(feature = "apalis-postgres")]
    Postgres(Arc<Postgres>),
}

/// An error of the engine. It may name hosts, so it is for the log.
pub(super) type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// Logs what a queue could not do, without the secrets that an error may quote.
pub(super) fn log_trouble(what: &str, trouble: &Trouble) {
    let trouble = told(&trouble.to_string(), 300);
    log_safely(|| tracing::error!(target: TARGET, "the queue of profiles: {what}: {trouble}"));
}

impl JobQueue {
    /// A queue in Redis, or in what speaks its protocol: `redis://user:password@host:6379/0`. For `rediss://` enable one of the
    /// TLS features of the crate `redis`.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid.
    #[cfg(feature = "apalis-redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "apalis-redis")))]
    pub fn redis(url: &str) -> Result<Self, Error> {
        Ok(Self { engine: Engine::Redis(Arc::new(Redis::new(url, NAME)?)) })
    }

    /// A queue in Postgres: `postgres://user:password@host/database`. On first use, apalis's tables
    /// are created in the schema `apalis`, with the extension `hstore`.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid.
    #[cfg(feature = "apalis-postgres")]
    #[cfg_attr(docsrs, doc(cfg(feature = "apalis-postgres")))]
    pub fn postgres(url: &str) -> Result<Self, Error> {
        Ok(Self { engine: Engine::Postgres(Arc::new(Postgres::new(url, NAME)?)) })
    }

    /// Sets the name of the queue: one for each service that shares a server. Defaults to `heeler-profiles`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let engine = match self.engine {
            #[cfg(feature = "apalis-redis")]
            Engine::Redis(redis) => Engine::Redis(Arc::new(redis.named(name))),
            #[cfg(feature = "apalis-postgres")]
            Engine::Postgres(postgres) => Engine::Postgres(Arc::new(postgres.named(name))),
        };
        Self { engine }
    }

    /// Adds a job. Runs on the supervisor, so that no connection belongs to a runtime that may end.
    pub(super) async fn push(&self, id: Id) -> Result<(), Trouble> {
        let push = async {
            match &self.engine {
                #[cfg(feature = "apalis-redis")]
                Engine::Redis(redis) => redis.push(id.to_string()).await,
                #[cfg(feature = "apalis-postgres")]
                Engine::Postgres(postgres) => postgres.push(id.to_string()).await,
            }
        };
        timeout(PUSH_PATIENCE, push).await.unwrap_or_else(|_| Err("it does not answer".into()))
    }

    /// Hands jobs to `handler`, until `stop` or an error.
    pub(super) async fn consume(
        &self,
        handler: Handler,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Trouble> {
        match &self.engine {
            #[cfg(feature = "apalis-redis")]
            Engine::Redis(redis) => redis.consume(handler, stop).await,
            #[cfg(feature = "apalis-postgres")]
            Engine::Postgres(postgres) => postgres.consume(handler, stop).await,
        }
    }
}

impl fmt::Debug for JobQueue {
    /// Leaves out the URL, which has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (engine, name) = match &self.engine {
            #[cfg(feature = "apalis-redis")]
            Engine::Redis(redis) => ("redis", redis.name()),
            #[cfg(feature = "apalis-postgres")]
            Engine::Postgres(postgres) => ("postgres", postgres.name()),
        };
        f.debug_struct("JobQueue").field("engine", &engine).field("name", &name).finish_non_exhaustive()
    }
}
