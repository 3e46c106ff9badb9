//! Evidence that is made a report only if somebody asks: on the symbolizer's thread, for to name stacks takes milliseconds.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::symbolizer;
use crate::monitor::Evidence;
use crate::report::Report;
use crate::sync::lock_std;

/// A report to be.
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

    /// The report; `None` if it is not there within `patience`, or cannot be made. Waits for the symbolizer the first time.
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
                    // Nobody is there, so nobody will ever be.
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
