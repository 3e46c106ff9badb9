//! What the application says of its resources. Its code may take any time, or wait for a lock that is held by what a report
//! is about.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::capture::{PerProcess, sys};
use crate::inflight::Usage;
use crate::inflight::resources::ReadUsage;

/// How long a report waits for all that it asks.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether the thread that asks is not back yet. There is never more than one.
static IS_OUT: PerProcess<AtomicBool> = PerProcess::new(|| AtomicBool::new(false));

/// Returns what the application says of each resource, as far as it says so in time.
pub(super) fn read_all(all: &[Option<ReadUsage>]) -> Vec<Option<Usage>> {
    let mut said = vec![None; all.len()];
    let asked: Vec<(usize, ReadUsage)> =
        all.iter().enumerate().filter_map(|(at, read)| Some((at, read.clone()?))).collect();
    let is_out = IS_OUT.get();
    if asked.is_empty() || is_out.swap(true, Ordering::AcqRel) {
        return said;
    }
    let (answers, received) = mpsc::channel();
    let started = std::thread::Builder::new().name("heeler-usage".into()).spawn(move || {
        sys::block_signals();
        for (at, read) in asked {
            if let Ok(usage) = catch_unwind(AssertUnwindSafe(|| read())) {
                // Nobody waits any more, if it comes late.
                let _ = answers.send((at, usage));
            }
            // Where the last of these is dropped, so is the application's data.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(read)));
        }
        is_out.store(false, Ordering::Release);
    });
    if started.is_err() {
        is_out.store(false, Ordering::Release);
        return said;
    }
    let began = Instant::now();
    while let Ok((at, usage)) = received.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
        said[at] = Some(usage);
    }
    said
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Guards: code of the application that waits, or panics, keeps no report waiting, and no second thread is stuck in it.
    #[test]
    fn code_that_hangs_or_panics_says_nothing() {
        let lock = Arc::new(Mutex::new(3));
        let held = lock.lock().unwrap();
        let waits = Arc::clone(&lock);
        let reads: [Option<ReadUsage>; 4] = [
            // Without the hook: a backtrace takes longer than is waited.
            Some(Arc::new(|| resume_unwind(Box::new("meant to")))),
            Some(Arc::new(|| Usage::new(2, 4))),
            None,
            Some(Arc::new(move || Usage::new(*waits.lock().unwrap(), 4))),
        ];
        assert_eq!(read_all(&reads), [None, Some(Usage::new(2, 4)), None, None]);
        assert_eq!(read_all(&reads), [None; 4]);
        drop(held);
        let began = Instant::now();
        while read_all(&reads)[3] != Some(Usage::new(3, 4)) {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
