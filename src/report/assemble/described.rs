//! Evidence that becomes a report only on request. The symbolizer's thread does it, because symbolizing takes
//! milliseconds.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::symbolizer;
use crate::monitor::Evidence;
use crate::report::Report;
use crate::sync::lock_std;

/// A report that is made on request.
pub(crate) struct Described {
    state: Mutex<State>,
    done: Condvar,
}

enum State {
    Raw(Box<Evidence>),
    Asked,
    /// `None` if it could not be made.
    Done(Option<Arc<Report>>),
}

impl Described {
    pub(crate) fn new(evidence: Evidence) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Raw(Box::new(evidence))), done: Condvar::new() })
    }

    /// Returns the report, or `None` if it isn't ready within `patience` or cannot be made. The first call starts the
    /// work.
    pub(crate) fn get(self: &Arc<Self>, patience: Duration) -> Option<Arc<Report>> {
        let end = Instant::now() + patience;
        let mut state = lock_std(&self.state);
        loop {
            *state = match std::mem::replace(&mut *state, State::Asked) {
                State::Done(report) => {
                    *state = State::Done(report.clone());
                    return report;
                }
                // raw → asked
                State::Raw(evidence) => {
                    drop(state);
                    let taken = symbolizer::describe(evidence, self);
                    state = lock_std(&self.state);
                    // The symbolizer isn't running, and never will be.
                    if !taken {
                        return None;
                    }
                    continue;
                }
                State::Asked => State::Asked,
            };
            let left = end.saturating_duration_since(Instant::now());
            // The symbolizer cannot wait for itself.
            if left.is_zero() || symbolizer::is_this_thread() {
                return None;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// asked → done
    pub(in crate::report) fn set(&self, report: Option<Report>) {
        *lock_std(&self.state) = State::Done(report.map(Arc::new));
        self.done.notify_all();
    }
}
