//! For as long as it is told to: no stall is reported where there is none.

use std::time::{Duration, Instant};

use heeler::Reports;

use super::common::Driven;

/// Guards: whatever else the machine does, a runtime that runs what is ready is not said to stall. `HEELER_SOAK` sets another number of
/// seconds. Give the machine something else to do meanwhile.
#[test]
#[ignore = "takes an hour"]
fn a_runtime_that_runs_is_never_said_to_stall() {
    let seconds = std::env::var("HEELER_SOAK").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3_600);
    let (several, one) = (Driven::new(2), Driven::new(0));
    for (name, driven) in [("soak of several workers", &several), ("soak of one thread", &one)] {
        heeler::watch_runtime(name, &driven.handle, Reports::builder().without_log().build().unwrap());
        for _ in 0..50 {
            driven.spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    // Some work, as requests have.
                    std::hint::black_box((0..1_000_u64).sum::<u64>());
                }
            });
        }
    }
    let began = Instant::now();
    let mut said = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(500));
        for runtime in heeler::runtimes().iter().filter(|runtime| runtime.name.starts_with("soak")) {
            assert_eq!((runtime.stalls, runtime.stalled_for), (0, None), "after {:?}: {runtime:?}", began.elapsed());
            if began.elapsed().as_secs() / 60 > said {
                println!(
                    "{:?} {}: {:?} at most, throttled {}",
                    began.elapsed(),
                    runtime.name,
                    runtime.delay_max,
                    runtime.throttled
                );
            }
        }
        said = began.elapsed().as_secs() / 60;
    }
}
