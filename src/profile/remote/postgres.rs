//! The queue in Postgres.

use std::time::{Duration, SystemTime};

use apalis_core::backend::TaskSink as _;
use apalis_core::backend::ext::BackendExt as _;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_postgres::{Config, PostgresStorage};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::OnceCell;
use tower::limit::ConcurrencyLimitLayer;

use super::consume::{Handler, Rhythm, Tidying, drive, name, signal};
use super::queue::{KEPT, PATIENCE, POLL_EVERY, Trouble};
use super::settings::SKEW;
use crate::error::Error;

/// A job says that it has been due for this long. It would otherwise wait if the clock of this machine is ahead.
const DUE_SINCE: Duration = SKEW.saturating_mul(2);

pub(super) struct Postgres {
    options: PgConnectOptions,
    name: String,
    /// For the instances that send jobs.
    sender: OnceCell<PgPool>,
}

impl Postgres {
    pub(super) fn new(url: &str, name: &str) -> Result<Self, Error> {
        // The error may quote the URL, and with it the password.
        let options = url.parse().map_err(|_| Error::config("the URL of the queue in Postgres cannot be read"))?;
        Ok(Self { options, name: name.to_owned(), sender: OnceCell::new() })
    }

    pub(super) fn named(&self, name: &str) -> Self {
        Self { options: self.options.clone(), name: name.to_owned(), sender: OnceCell::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn push(&self, id: String) -> Result<(), Trouble> {
        let sender = self.sender.get_or_try_init(|| self.connect()).await?;
        let mut storage = PostgresStorage::<String>::new(sender).with_config(self.config(Rhythm::default()));
        // By this machine's clock, but compared with that of the server. The oldest comes first.
        let due = SystemTime::now().checked_sub(DUE_SINCE).unwrap_or(SystemTime::UNIX_EPOCH);
        let job = TaskBuilder::new(id).run_at_time(due).build();
        storage.push_task(job).await.map_err(|error| error.to_string().into())
    }

    pub(super) async fn consume(
        &self,
        handler: Handler,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Trouble> {
        let pool = self.connect().await?;
        let storage = PostgresStorage::<String>::new(&pool).with_config(self.config(handler.rhythm()));
        let worker = WorkerBuilder::new(name().as_str())
            .backend(storage.poll_with_interval(POLL_EVERY))
            .layer(ConcurrencyLimitLayer::new(handler.at_once))
            .build(handler.into_fn());
        let (past, name) = (pool.clone(), self.name.clone());
        let tidy = move || -> Tidying { Box::pin(remove_old(past.clone(), name.clone())) };
        let ended = drive(worker.run_until(signal(stop)), tidy).await;
        pool.close().await;
        ended
    }

    /// Connects, and creates the tables if there are none.
    async fn connect(&self) -> Result<PgPool, Trouble> {
        let pool = PgPoolOptions::new().max_connections(3).acquire_timeout(PATIENCE);
        let pool = pool.connect_with(self.options.clone()).await?;
        PostgresStorage::<()>::setup(&pool).await.map_err(|error| error.to_string())?;
        Ok(pool)
    }

    /// Claims in the store say who runs a job, so the queue's own locks are not needed.
    fn config(&self, rhythm: Rhythm) -> Config {
        let config = Config::default().queue(&self.name).batch_size(1).lock_tasks(false);
        config.heartbeat_interval(rhythm.beat).missed_heartbeats(rhythm.missed)
    }
}

/// Removes jobs that have long been over, and workers that are long gone: apalis keeps them.
async fn remove_old(pool: PgPool, name: String) -> Result<(), Trouble> {
    let sql = "DELETE FROM apalis.jobs WHERE job_type = $1 AND status IN ('Done', 'Failed', 'Killed') \
               AND done_at < now() - make_interval(secs => $2)";
    sqlx::query(sql).bind(&name).bind(KEPT.as_secs_f64()).execute(&pool).await?;
    let sql = "DELETE FROM apalis.workers WHERE worker_type = $1 AND last_seen < now() - make_interval(days => 1) \
               AND NOT EXISTS (SELECT 1 FROM apalis.jobs WHERE lock_by = workers.id)";
    sqlx::query(sql).bind(&name).execute(&pool).await?;
    Ok(())
}
