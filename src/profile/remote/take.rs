//! On a worker: from an id in the queue to a profile in the store, or to a reason why there is none.
//!
//! The queue may hand out an id more than once, so it decides nothing. What decides is who creates the claim of an attempt.
//! There are at most two attempts, and a second one only if the worker of the first is gone and the request may run twice.
//! Whatever fails afterwards, a delivery that has run a request does not run it again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::queue::log_trouble;
use super::request::SentRequest;
use super::settings::{SKEW, STORE_PATIENCE, TRY_AGAIN};
use super::worker::has_stopped;
use super::{Delivery, Remote};
use crate::log::{TARGET, log_safely};
use crate::profile::id::Id;
use crate::profile::jobs::{self, Either, both, either};
use crate::profile::store::{ATTEMPTS, Claim, Phase, Status, StoreError};
use crate::report::told;

/// How long a request may take to reach its profiler.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How often a worker says that it has a request, and looks at what others say.
const BEAT: Duration = Duration::from_secs(1);

/// The most characters of an error of the service.
const MAX_WORDS: usize = 300;

/// How long an id that this process cannot read is kept from others.
const PUT_BACK_AFTER: Duration = Duration::from_secs(5);

/// Calls the worker's service, and returns the status of its response.
pub(super) type Call =
    Arc<dyn Fn(Request<Full<Bytes>>) -> Pin<Box<dyn Future<Output = Result<StatusCode, String>> + Send>> + Send + Sync>;

/// Takes jobs from the queue.
#[derive(Clone)]
pub(super) struct Taker {
    pub(super) remote: Remote,
    pub(super) call: Call,
    /// Names this process, as no other one is named.
    pub(super) who: String,
    /// Whether the worker is to stop. What has not begun is left to another one then.
    pub(super) stopped: watch::Receiver<bool>,
}

/// What is left to do about a job.
enum Step {
    /// Nothing: it is over, or somebody else's.
    Over,
    /// To write down how it has ended. It must not run again.
    End(Box<Status>),
    /// To leave it to another worker: this one cannot read it, or cannot run it now.
    PutBack,
}

/// Why something was given up.
enum Left {
    /// The worker is to stop.
    Stopped,
    /// There is no sense in another attempt.
    Failed,
}

/// What has become of the worker that has claimed a job.
enum Holder {
    /// It is still at it, or has ended it.
    Alive,
    Gone,
    /// There was no time to find out, because this worker is to stop.
    Unknown,
}

impl Taker {
    /// Does what an id in the queue asks for. Waits for the store if it fails.
    pub(super) async fn take(&self, id: &str) {
        let Ok(id) = id.parse::<Id>() else {
            log_safely(|| tracing::warn!(target: TARGET, "the queue of profiles has something in it that is no id"));
            return;
        };
        // A claim belongs to one delivery of one worker: the queue may deliver twice to the same one.
        let Ok(delivery) = Id::random() else { return };
        let who = format!("{} {delivery}", self.who);
        let step = match self.persevere(id, true, || self.step(id, &who)).await {
            Ok(step) => step,
            Err(Left::Stopped) => Step::PutBack,
            Err(Left::Failed) => Step::Over,
        };
        match step {
            Step::Over => {}
            Step::End(status) => _ = self.persevere(id, false, || self.end(&status)).await,
            Step::PutBack => self.put_back(id).await,
        }
    }

    /// Tries until it succeeds, for as long as a request may wait. `is_left`: it ends early if the worker is to stop.
    async fn persevere<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        id: Id,
        is_left: bool,
        mut work: impl FnMut() -> F,
    ) -> Result<T, Left> {
        let began = Instant::now();
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // What is corrupt, or too large, will be so the next time.
            if !matches!(error, StoreError::Unavailable { .. }) || began.elapsed() >= self.remote.waits() {
                let short = id.short();
                log_safely(|| tracing::error!(target: TARGET, "the profile {short}… is given up: {error}"));
                return Err(Left::Failed);
            }
            if self.pause(TRY_AGAIN).await && is_left {
                return Err(Left::Stopped);
            }
        }
    }

    /// Waits, and returns whether the worker is to stop. If it is, the pause may be short.
    async fn pause(&self, time: Duration) -> bool {
        if *self.stopped.borrow() {
            sleep(time.min(BEAT)).await;
            return true;
        }
        let stopped = has_stopped(self.stopped.clone());
        matches!(either(pin!(sleep(time)), pin!(stopped)).await, Either::Second(()))
    }

    /// Gives an id back to the queue, after a while in which others may come first.
    async fn put_back(&self, id: Id) {
        self.pause(PUT_BACK_AFTER).await;
        let began = Instant::now();
        while let Err(trouble) = self.remote.queue.push(id).await {
            log_trouble("a request could not be put back", &trouble);
            if self.pause(TRY_AGAIN).await || began.elapsed() >= self.remote.waits() {
                return;
            }
        }
    }

    /// Runs the job, unless it is over or somebody else's. After an error it can be called again: nothing has run.
    async fn step(&self, id: Id, who: &str) -> Result<Step, StoreError> {
        let store = &self.remote.store;
        let status = match store.sent_status(&id).await {
            Ok(Some(status)) => status,
            // Nobody waits for it.
            Ok(None) => {
                let short = id.short();
                log_safely(|| {
                    tracing::warn!(target: TARGET, "the queue has the profile {short}…, which is not in the store: it has expired, or two services share this queue");
                });
                return store.remove_request(id).await.map(|()| Step::Over);
            }
            Err(StoreError::Corrupt { why, .. }) => return self.cannot_read(id, &why).await,
            Err(error) => return Err(error),
        };
        let ends = |phase| Ok(Step::End(Box::new(Status { phase, ..status.clone() })));
        if status.phase.is_over() {
            store.close(id).await?;
            return store.remove_request(id).await.map(|()| Step::Over);
        }
        let (bytes, sealed_at) = match store.request(id).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Step::Over),
            Err(StoreError::Corrupt { why, .. }) => {
                return ends(Phase::Failed(format!("its sealed request was refused: {why}")));
            }
            Err(error) => return Err(error),
        };
        let Ok(request) = serde_json::from_slice::<SentRequest>(&bytes) else {
            return ends(Phase::Failed("its request cannot be read".to_owned()));
        };
        let owner = request.principal.as_deref();
        match store.get(&id, owner).await {
            Ok(None) => {}
            // Its worker has ended before it could say so, perhaps before the index knew of it.
            Ok(Some(profile)) => match store.put(Arc::new(profile), owner).await {
                Ok(()) => return ends(Phase::Done),
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                Err(error) => return ends(Phase::Failed(error.to_string())),
            },
            Err(error @ StoreError::Unavailable { .. }) => return Err(error),
            Err(error) => return ends(Phase::Failed(error.to_string())),
        }
        if let Some(why) = refused(sealed_at, SystemTime::now(), self.remote.waits()) {
            return ends(Phase::Failed(why.to_owned()));
        }
        if store.is_cancelled(&id).await? {
            return ends(Phase::Cancelled);
        }
        if *self.stopped.borrow() {
            return Ok(Step::PutBack);
        }
        if jobs::UNRETURNED.get().is_full() {
            log_safely(|| {
                tracing::error!(target: TARGET, "this worker leaves profiles to others: too many of its requests were given up and have not returned");
            });
            return Ok(Step::PutBack);
        }
        for attempt in 1..=ATTEMPTS {
            let again = attempt < ATTEMPTS && request.may_run_again();
            match store.claim(id, attempt, who).await? {
                Claim::Mine => {
                    let sent = Some(self.remote.job(again));
                    let taken = Status { phase: Phase::Queued { place: 0 }, sent, ..status.clone() };
                    let phase = self.run(&taken, &request).await.unwrap_or_else(Phase::Failed);
                    return ends(phase);
                }
                Claim::Taken => match self.holder(id).await? {
                    Holder::Alive => return Ok(Step::Over),
                    Holder::Unknown => return Ok(Step::PutBack),
                    Holder::Gone if again => {}
                    Holder::Gone => {
                        let why = if attempt > 1 {
                            "two workers that ran it are gone, one after the other".to_owned()
                        } else {
                            let method = &status.method;
                            format!(
                                "its worker is gone, and a {method} is not run again: it may have changed something"
                            )
                        };
                        return ends(Phase::Failed(why));
                    }
                },
            }
        }
        Ok(Step::Over)
    }

    /// Another secret has sealed it, or it was altered. Another worker may be able to read it, as long as it is not too old.
    async fn cannot_read(&self, id: Id, why: &str) -> Result<Step, StoreError> {
        let short = id.short();
        log_safely(|| {
            tracing::error!(target: TARGET, "this worker cannot read how far the profile {short}… is: {why}. Does it have the same secret as the others?");
        });
        let age = self.remote.store.age_of_request(id).await?;
        Ok(if age.is_some_and(|age| age < self.remote.waits()) { Step::PutBack } else { Step::Over })
    }

    /// Returns what has become of whoever has claimed a job. Waits until that is certain: by this machine's clock alone,
    /// because those of machines differ.
    async fn holder(&self, id: Id) -> Result<Holder, StoreError> {
        let (mut since, mut last) = (Instant::now(), None);
        loop {
            let Some(status) = self.remote.store.sent_status(&id).await? else { return Ok(Holder::Alive) };
            if status.phase.is_over() {
                return Ok(Holder::Alive);
            }
            match last {
                Some(last) if last != status.updated_at => return Ok(Holder::Alive),
                Some(_) if since.elapsed() >= self.remote.lost_after + 2 * BEAT => return Ok(Holder::Gone),
                Some(_) => {}
                None => (since, last) = (Instant::now(), Some(status.updated_at)),
            }
            if self.pause(BEAT).await {
                return Ok(Holder::Unknown);
            }
        }
    }

    /// Has the worker's service run the request, and waits until the job is over. Returns how it has ended, or why it never began.
    async fn run(&self, taken: &Status, request: &SentRequest) -> Result<Phase, String> {
        let (Some(mut http), Some(sent)) = (request.request(), taken.sent) else {
            return Err("its request cannot be read".to_owned());
        };
        let store = self.remote.store.clone();
        let (delivery, ended) = Delivery::new(taken.id, request.start(), sent, store, request);
        http.extensions_mut().insert(delivery.clone());
        let mut called = tokio::spawn((self.call)(http));
        let over = Notify::new();
        let answered = async {
            let answered = timeout(ARRIVAL, &mut called).await;
            over.notify_one();
            answered
        };
        let (answered, ()) = both(pin!(answered), pin!(self.beat(taken, &delivery, &over))).await;
        if delivery.take().is_none() {
            return ended.await.unwrap_or_else(|_| Err("the worker's profiler has failed".to_owned()));
        }
        Err(match answered {
            Ok(Ok(Ok(status))) => {
                format!("the worker's service answered {} before the request came to its profiler", status.as_u16())
            }
            Ok(Ok(Err(error))) => {
                let error = told(&error, MAX_WORDS);
                format!("the worker's service failed before the request came to its profiler: {error}")
            }
            Ok(Err(_)) => "the worker's service panicked before the request came to its profiler".to_owned(),
            Err(_) => {
                called.abort();
                let seconds = ARRIVAL.as_secs();
                format!("the request did not come to the profiler of the worker's service within {seconds} s")
            }
        })
    }

    /// Says again and again that a worker has the request, until its profiler does. Never ends in the middle of a write, so that
    /// nothing comes after the job's last status.
    async fn beat(&self, taken: &Status, delivery: &Delivery, over: &Notify) {
        loop {
            if !delivery.is_taken() {
                let now = Status { updated_at: SystemTime::now(), ..taken.clone() };
                // Errors are counted in the store. The next one may succeed.
                let _ = timeout(STORE_PATIENCE, self.remote.store.put_status(&now)).await;
            }
            if let Either::Second(()) = either(pin!(sleep(BEAT)), pin!(over.notified())).await {
                return;
            }
        }
    }

    /// Writes down how it has ended, unless that is written. Nothing is left to run.
    async fn end(&self, ended: &Status) -> Result<(), StoreError> {
        let store = &self.remote.store;
        match store.sent_status(&ended.id).await? {
            Some(written) if !written.phase.is_over() => {
                store.end(&Status { updated_at: SystemTime::now(), ..ended.clone() }).await
            }
            Some(_) | None => {
                store.close(ended.id).await?;
                store.remove_request(ended.id).await
            }
        }
    }
}

/// Returns why a request that was sealed then does not run now.
fn refused(sealed_at: SystemTime, now: SystemTime, waits: Duration) -> Option<&'static str> {
    match now.duration_since(sealed_at) {
        Ok(age) if age > waits + SKEW => Some("its request is too old"),
        Err(ahead) if ahead.duration() > SKEW => Some("its request comes from the future: check the machines' clocks"),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a service in which the request never reaches the profiler, because authorisation hangs for example, costs a
    /// minute, and the page says so. The request is gone from the store, and nobody runs it again.
    #[cfg(feature = "apalis-redis")]
    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_arrives_is_given_up() {
        use std::sync::atomic::{AtomicU32, Ordering};

        use object_store::memory::InMemory;

        use super::super::{JobQueue, Secret};
        use crate::profile::ProfileStore;
        use crate::profile::flag::Start;

        // Nothing is put into the queue.
        let queue = JobQueue::redis("redis://127.0.0.1:1/").unwrap();
        let store = ProfileStore::object_store(Arc::new(InMemory::new()), "p");
        let secret = Secret::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let remote = Remote::new(queue, store, secret).unwrap();
        let called = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&called);
        let call: Call = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        });
        let (_stop, stopped) = watch::channel(false);
        let taker = Taker { remote: remote.clone(), call, who: "one".to_owned(), stopped };
        let (head, ()) = Request::get("/albums").body(()).unwrap().into_parts();
        let start = Start { form: None, runs: None, process: false, inline: false };
        let request = SentRequest::new(&head, b"", None, start);
        let id = Id::random().unwrap();
        let status = Status {
            id,
            principal: None,
            phase: Phase::Sent { again: false },
            method: "GET".to_owned(),
            uri: "/albums".to_owned(),
            started_at: SystemTime::now(),
            updated_at: SystemTime::now(),
            elapsed_ms: 0,
            polls: 0,
            samples: 0,
            place: None,
            sent: Some(remote.job(true)),
        };
        remote.store.put_status(&status).await.unwrap();
        remote.store.put_request(id, serde_json::to_vec(&request).unwrap()).await.unwrap();

        let began = Instant::now();
        for _ in 0..2 {
            taker.take(&id.to_string()).await;
        }
        assert!(began.elapsed() >= ARRIVAL && began.elapsed() < ARRIVAL + 2 * BEAT, "{:?}", began.elapsed());
        assert_eq!(called.load(Ordering::Relaxed), 1);
        let ended = remote.store.sent_status(&id).await.unwrap().unwrap();
        let Phase::Failed(why) = ended.phase else { panic!("{:?}", ended.phase) };
        assert!(why.contains("did not come to the profiler of the worker's service within 60 s"), "{why}");
        assert!(remote.store.request(id).await.unwrap().is_none());
    }

    /// Guards: a request that is older than it may wait is refused, and one from the future. Clocks may differ by five minutes.
    #[test]
    fn a_request_of_another_time_is_refused() {
        let (now, waits) = (SystemTime::now(), Duration::from_secs(900));
        let second = Duration::from_secs(1);
        assert_eq!(refused(now - waits - SKEW, now, waits), None);
        assert_eq!(refused(now - waits - SKEW - second, now, waits), Some("its request is too old"));
        assert_eq!(refused(now + SKEW, now, waits), None);
        assert!(refused(now + SKEW + second, now, waits).unwrap().contains("future"));
    }
}
