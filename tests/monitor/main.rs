//! The monitor lives, and is in time, whatever else there is to do. Each test in a process of its own: there is one monitor in it.
#![cfg(all(feature = "watchdog", feature = "timebox"))]

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_os = "linux")]
mod inheritors;
#[cfg(target_os = "linux")]
mod start;
mod starved;

use std::time::{Duration, Instant};

use heeler::{Interrupted, checkpoint, timebox};

/// How late boxes with a limit of 20 ms are, one after the other, in code that asks all the time.
fn lateness(boxes: usize) -> Vec<Duration> {
    let late = (0..boxes).map(|_| {
        let (limit, began) = (common::ms(20), Instant::now());
        let told: Result<(), Interrupted> = timebox::blocking(limit, || {
            loop {
                checkpoint()?;
                assert!(began.elapsed() < common::PATIENCE, "no checkpoint failed in time");
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        assert!(told.is_err());
        began.elapsed().saturating_sub(limit)
    });
    late.collect()
}
