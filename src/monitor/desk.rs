//! What the monitor leaves for the capture thread. The monitor waits for that thread only while it takes what is here.
//! It runs nothing that others wrote: no wakers, no loggers.

use std::sync::Mutex;
use std::time::Duration;

use super::Ending;
use super::basis::Basis;
use super::expirations::Overrun;
use crate::capture::PerProcess;
use crate::capture::RowId;
use crate::inflight::{Policy, table};
use crate::log::log_safely;
use crate::sync::lock_std;

/// With fewer entries, ended ones are not searched for.
const MIN_SWEEP: usize = 4096;
/// How many log lines may wait.
const MAX_WORDS: usize = 16;
/// How many endings may wait, because the work is no longer in flight. The thread comes within milliseconds.
const MAX_ENDINGS: usize = 4096;

/// A line for the log.
#[derive(Debug)]
pub(super) enum Word {
    /// This much work found no row.
    Unwatched(u64),
    /// A layer has not seen a request for a long time.
    Silent(&'static Policy),
    Panicked,
    /// This much reported work has ended, and no report will say how.
    EndingsLost(usize),
    /// Threads that had failed to start have started now.
    Runs,
}

impl Word {
    pub(super) fn say(&self) {
        log_safely(|| match self {
            Self::Unwatched(unwatched) => {
                tracing::warn!(target: "heeler", unwatched, "more work is in flight than can be watched");
            }
            Self::Silent(policy) => tracing::warn!(
                target: "heeler",
                threshold_ms = policy.threshold().as_millis() as u64,
                "a {} layer has seen no request in its first ten minutes: is it on the service that serves?",
                policy.tool.as_str()
            ),
            Self::Panicked => tracing::error!(target: "heeler", "the monitor panicked, and goes on"),
            Self::EndingsLost(endings) => {
                tracing::warn!(target: "heeler", endings, "reported work has ended, and no report says how: too much of it at once");
            }
            Self::Runs => tracing::info!(target: "heeler", "the monitor's threads run now"),
        });
    }
}

/// What is left for the capture thread.
#[derive(Debug)]
pub(super) struct Handed {
    /// Work other than boxes whose deadline is near, with the basis of that deadline.
    pub(super) watched: Vec<(RowId, Basis)>,
    /// Work that has just been armed, to be asked for a poll.
    pub(super) armed: Vec<RowId>,
    /// Work that may run on although its time is up.
    pub(super) overruns: Vec<Overrun>,
    pub(super) words: Vec<Word>,
    /// Work that has ended. A report about it is made before the thread comes here again, and so arrives before this.
    pub(super) endings: Vec<Ending>,
}

impl Handed {
    pub(super) const fn new() -> Self {
        Self { watched: Vec::new(), armed: Vec::new(), overruns: Vec::new(), words: Vec::new(), endings: Vec::new() }
    }

    fn len(&self) -> usize {
        self.watched.len() + self.armed.len() + self.overruns.len()
    }

    /// Returns when something of it is due, or `u64::MAX` if there is nothing.
    fn due(&self) -> u64 {
        if !self.armed.is_empty() || !self.words.is_empty() || !self.endings.is_empty() {
            return 0;
        }
        let watched = self.watched.iter().map(|(_, basis)| basis.deadline(1)).min();
        let overrun = self.overruns.iter().map(Overrun::due).min();
        watched.unwrap_or(u64::MAX).min(overrun.unwrap_or(u64::MAX))
    }

    /// Forgets what is over, because the other thread may never come for it.
    fn sweep(&mut self) {
        let lives = |id: RowId| table().row(id).is_some_and(|row| row.is_live(id));
        // A response body's clock stops and starts. Nobody needs the basis of an earlier deadline.
        let holds = |id: RowId, basis: Basis| table().row(id).is_some_and(|row| Basis::of(row) == Some(basis));
        self.watched.retain(|(id, basis)| lives(*id) && holds(*id, *basis));
        self.armed.sort_unstable();
        self.armed.dedup();
        self.armed.retain(|id| lives(*id));
        self.overruns.retain(Overrun::goes_on);
    }
}

#[derive(Debug)]
struct Desk {
    handed: Handed,
    sweep_at: usize,
    /// The capture thread will not look here before this time. 0 while it is about to.
    asleep_until: u64,
}

static DESK: PerProcess<Mutex<Desk>> =
    PerProcess::new(|| Mutex::new(Desk { handed: Handed::new(), sweep_at: MIN_SWEEP, asleep_until: 0 }));

/// Leaves everything in `found`. Its memory is bounded by what is in flight, whether or not it is ever taken.
pub(super) fn leave(found: &mut Handed) {
    let due = found.due();
    if due == u64::MAX {
        return;
    }
    let mut desk = lock_std(DESK.get());
    let Desk { handed, sweep_at, asleep_until } = &mut *desk;
    handed.watched.append(&mut found.watched);
    handed.armed.append(&mut found.armed);
    handed.overruns.append(&mut found.overruns);
    handed.words.append(&mut found.words);
    handed.endings.append(&mut found.endings);
    let lost = handed.endings.len().saturating_sub(MAX_ENDINGS);
    if lost > 0 {
        handed.endings.truncate(MAX_ENDINGS);
        handed.words.push(Word::EndingsLost(lost));
    }
    handed.words.truncate(MAX_WORDS);
    if handed.len() > *sweep_at {
        handed.sweep();
        *sweep_at = (2 * handed.len()).max(MIN_SWEEP);
    }
    let is_early = due < *asleep_until;
    drop(desk);
    if is_early {
        super::answered();
    }
}

/// Leaves a line for the log only.
pub(super) fn leave_word(word: Word) {
    leave(&mut Handed { words: vec![word], ..Handed::new() });
}

/// Leaves how work has ended, from any thread.
pub(super) fn leave_ending(ending: Ending) {
    leave(&mut Handed { endings: vec![ending], ..Handed::new() });
}

/// Takes the endings alone.
pub(super) fn take_endings() -> Vec<Ending> {
    std::mem::take(&mut lock_std(DESK.get()).handed.endings)
}

/// Takes everything.
pub(super) fn take() -> Handed {
    let mut desk = lock_std(DESK.get());
    desk.asleep_until = 0;
    desk.sweep_at = MIN_SWEEP;
    std::mem::replace(&mut desk.handed, Handed::new())
}

/// Returns how long the capture thread may sleep if it has nothing to do before `until`.
pub(super) fn sleep(until: u64, now: u64) -> Duration {
    let mut desk = lock_std(DESK.get());
    if desk.handed.due() < until {
        return Duration::ZERO;
    }
    desk.asleep_until = until;
    Duration::from_nanos(until.saturating_sub(now))
}
