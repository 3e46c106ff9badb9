//! Recordings of work with known shares of time.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Record, Recording};
use crate::profile::State;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs work as an inline profile does, and records it.
fn record<F>(work: F) -> Record
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let recording = Recording::start(1_000);
    runtime.block_on(async { tokio::spawn(recording.record(work)).await.unwrap() });
    recording.finish()
}

/// Records work again, up to ten times, if the machine is too busy for the sampler to look at it.
fn undisturbed<F>(work: impl Fn() -> F) -> Record
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut seen = record(work());
    for _ in 1..10 {
        if !cfg!(heeler_copies) || seen.quality.taken * 3 >= seen.quality.expected * 2 {
            break;
        }
        seen = record(work());
    }
    seen
}

/// Milliseconds of slices in one of the states, whose stack goes through a function of that name.
fn through(record: &Record, function: &str, states: &[State]) -> f64 {
    let goes_through = |mut at: Option<u32>| {
        while let Some(node) = at.map(|at| record.nodes[at as usize]) {
            let name = record.frames[node.frame as usize].function.as_deref().unwrap_or_default();
            if name == function || name.rsplit("::").next() == Some(function) {
                return true;
            }
            at = node.parent;
        }
        false
    };
    let slices = record.slices.iter().filter(|slice| states.contains(&slice.state) && goes_through(Some(slice.stack)));
    slices.map(|slice| slice.nanos as f64 / 1e6).sum()
}

const ALL: [State; 5] = [State::OnCpu, State::Blocked, State::NoCpu, State::Waiting, State::Runnable];

/// Inside polls. On a busy machine a thread does not always have a CPU.
const INSIDE: [State; 3] = [State::OnCpu, State::Blocked, State::NoCpu];

/// The slices follow each other without a gap, and sum to the wall time.
#[track_caller]
fn is_whole(record: &Record) {
    let mut at = 0;
    for slice in &record.slices {
        assert_eq!(slice.start_nanos, at);
        at += slice.nanos;
    }
    assert_eq!(at, record.wall_nanos);
}

/// All stacks, folded, for a message.
fn folded(record: &Record) -> String {
    let mut lines = std::collections::BTreeMap::<String, f64>::new();
    for slice in &record.slices {
        let mut path = Vec::new();
        let mut at = Some(slice.stack);
        while let Some(node) = at.map(|at| record.nodes[at as usize]) {
            let frame = &record.frames[node.frame as usize];
            path.push(frame.function.clone().unwrap_or_else(|| frame.address.clone()));
            at = node.parent;
        }
        path.reverse();
        *lines.entry(format!("{:?} {}", slice.state, path.join(";"))).or_default() += slice.nanos as f64 / 1e6;
    }
    let lines = lines.into_iter().map(|(line, ms)| format!("{ms:9.3} {line}\n"));
    format!("{:?} {}\n{}", record.quality, record.wall_nanos, lines.collect::<String>())
}

#[inline(never)]
fn burn_a(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::black_box(&began);
    }
}

#[inline(never)]
fn burn_b(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::black_box(&began);
    }
}

#[inline(never)]
fn sleep_in_a_poll(time: Duration) {
    std::thread::sleep(time);
}

async fn wait_one(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn wait_two(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The time seen in a function is the time that it took, except for unattributed time: on a busy machine the sampler
/// comes late. `benches/profile.rs` shows how good it can be.
#[track_caller]
fn close(record: &Record, function: &str, states: &[State], expected: f64) {
    let seen = through(record, function, states);
    let unattributed = through(record, "[unattributed]", &ALL);
    let is_close = seen > 0.0 && seen < expected * 2.0 + 300.0 && seen + unattributed > expected * 0.6;
    assert!(is_close, "{function}: {seen} ms\n{}", folded(record));
}

/// Guards: each of the four things that a request can do is seen where it happens.
#[test]
fn time_goes_to_what_the_request_does() {
    let record = undisturbed(|| async {
        burn_a(ms(60));
        wait_one(ms(50)).await;
        burn_b(ms(40));
        sleep_in_a_poll(ms(40));
        wait_two(ms(70)).await;
    });
    is_whole(&record);
    if cfg!(heeler_copies) {
        close(&record, "burn_a", &INSIDE, 60.0);
        close(&record, "burn_b", &INSIDE, 40.0);
        close(&record, "sleep_in_a_poll", &INSIDE, 40.0);
    }
    close(&record, "wait_one", &[State::Waiting], 50.0);
    close(&record, "wait_two", &[State::Waiting], 70.0);
}

#[test]
fn a_wait_goes_to_the_branch_that_ended_it() {
    let record = record(async {
        tokio::join!(wait_one(ms(50)), wait_two(ms(120)));
        tokio::select! {
            () = wait_two(ms(60)) => {}
            () = wait_one(ms(5_000)) => unreachable!("it takes longer"),
        }
    });
    is_whole(&record);
    close(&record, "wait_one", &[State::Waiting], 50.0);
    close(&record, "wait_two", &[State::Waiting], 130.0);
}

/// Guards: a wait for spawned work is shown as what that work did meanwhile, in whatever way it says that it is done.
#[test]
fn waiting_for_spawned_work_shows_that_work() {
    let record = undisturbed(|| async {
        crate::spawn_blocking(|| burn_a(ms(60))).await.unwrap();
        let child = crate::spawn(async {
            wait_one(ms(50)).await;
            burn_b(ms(40));
        });
        child.await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let child = crate::spawn(async move {
            sleep_in_a_poll(ms(40));
            sender.send(()).unwrap();
            wait_two(ms(60)).await;
        });
        receiver.await.unwrap();
        child.await.unwrap();
    });
    is_whole(&record);
    if cfg!(heeler_copies) {
        close(&record, "burn_a", &ALL, 60.0);
        close(&record, "burn_b", &ALL, 40.0);
        close(&record, "sleep_in_a_poll", &ALL, 40.0);
    }
    close(&record, "wait_one", &[State::Waiting], 50.0);
    close(&record, "wait_two", &[State::Waiting], 60.0);
}

/// Guards: work that the request did not wait for is recorded beside it, and not in its own time.
#[test]
fn work_nobody_waits_for_is_separate() {
    let record = record(async {
        let child = crate::spawn_blocking(|| burn_b(ms(50)));
        burn_a(ms(100));
        child.await.unwrap();
    });
    is_whole(&record);
    let beside: u64 = record.beside.iter().map(|slice| slice.nanos).sum();
    assert!(beside > 20_000_000, "{beside}\n{}", folded(&record));
}

/// Guards: no limit holds in a profiled request, nor in the work that it spawns.
#[cfg(feature = "timebox")]
#[test]
fn no_limit_holds_in_a_profiled_request() {
    let record = record(async {
        let late = crate::timebox(ms(5), wait_one(ms(30)));
        late.await.expect("no limit holds");
        let late = crate::spawn(async { crate::timebox(ms(5), wait_two(ms(30))).await });
        late.await.unwrap().expect("no limit holds");
    });
    is_whole(&record);
    close(&record, "wait_one", &[State::Waiting], 30.0);
    close(&record, "wait_two", &[State::Waiting], 30.0);
}

/// Guards: nothing of a recording stays when it is over, whoever still has a waker of it, and whether or not it was read.
#[test]
fn a_finished_recording_leaves_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let mut sessions = Vec::new();
    for is_read in [true, false] {
        let recording = Recording::start(1_000);
        sessions.push(recording.session());
        let gate = gate.clone();
        let work = async move {
            // Outlives the recording.
            drop(crate::spawn(async move { gate.notified().await }));
            crate::spawn_blocking(|| burn_a(ms(2))).await.unwrap();
            wait_one(ms(2)).await;
        };
        runtime.block_on(async { tokio::spawn(recording.record(work)).await.unwrap() });
        if is_read {
            recording.finish();
        } else {
            drop(recording);
        }
    }
    gate.notify_waiters();
    drop((sender, receiver, runtime));
    let began = Instant::now();
    while sessions.iter().any(|session| session.strong_count() > 0) {
        // The sampler may be just about to forget it.
        assert!(began.elapsed() < ms(10_000), "recordings stay in memory");
        std::thread::sleep(ms(1));
    }
}

/// Guards: a request's time ends with it, not when its recording is read.
#[test]
fn recording_ends_with_the_request() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let recording = Recording::start(1_000);
    runtime.block_on(async { tokio::spawn(recording.record(wait_one(ms(5)))).await.unwrap() });
    std::thread::sleep(ms(1_000));
    let record = recording.finish();
    is_whole(&record);
    assert_eq!(through(&record, "[after its end]", &ALL), 0.0, "{}", folded(&record));
    assert!(record.wall_nanos < 900_000_000, "{}", folded(&record));
}

/// Guards: a wake-up by a timer is not attributed to the last task that ended on the same thread.
#[test]
fn a_task_that_ended_long_ago_is_no_cause() {
    let record = record(async {
        drop(crate::spawn(async { burn_b(ms(1)) }));
        wait_one(ms(100)).await;
    });
    is_whole(&record);
    assert_eq!(through(&record, "[spawned task]", &ALL), 0.0, "{}", folded(&record));
    close(&record, "wait_one", &[State::Waiting], 100.0);
}

/// Guards: nor is it attributed to a task that ended just before, if the thread has slept since.
#[test]
fn a_task_that_ended_before_sleeping_is_no_cause() {
    let record = record(async {
        for _ in 0..10 {
            drop(crate::spawn(wait_two(ms(20))));
            wait_one(ms(23)).await;
        }
    });
    is_whole(&record);
    if cfg!(heeler_copies) {
        // Timers that are late, on a busy machine, may fire one after the other without sleep.
        let wrong = through(&record, "[spawned task]", &ALL);
        assert!(wrong < record.wall_nanos as f64 / 2e6, "{wrong} ms\n{}", folded(&record));
    }
}

/// Guards: a poll that goes on after the request is over is recorded beside it, up to its end.
#[test]
fn a_poll_beyond_the_request_is_recorded_separately() {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let record = record(async move {
        drop(crate::spawn_blocking(move || {
            begun.blocking_send(()).unwrap();
            // Until the sender is dropped, or the test has failed.
            let _ = ended.recv_timeout(ms(10_000));
        }));
        has_begun.recv().await.unwrap();
        wait_one(ms(50)).await;
        // Some time before the closure's end.
        std::thread::spawn(move || {
            std::thread::sleep(ms(300));
            drop(end);
        });
    });
    is_whole(&record);
    let beside: u64 = record.beside.iter().map(|slice| slice.nanos).sum();
    // The timer's fifty milliseconds, by a clock that may be a little slower.
    assert!(beside >= 49_950_000, "{beside}\n{}", folded(&record));
    for slice in &record.beside {
        assert!(slice.start_nanos + slice.nanos <= record.wall_nanos, "{slice:?} of {}", record.wall_nanos);
    }
}

/// Guards: the time of a request that yields is not counted as waiting.
#[test]
fn yielding_is_not_counted_as_waiting() {
    let record = record(async {
        let began = Instant::now();
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if began.elapsed() < ms(30) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    });
    is_whole(&record);
    assert!(record.quality.polls > 10);
    let waiting: u64 =
        record.slices.iter().filter(|slice| slice.state == State::Waiting).map(|slice| slice.nanos).sum();
    assert!(waiting < record.wall_nanos / 2, "{}", folded(&record));
}
