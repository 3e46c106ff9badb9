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

use std::sync::RwLockWriteGuard;

use heeler::WatchdogLayer;

use common::{Driven, FOREVER};

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
}
