//! What is known of the runtimes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::beat::of_each;
use crate::text::time::millis;

/// How a watched runtime is: see [`watch_runtime`](crate::watch_runtime).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuntimeHealth {
    /// Its name.
    pub name: String,
    /// How long a task that was woken waited to be polled, in half of all cases of the last five minutes.
    #[serde(rename = "delay_p50_ms", with = "millis")]
    pub delay_p50: Duration,
    /// The same in 99 of 100 cases.
    #[serde(rename = "delay_p99_ms", with = "millis")]
    pub delay_p99: Duration,
    /// The longest, what goes on included.
    #[serde(rename = "delay_max_ms", with = "millis")]
    pub delay_max: Duration,
    /// The longest delay in each five seconds of the last five minutes, the last one last.
    #[serde(rename = "chart_ms", with = "millis::list")]
    pub chart: Vec<Duration>,
    /// For how long it has not run what is ready, if that is a stall.
    #[serde(rename = "stalled_for_ms", default, with = "millis::optional")]
    pub stalled_for: Option<Duration>,
    /// How often it has not run what was ready for 200 ms or longer.
    pub stalls: u64,
    /// How often it was late because the process did not get the CPU. These are not counted as stalls.
    pub throttled: u64,
    /// How many worker threads it has.
    pub workers: usize,
    /// How many tasks have not ended.
    pub alive_tasks: usize,
    /// How many tasks wait in its common queue.
    pub queued_tasks: usize,
}

/// Returns how the watched runtimes are, in the order in which they were named.
///
/// ```
/// for runtime in heeler::runtimes() {
///     println!("{}: {:?} at most", runtime.name, runtime.delay_max);
/// }
/// ```
#[must_use]
pub fn runtimes() -> Vec<RuntimeHealth> {
    of_each(|pulse| pulse.health())
}
