//! Tasks that handle one message after another.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Watch;
use super::layer::SHORTEST;
use crate::inflight::{Job, Resource, ResourceId};
use crate::log::Clamp;
use crate::report::Reports;
use crate::resource::Initialize;

/// A task that owns something and handles messages about it, one after another.
///
/// While it handles a message, all others wait. Callers that wait for its answer should use
/// [`wait_for`](crate::wait_for). Then a report about one of them says which message the actor is busy with, for how long,
/// and where that is. If two actors wait for each other, the report calls it a deadlock.
///
/// Clones are the same actor.
///
/// ```
/// use std::time::Duration;
///
/// use heeler::Actor;
/// use tokio::sync::{mpsc, oneshot};
///
/// # async fn send(mail: &str) -> usize { mail.len() }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mailer = Actor::new("mailer", Duration::from_secs(2));
/// let (queue, mut messages) = mpsc::channel::<(String, oneshot::Sender<usize>)>(16);
///
/// let actor = mailer.clone();
/// tokio::spawn(async move {
///     while let Some((mail, answer)) = messages.recv().await {
///         let sent = actor.message("send", send(&mail)).queued(messages.len()).await;
///         let _ = answer.send(sent);
///     }
/// });
///
/// // In a request.
/// let (answer, answered) = oneshot::channel();
/// heeler::wait_for(&mailer, queue.send(("hello".to_owned(), answer))).await.unwrap();
/// let sent = heeler::wait_for(&mailer, answered).await.unwrap();
/// # assert_eq!(sent, 5);
/// # }
/// ```
#[derive(Clone)]
pub struct Actor {
    name: Cow<'static, str>,
    resource: Resource,
    threshold: Duration,
    reports: Option<Reports>,
}

pin_project! {
    /// The future returned by [`Actor::message`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct HandleMessage<F> {
        #[pin]
        inner: Watch<Initialize<F>>,
    }
}

impl Actor {
    /// Creates an actor. A message that takes longer than `threshold` is reported as a job, to the log unless
    /// [`reports`](Self::reports) says otherwise. A threshold below one millisecond counts as one millisecond, and the
    /// log says so once.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, threshold: Duration) -> Self {
        static CLAMP: Clamp = Clamp::new("Actor::new");
        let name = name.into();
        let resource = Resource::new(name.clone());
        Self { name, resource, threshold: CLAMP.at_least(threshold, SHORTEST), reports: None }
    }

    /// Sets where reports about its messages are delivered. Defaults to the log.
    #[must_use]
    pub fn reports(mut self, reports: Reports) -> Self {
        self.reports = Some(reports);
        self
    }

    /// Handles one message: the actor is busy with it from the first poll of `future` until that ends. `label` says what
    /// kind of message it is. Reports call it a job with the actor's name and that label: `mailer: send`.
    #[track_caller]
    pub fn message<F: Future>(&self, label: impl fmt::Display, future: F) -> HandleMessage<F> {
        let mut job = Job::new(format!("{}: {label}", self.name));
        job.reports = self.reports.as_ref().map(Reports::target);
        let busy = Initialize::new((&self.resource).into(), future, Location::caller());
        HandleMessage { inner: Watch::new(job, self.threshold, busy) }
    }
}

impl<F> HandleMessage<F> {
    /// Says how many messages are queued behind this one, for its reports. Has no effect once the future has been polled.
    pub fn queued(self, messages: usize) -> Self {
        Self { inner: self.inner.with(|job| job.queued = Some(messages)) }
    }
}

impl<F: Future> Future for HandleMessage<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

/// Lets callers pass the actor to [`wait_for`](crate::wait_for).
impl From<&Actor> for ResourceId {
    fn from(actor: &Actor) -> Self {
        (&actor.resource).into()
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").field("name", &self.name).field("threshold", &self.threshold).finish_non_exhaustive()
    }
}
