//! What it costs to say what is held: `heeler::acquire` around a `tokio::sync::Mutex`, beside the bare lock in the same
//! run, without contention.
//!
//! - `acquire.uncontended`: what it adds to taking and releasing a lock, with a name and with a `Resource`, in a watched
//!   request and outside of any.
//! - `acquire.allocations`: memory allocations that it adds.
//!
//! ```text
//! cargo bench -p benches --bench acquire
//! ```

#![allow(unsafe_code, reason = "the allocator that counts")]

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::{Contender, at_most, pick, plain, race, undisturbed};
use heeler::{Resource, ResourceId, acquire};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

async fn drive_bare(lock: &Mutex<u64>, n: u64) {
    for _ in 0..n {
        *black_box(lock.lock().await) += 1;
    }
}

async fn drive_heeler(lock: &Mutex<u64>, resource: ResourceId, n: u64) {
    for _ in 0..n {
        **black_box(acquire(resource, lock.lock()).await) += 1;
    }
}

fn watched<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    runtime.block_on(heeler::watch("bench", Duration::from_secs(3_600), future))
}

fn allocated_by(runtime: &Runtime, future: impl Future<Output = ()>) -> u64 {
    watched(runtime, async {
        let before = allocations::made();
        future.await;
        allocations::made() - before
    })
}

fn main() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let (lock, resource) = (Mutex::new(0), Resource::new("bench"));
    let (named, known) = (ResourceId::from("bench"), ResourceId::from(&resource));
    let mut contenders: [Contender<'_>; 5] = [
        Box::new(|n| watched(&runtime, drive_bare(&lock, n))),
        Box::new(|n| watched(&runtime, drive_heeler(&lock, named, n))),
        Box::new(|n| watched(&runtime, drive_heeler(&lock, known, n))),
        Box::new(|n| runtime.block_on(drive_bare(&lock, n))),
        Box::new(|n| runtime.block_on(drive_heeler(&lock, known, n))),
    ];
    let times: Vec<f64> =
        race(pick(400, 60), 10_000, &mut contenders).iter_mut().map(|times| undisturbed(times)).collect();
    plain("acquire.bare_lock_ns", times[0], "");
    at_most("acquire.uncontended.named_ns", times[1] - times[0], 25.0);
    at_most("acquire.uncontended.resource_ns", times[2] - times[0], 25.0);
    at_most("acquire.uncontended.unwatched_ns", times[4] - times[3], 25.0);
    plain("acquire.uncontended.ratio", times[2] / times[0], "x the bare lock");
    // When tokio's budget is used up, its runtime makes a list of whom to wake, with either.
    let bare = allocated_by(&runtime, drive_bare(&lock, 100_000));
    let heeler = allocated_by(&runtime, drive_heeler(&lock, known, 100_000));
    at_most("acquire.allocations", heeler.abs_diff(bare) as f64, 0.0);
}
