//! Takes a job through its course. This runs on the supervisor, because the job's own thread may be inside the
//! request's code.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::job::Entered;
use super::process_sampling::ProcessSampling;
use super::thread::Drive;
use super::turn::{GiveUp, Turn};
use super::{Job, Run, Seen, Stop, Ticket, UNRETURNED, assemble};
use crate::profile::layer::Config;
use crate::profile::store::{HEARTBEAT, Phase, Status, StoreError};
use crate::profile::{Outcome, Profile};

/// How often a job's status is written.
const BEAT: Duration = Duration::from_secs(1);

// Otherwise others would think it was lost.
const _: () = assert!(BEAT.as_nanos() <= HEARTBEAT.as_nanos());

/// How long one access to the store may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stopped request may take to end. If it takes longer, its poll does not return, and it is left alone.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// The outcome of a job.
pub(in crate::profile) type Ended = Result<Arc<Profile>, Phase>;

/// Everything that a job needs on its way.
pub(in crate::profile) struct Course {
    pub(in crate::profile) config: Arc<Config>,
    pub(in crate::profile) job: Arc<Job>,
    pub(in crate::profile) ticket: Ticket,
    pub(in crate::profile) entered: Entered,
    pub(in crate::profile) run: Run,
    pub(in crate::profile) seen: Seen,
    /// Whether the rest of the process is sampled meanwhile.
    pub(in crate::profile) process: bool,
    /// Whether the request runs as a task of its runtime, not on a profile thread.
    pub(in crate::profile) inline: bool,
    /// The application's runtime, where the request would have run.
    pub(in crate::profile) runtime: Handle,
}

/// Takes a job from the queue to the store. Runs on the supervisor. Its blocking pool does what takes long, because the
/// application's pool may be full of what requests have left behind.
pub(in crate::profile) async fn supervise(course: Course) -> Ended {
    let Course { config, job, mut ticket, entered: _entered, run, seen, process, inline, runtime } = course;
    let over = Notify::new();
    let ended = async {
        let ended = async {
            let its_turn = queue(&job, &mut ticket).await;
            let (turn, give_up) = Turn::new(ticket);
            let drive = Drive { job: Arc::clone(&job), turn, run, rate_hz: config.rate_hz };
            if let Err(phase) = its_turn {
                drive.discard(runtime, &give_up);
                return Err(phase);
            }
            let meanwhile = if process { ProcessSampling::start().await } else { ProcessSampling::default() };
            let running = if inline {
                drive.inline(&runtime)
            } else {
                match drive.on_thread(runtime.clone(), Handle::current()) {
                    Ok(running) => running,
                    Err((error, drive)) => {
                        drive.discard(runtime, &give_up);
                        return Err(Phase::Failed(format!("a thread for it could not be started: {error}")));
                    }
                }
            };
            let (outcome, mut notes) = watch(&config, &job, running, &give_up).await;
            let meanwhile = meanwhile.finish(&mut notes).await;
            let Some(recording) = job.recording().cloned() else {
                return Err(Phase::Failed("the application's runtime has shut down".to_owned()));
            };
            let record = spawn_blocking(move || recording.finish()).await;
            let Ok(record) = record else {
                return Err(Phase::Failed("what was recorded could not be read".to_owned()));
            };
            let (runs, response) = seen.take();
            let subject = assemble::Subject { id: job.id, request: &job.request, reason: None };
            let mut profile = assemble::profile(subject, &config, record, outcome, runs, response, notes);
            profile.meanwhile = meanwhile;
            assemble::reduce(&config.redactor, &mut profile);
            Ok(Arc::new(profile))
        }
        .await;
        let phase = match &ended {
            Ok(profile) => {
                config.push_to.push(profile);
                let principal = job.principal.as_deref();
                keep(&config, profile, principal).await.map_or_else(Phase::Failed, |()| Phase::Done)
            }
            Err(phase) => {
                job.set_phase(phase.clone());
                phase.clone()
            }
        };
        over.notify_one();
        (ended, phase)
    };
    // The job that has the turn does not wait for the store. The beat goes on until the profile is there.
    let ((ended, phase), ()) = both(pin!(ended), pin!(beat(&config, &job, &over))).await;
    put(&config, &job, phase).await;
    ended
}

/// Brings a profile to the store. If the store fails, this is tried again for a while: the request cannot be.
pub(in crate::profile) async fn keep(
    config: &Config,
    profile: &Arc<Profile>,
    principal: Option<&str>,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match timeout(PATIENCE * 3, config.store.put(Arc::clone(profile), principal)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(StoreError::Unavailable { .. })) if began.elapsed() < PATIENCE => sleep(BEAT).await,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the store of profiles takes too long".to_owned()),
        }
    }
}

/// Waits for the job's turn.
async fn queue(job: &Job, ticket: &mut Ticket) -> Result<(), Phase> {
    let mut was_full = false;
    loop {
        let has_turn = {
            let (turn, stopped) = (pin!(ticket.turn()), pin!(job.stopped()));
            match timeout(BEAT, either(turn, stopped)).await {
                Ok(Either::First(())) => true,
                Ok(Either::Second(_)) => return Err(Phase::Cancelled),
                Err(_) => false,
            }
        };
        let is_full = UNRETURNED.get().is_full();
        if has_turn && !is_full {
            return Ok(());
        }
        if is_full && was_full {
            return Err(Phase::Failed(
                "too many profiled requests have been given up and have not returned".to_owned(),
            ));
        }
        was_full = is_full;
        if has_turn {
            // This may last only a moment: those that leave the queue together count until each is dropped, on a thread
            // of its own.
            if let Either::Second(_) = either(pin!(sleep(BEAT)), pin!(job.stopped())).await {
                return Err(Phase::Cancelled);
            }
        }
        job.set_phase(Phase::Queued { place: ticket.place() });
    }
}

/// Waits for the request's end, and stops it when its time is up.
async fn watch(
    config: &Config,
    job: &Job,
    mut running: oneshot::Receiver<Outcome>,
    give_up: &GiveUp,
) -> (Outcome, Vec<String>) {
    let stopped = async {
        let _ = timeout(config.timeout, job.stopped()).await;
        job.stop(Stop::TooLong);
        sleep(GIVE_UP_AFTER).await;
    };
    match either(Pin::new(&mut running), pin!(stopped)).await {
        Either::First(Ok(outcome)) => (outcome, Vec::new()),
        // A runtime that shuts down drops its tasks.
        Either::First(Err(_)) => (Stop::RuntimeEnded.outcome(), Vec::new()),
        Either::Second(()) => {
            let outcome = job.is_stopped().map_or(Outcome::TooLong, Stop::outcome);
            let rest = if give_up.give_up(UNRETURNED.get()) {
                ""
            } else {
                ", and the next profile waits for it, because too many others have not returned either"
            };
            let note = "The request was stopped, but a poll of it has not returned since: its thread is still in it";
            (outcome, vec![format!("{note}{rest}.")])
        }
    }
}

/// Writes down how far it is, and checks whether somebody has asked another instance to stop it. Ends when the job is
/// over, and never in the middle of a write, so that nothing comes after a job's last status.
async fn beat(config: &Config, job: &Job, over: &Notify) {
    loop {
        put_status(config, job.status().await).await;
        if is_cancelled(config, job).await {
            job.stop(Stop::Cancelled);
        }
        if let Either::Second(()) = either(pin!(sleep(BEAT)), pin!(over.notified())).await {
            return;
        }
    }
}

async fn put(config: &Config, job: &Job, phase: Phase) {
    job.set_phase(phase);
    put_status(config, job.status().await).await;
}

async fn put_status(config: &Config, mut status: Status) {
    status.updated_at = SystemTime::now();
    // Errors are counted in the store. The next write may succeed.
    let _ = timeout(PATIENCE, config.store.put_status(&status)).await;
}

async fn is_cancelled(config: &Config, job: &Job) -> bool {
    matches!(timeout(PATIENCE, config.store.is_cancelled(&job.id)).await, Ok(Ok(true)))
}

pub(in crate::profile) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Returns whichever is ready first. If both are, returns the first one.
pub(in crate::profile) async fn either<A: Future, B: Future>(
    mut a: Pin<&mut A>,
    mut b: Pin<&mut B>,
) -> Either<A::Output, B::Output> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Waits for both at the same time.
pub(in crate::profile) async fn both<A: Future, B: Future>(
    mut a: Pin<&mut A>,
    mut b: Pin<&mut B>,
) -> (A::Output, B::Output) {
    match either(a.as_mut(), b.as_mut()).await {
        Either::First(first) => (first, b.await),
        Either::Second(second) => (a.await, second),
    }
}
