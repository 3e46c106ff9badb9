//! Dumps: everything in flight, and where each of it is, while the service goes on, and while it is stuck.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

#[path = "../common/mod.rs"]
mod common;

mod causes;
#[cfg(feature = "test-util")]
mod hangs;
mod moves;
mod places;
#[cfg(target_os = "linux")]
mod reasons;
#[cfg(target_os = "linux")]
mod survives;

use std::sync::{Arc, Barrier, RwLockWriteGuard};

use heeler::WatchdogLayer;
use heeler::report::Dump;

use common::{Driven, FOREVER, ms, until};

/// A runtime with requests that are watched, and that nothing but a dump looks at.
struct Service {
    driven: Driven,
    layer: WatchdogLayer,
    /// What is in flight is that of one test.
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Service {
    fn new(workers: usize) -> Self {
        let _alone = common::alone_at_rest();
        Self { driven: Driven::new(workers), layer: WatchdogLayer::new(FOREVER), _alone }
    }

    /// Sends a request that is answered after the future.
    fn request<F>(&self, path: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        common::send(&self.driven, &self.layer, path, future);
    }

    /// Waits until so many are in flight, and so many workers have ended the polls that have begun by then.
    #[track_caller]
    fn until_at_rest(&self, in_flight: u64, workers: usize) {
        until("all are in flight", || heeler::metrics().in_flight.total() == in_flight);
        let meet = Arc::new(Barrier::new(workers + 1));
        for _ in 0..workers {
            let meet = Arc::clone(&meet);
            self.driven.spawn(async move { meet.wait() });
        }
        meet.wait();
    }
}

/// Takes a dump, and another one where work has not answered in time: on a busy machine its worker may not get the CPU.
#[track_caller]
fn dump() -> Dump {
    let mut dump = heeler::blocking_dump();
    until("all work has answered", || {
        if dump.unobserved > 0 {
            dump = heeler::blocking_dump();
        }
        dump.unobserved == 0
    });
    dump
}

/// Waits until something has happened, on a runtime.
async fn is(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::time::sleep(ms(1)).await;
    }
}
