//! The worker: a process that makes profiles for others.

use std::fmt::Display;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::Remote;
use super::consume::{Handler, name};
use super::queue::log_trouble;
use super::settings::{SKEW, Unusable};
use super::take::Taker;
use crate::disabled::is_disabled;
use crate::error::Error;
use crate::log::{Clamp, TARGET, log_safely};
use crate::profile::jobs::{Either, either};
use crate::sync::lock_std;

/// The pauses before a queue or store that failed is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a request may run after its wait before it counts as left over.
const REQUESTS_KEPT: Duration = Duration::from_secs(60 * 60);

/// How often what nobody needs any more is removed from the store.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);

/// Makes profiles of requests that other instances send: see the [module](crate::profile::remote).
///
/// It runs the same service as they do, with the same [`ProfileLayer`](crate::ProfileLayer) inside. No listener is needed.
#[derive(Debug)]
pub struct Worker {
    remote: Remote,
    max_concurrent: usize,
}

impl Worker {
    /// Creates a worker. `remote` must have the same queue, store and secret as that of the instances that are asked.
    #[must_use]
    pub const fn new(remote: Remote) -> Self {
        Self { remote, max_concurrent: 1 }
    }

    /// Sets how many requests it takes at a time. Defaults to one, because requests that are profiled side by side slow each
    /// other down. The profile layer has a limit of its own:
    /// [`max_concurrent`](crate::ProfileLayer::max_concurrent).
    ///
    /// Zero counts as one, and the log says so once.
    #[must_use]
    pub fn max_concurrent(mut self, requests: usize) -> Self {
        static CLAMP: Clamp = Clamp::new("Worker::max_concurrent");
        self.max_concurrent = CLAMP.at_least(requests, 1);
        self
    }

    /// Makes profiles until the process ends. If the queue or the store fails, it waits and tries again.
    ///
    /// # Errors
    ///
    /// Returns an error if the store does not support conditional writes, so that two workers could run the same request, or if heeler is
    /// [switched off](crate#switching-it-off).
    pub async fn serve<S, R>(self, service: S) -> Result<(), Error>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Display,
        S::Future: Send,
        R: Send,
    {
        self.serve_until(service, pending()).await
    }

    /// Does the same until `stop` is ready. Then it takes no more requests, and returns when those that run are over. What has
    /// not begun goes back into the queue.
    ///
    /// # Errors
    ///
    /// Those of [`serve`](Self::serve).
    pub async fn serve_until<S, R>(
        self,
        service: S,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Display,
        S::Future: Send,
        R: Send,
    {
        if is_disabled() {
            return Err(Error::config("heeler is switched off in this process, so it cannot be a worker"));
        }
        let (stopping, stopped) = watch::channel(false);
        tokio::spawn(async move {
            // Nobody listens any more if the worker is dropped.
            if let Either::First(()) = either(pin!(stop), pin!(stopping.closed())).await {
                stopping.send_replace(true);
                stopping.closed().await;
            }
        });
        if !self.store_is_good(&stopped).await? {
            return Ok(());
        }
        let taker = self.taker(service, stopped.clone());
        let handle = move |id: String| {
            let taker = taker.clone();
            Box::pin(async move { taker.take(&id).await }) as _
        };
        let handler = Handler::new(Arc::new(handle), self.max_concurrent, self.remote.lost_after);
        let tidy = async {
            loop {
                // Errors are counted in the store.
                let _ = self.remote.store.tidy(self.remote.waits() + SKEW + REQUESTS_KEPT).await;
                sleep(TIDY_EVERY).await;
            }
        };
        let (consuming, tidying) = (pin!(self.consume(&handler, stopped)), pin!(tidy));
        match either(consuming, tidying).await {
            Either::First(()) => handler.all_over().await,
            Either::Second(never) => never,
        }
        Ok(())
    }

    /// Takes jobs from the queue until it is stopped.
    async fn consume(&self, handler: &Handler, stopped: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let ended = self.remote.queue.consume(handler.clone(), has_stopped(stopped.clone())).await;
            if *stopped.borrow() {
                return;
            }
            if let Err(trouble) = ended {
                log_trouble("a worker lost its connection and will reconnect", &trouble);
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            if let Either::Second(()) = either(pin!(sleep(pause)), pin!(has_stopped(stopped.clone()))).await {
                return;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Waits until the store can be used. Returns false if the worker is stopped first.
    async fn store_is_good(&self, stopped: &watch::Receiver<bool>) -> Result<bool, Error> {
        loop {
            match either(pin!(self.remote.check_store()), pin!(has_stopped(stopped.clone()))).await {
                Either::First(Ok(())) => return Ok(true),
                Either::First(Err(unusable @ Unusable::NoConditions)) => {
                    return Err(Error::config(unusable.to_string()));
                }
                Either::First(Err(unusable)) => log_safely(|| {
                    tracing::error!(target: TARGET, "{unusable}, and the worker waits for it");
                }),
                Either::Second(()) => return Ok(false),
            }
            let (pause, stop) = (pin!(sleep(LONGEST_PAUSE / 3)), pin!(has_stopped(stopped.clone())));
            if let Either::Second(()) = either(pause, stop).await {
                return Ok(false);
            }
        }
    }

    fn taker<S, R>(&self, service: S, stopped: watch::Receiver<bool>) -> Taker
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Display,
        S::Future: Send,
        R: Send,
    {
        let service = Mutex::new(service);
        let call = move |request| {
            let mut service = lock_std(&service).clone();
            Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                ready.map_err(|error| error.to_string())?;
                let response = service.call(request).await.map_err(|error| error.to_string())?;
                Ok(response.status())
            }) as _
        };
        Taker { remote: self.remote.clone(), call: Arc::new(call), who: name(), stopped }
    }
}

/// Waits until the worker is to stop.
pub(super) async fn has_stopped(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        pending::<()>().await;
    }
}
