//! Timeboxes through the public API alone: what they promise, wherever their work runs.
#![cfg(feature = "timebox")]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod places;
mod switch;
mod table;
mod told;
mod trees;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heeler::{Interrupted, checkpoint};

use common::{PATIENCE, ms, runtime};

/// A limit that passes in the test.
const SHORT: Duration = ms(20);

/// Drives a future on the current thread, for as long as a test may take.
#[track_caller]
fn run<F: Future>(future: F) -> F::Output {
    let patient = async { tokio::time::timeout(PATIENCE, future).await };
    runtime(0).block_on(patient).expect("the work went on although its time was up")
}

/// Work that never ends by itself.
async fn forever() {
    std::future::pending().await
}

/// The same as plain code: it looks whether its time is up.
fn work() -> Result<Infallible, Interrupted> {
    let start = Instant::now();
    loop {
        checkpoint()?;
        assert!(start.elapsed() < PATIENCE, "no checkpoint failed although the time is up");
        std::thread::sleep(ms(1));
    }
}

/// Plain work that takes so long, and then has a value.
fn work_for(duration: Duration) -> Result<u32, Interrupted> {
    let start = Instant::now();
    while start.elapsed() < duration {
        checkpoint()?;
        std::thread::sleep(ms(1));
    }
    checkpoint()?;
    Ok(7)
}

/// Counts how often it, or a clone, is dropped.
#[derive(Debug, Clone, Default)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn guard(&self) -> impl Drop + Send + use<> {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        Guard(self.0.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
