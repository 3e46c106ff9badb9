//! The queue in Redis.

use std::time::{Duration, SystemTime};

use apalis_core::backend::ext::BackendExt as _;
use apalis_core::backend::{TaskSink as _, Vacuum as _};
use apalis_core::worker::builder::WorkerBuilder;
use apalis_redis::{Config, RedisStorage};
use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::OnceCell;
use tower::limit::ConcurrencyLimitLayer;

use super::consume::{Handler, Rhythm, Tidying, drive, name, signal};
use super::queue::{KEPT, PATIENCE, POLL_EVERY, Trouble, log_trouble};
use crate::error::Error;
use crate::log::{TARGET, log_safely};
use crate::text::units::duration;

pub(super) struct Redis {
    client: Client,
    name: String,
    /// For the instances that send jobs.
    sender: OnceCell<ConnectionManager>,
}

impl Redis {
    pub(super) fn new(url: &str, name: &str) -> Result<Self, Error> {
        // The error may quote the URL, and with it the password.
        let client = Client::open(url).map_err(|_| Error::config("the URL of the queue in Redis cannot be read"))?;
        Ok(Self { client, name: name.to_owned(), sender: OnceCell::new() })
    }

    pub(super) fn named(&self, name: &str) -> Self {
        Self { client: self.client.clone(), name: name.to_owned(), sender: OnceCell::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn push(&self, id: String) -> Result<(), Trouble> {
        let sender = self.sender.get_or_try_init(|| self.connect()).await?;
        let mut storage = RedisStorage::<String, _>::new(sender.clone()).with_config(self.config(Rhythm::default()));
        storage.push(id).await.map_err(|error| error.to_string())?;
        // The engine lets a job wait until the time of this machine's clock has come by a worker's. All that is in the queue is
        // due, and the ids of jobs are in the order in which they came. If this fails, the job waits for no longer than clocks
        // differ.
        let scheduled = storage.get_config().scheduled_jobs_set();
        let mut due = redis::cmd("ZUNIONSTORE");
        due.arg(&scheduled).arg(1).arg(&scheduled).arg("WEIGHTS").arg(0);
        if let Err(error) = due.query_async::<()>(storage.get_connection()).await {
            log_trouble("a job may wait for as long as clocks differ", &error.into());
        }
        Ok(())
    }

    pub(super) async fn consume(
        &self,
        handler: Handler,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        // Somebody who may not ask for the time may still work.
        if let Err(trouble) = check_clocks(&mut connection, handler.lost_after()).await {
            log_trouble("its time cannot be read", &trouble);
        }
        let config = self.config(handler.rhythm());
        let name = name();
        // The engine never removes it.
        let own = format!("{}:workers:metadata:{name}", self.name);
        let storage = RedisStorage::<String, _>::new(connection).with_config(config);
        let past = storage.clone();
        let ended = [storage.get_config().done_jobs_set(), storage.get_config().dead_jobs_set()];
        let worker = WorkerBuilder::new(name.as_str())
            .backend(storage.poll_with_interval(POLL_EVERY))
            .layer(ConcurrencyLimitLayer::new(handler.at_once))
            .build(handler.into_fn());
        let tidy = move || -> Tidying {
            let (mut past, ended, own) = (past.clone(), ended.clone(), own.clone());
            Box::pin(async move {
                past.vacuum_before(KEPT).await.map_err(|error| error.to_string())?;
                // The ids of what is over, which nobody reads.
                redis::cmd("DEL").arg(&ended).query_async::<()>(past.get_connection()).await?;
                redis::cmd("EXPIRE").arg(&own).arg(KEPT.as_secs()).query_async::<()>(past.get_connection()).await?;
                Ok(())
            })
        };
        drive(worker.run_until(signal(stop)), tidy).await
    }

    /// Connects. By default a connection gives up an answer after half a second, which a busy server may need.
    async fn connect(&self) -> Result<ConnectionManager, Trouble> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE))
            .set_number_of_retries(2);
        Ok(ConnectionManager::new_with_config(self.client.clone(), config).await?)
    }

    /// Claims in the store say who runs a job, so the queue's own locks are not needed.
    fn config(&self, rhythm: Rhythm) -> Config {
        let config = Config::default().queue(&self.name).batch_size(1).lock_tasks(false).emit_events(false);
        config.heartbeat_interval(rhythm.beat).missed_heartbeats(rhythm.missed)
    }
}

/// Says if this machine's clock is not that of Redis: the engine writes down heartbeats by the clock of each worker.
async fn check_clocks(connection: &mut ConnectionManager, lost_after: Duration) -> Result<(), Trouble> {
    let (seconds, micros) = redis::cmd("TIME").query_async::<(u64, u64)>(connection).await?;
    let theirs = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if differs(ours, theirs, lost_after) {
        let by = duration(ours.abs_diff(theirs));
        log_safely(|| {
            tracing::error!(target: TARGET, "this worker's clock differs from that of Redis by {by}: workers will consider each other dead");
        });
    }
    Ok(())
}

/// Returns whether two workers, each of which may differ by as much, could take each other for gone.
fn differs(ours: Duration, theirs: Duration, lost_after: Duration) -> bool {
    ours.abs_diff(theirs) > lost_after / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a clock that is wrong by so much that a worker seems silent is noticed, in both directions. Others are not.
    #[test]
    fn a_wrong_clock_is_noticed() {
        let at = Duration::from_secs;
        for (ours, expected) in [(1_000, false), (1_015, false), (1_016, true), (985, false), (984, true)] {
            assert_eq!(differs(at(ours), at(1_000), at(30)), expected, "{ours}");
        }
    }
}
