//! The sampler's thread. It looks at the threads that are inside polls of recorded requests, a thousand times a second
//! by default, and only while there is a recording.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::live::Live;
use crate::capture::{self, PerProcess, Sampler};
use crate::clock::now;
use crate::log::log_safely;
use crate::sync::lock_std;

/// Running recordings.
#[derive(Default)]
struct Recordings {
    live: Mutex<Vec<Arc<Live>>>,
    begun: Condvar,
}

static RECORDINGS: PerProcess<Recordings> = PerProcess::new(Recordings::default);

/// Samples the recording's polls until [`leave`]. Returns false if there is no thread to do so.
pub(super) fn join(live: &Arc<Live>) -> bool {
    static STARTED: PerProcess<bool> = PerProcess::new(|| {
        let started = std::thread::Builder::new().name("heeler-sampler".into()).spawn(run);
        if let Err(error) = &started {
            tracing::error!(target: "heeler", %error, "the sampler's thread did not start: polls are not sampled");
        }
        started.is_ok()
    });
    let recordings = RECORDINGS.get();
    lock_std(&recordings.live).push(Arc::clone(live));
    recordings.begun.notify_one();
    *STARTED.get()
}

pub(super) fn leave(live: &Arc<Live>) {
    lock_std(&RECORDINGS.get().live).retain(|other| !Arc::ptr_eq(other, live));
}

fn run() {
    capture::sys::block_signals();
    let (mut sampler, recordings) = (Sampler::new(None), RECORDINGS.get());
    // When each recording's next look is due.
    let mut due: Vec<(Arc<Live>, u64)> = Vec::new();
    loop {
        {
            let mut live = lock_std(&recordings.live);
            while live.is_empty() {
                due.clear();
                live = recordings.begun.wait(live).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            due.retain(|(one, _)| live.iter().any(|other| Arc::ptr_eq(one, other)));
            for one in live.iter() {
                if !due.iter().any(|(other, _)| Arc::ptr_eq(one, other)) {
                    due.push((Arc::clone(one), now() + one.period));
                }
            }
        }
        let next = due.iter().map(|(_, due)| *due).min().unwrap_or(0);
        let left = next.saturating_sub(now());
        if left > 0 {
            // Not for long, because a recording with a shorter period may begin.
            std::thread::sleep(Duration::from_nanos(left.min(10_000_000)));
            continue;
        }
        for (live, due) in &mut due {
            let now = now();
            if *due > now {
                continue;
            }
            let late = now - *due > live.period / 2;
            if catch_unwind(AssertUnwindSafe(|| live.look(&mut sampler, late))).is_err() {
                log_safely(|| tracing::error!(target: "heeler", "the sampler panicked: a sample is lost"));
            }
            // In step with its beginning, whatever it has missed.
            *due += ((now - *due) / live.period + 1) * live.period;
        }
    }
}
