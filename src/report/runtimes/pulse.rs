//! One runtime's heartbeat: what the task and the thread that asks it share.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::RuntimeHealth;
use super::beat::PERIOD;
use crate::clock::now;
use crate::report::Reports;
use crate::sync::lock_std;

/// How many delays are kept: five minutes of them.
const KEPT: usize = 6_000;
/// How many of these make a point of the chart: five seconds.
const POINT: usize = 100;

pub(super) struct Pulse {
    pub(super) name: String,
    pub(super) handle: Handle,
    pub(super) reports: Reports,
    pub(super) asked: Notify,
    /// When it was asked, in nanoseconds of [`now`], or 0 if it has answered since.
    sent: AtomicU64,
    /// Whether it does not answer, and the host is not to blame.
    is_stalled: AtomicBool,
    delays: Mutex<Delays>,
}

#[derive(Default)]
struct Delays {
    /// Microseconds, the last one last.
    recent: VecDeque<u32>,
    stalls: u64,
    throttled: u64,
}

impl Pulse {
    pub(super) fn new(name: String, handle: Handle, reports: Reports) -> Self {
        Self {
            name,
            handle,
            reports,
            asked: Notify::new(),
            sent: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            delays: Mutex::default(),
        }
    }

    /// Asks for a beat, unless it has not answered the last time. Returns since when it has not answered.
    pub(super) fn ask(&self, now: u64) -> Option<u64> {
        match self.sent.load(Ordering::Acquire) {
            0 => {
                self.sent.store(now.max(1), Ordering::Release);
                self.asked.notify_one();
                None
            }
            sent => Some(sent),
        }
    }

    /// Answers. On the runtime.
    pub(super) fn answer(&self) {
        let now = now();
        let sent = self.sent.swap(0, Ordering::AcqRel);
        if sent == 0 {
            return;
        }
        self.is_stalled.store(false, Ordering::Relaxed);
        let micros = u32::try_from(now.saturating_sub(sent) / 1_000).unwrap_or(u32::MAX);
        let mut delays = lock_std(&self.delays);
        // A task that was woken meanwhile would have waited for the rest of it. So each beat that was left out counts, as
        // in Gil Tene's correction for "coordinated omission". Otherwise a stall of a minute would be one delay of many.
        let period = PERIOD.as_micros() as u32;
        let waits = std::iter::successors(Some(micros), |left| left.checked_sub(period).filter(|left| *left > 0));
        for wait in waits.take(KEPT) {
            if delays.recent.len() == KEPT {
                delays.recent.pop_front();
            }
            delays.recent.push_back(wait);
        }
    }

    /// Returns how long it has not answered, although it was asked.
    pub(super) fn silence(&self) -> Duration {
        match self.sent.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            sent => Duration::from_nanos(now().saturating_sub(sent)),
        }
    }

    pub(super) fn count_stall(&self, throttled: bool) {
        let mut delays = lock_std(&self.delays);
        if throttled {
            delays.throttled += 1;
        } else {
            delays.stalls += 1;
            self.is_stalled.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn health(&self) -> RuntimeHealth {
        let silence = self.silence();
        let (mut recent, stalls, throttled) = {
            let delays = lock_std(&self.delays);
            (delays.recent.iter().copied().collect::<Vec<u32>>(), delays.stalls, delays.throttled)
        };
        let micros = |micros: u32| Duration::from_micros(u64::from(micros));
        let points = recent.rchunks(POINT).map(|point| micros(point.iter().copied().max().unwrap_or(0)));
        let mut chart: Vec<Duration> = points.collect();
        chart.reverse();
        recent.sort_unstable();
        let at = |share: f64| {
            let index = (recent.len() as f64 * share) as usize;
            recent.get(index.min(recent.len().saturating_sub(1))).map_or(Duration::ZERO, |delay| micros(*delay))
        };
        let metrics = self.handle.metrics();
        RuntimeHealth {
            name: self.name.clone(),
            delay_p50: at(0.5),
            delay_p99: at(0.99),
            delay_max: at(1.0).max(silence),
            chart,
            // It may have answered a moment ago.
            stalled_for: Some(silence).filter(|time| !time.is_zero() && self.is_stalled.load(Ordering::Relaxed)),
            stalls,
            throttled,
            workers: metrics.num_workers(),
            alive_tasks: metrics.num_alive_tasks(),
            queued_tasks: metrics.global_queue_depth(),
        }
    }
}
