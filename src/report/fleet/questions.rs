//! What the sinks ask: which reports the sinks get that tell people.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::incident::{Incident, Stage};
use super::key::key_of;
use super::member::{Conditions, Member};
use super::records::{Told, hashes};
use crate::report::FleetIncident;
use crate::report::delivery::{Decision, Gate, Question};
use crate::sync::{count, lock_std};

/// How many reports may wait for the store to say who tells people, and how many bytes they may take in memory.
const MAX_QUESTIONS: usize = 1_000;
const MAX_BYTES: usize = 16 << 20;

impl Member {
    /// Decides about the report of an incident that waits for it.
    pub(super) fn answer(&self, key: &str, stage: Stage, decision: Decision) {
        let question = {
            let mut state = lock_std(&self.state);
            let Some(incident) = state.incidents.get_mut(key) else { return };
            incident.stage = stage;
            incident.looked = Instant::now();
            if matches!(decision, Decision::Tell(_)) {
                incident.messages += 1;
            }
            let question = incident.question.take();
            if let Some(question) = &question {
                state.questions -= 1;
                state.question_bytes -= question.bytes();
            }
            question
        };
        if let Some(question) = question {
            self.decide(question, decision);
        }
    }

    fn decide(&self, question: Question, decision: Decision) {
        match &decision {
            Decision::Tell(incident) if incident.alone => count(&self.counters.messages_alone),
            Decision::Tell(_) => count(&self.counters.messages),
            Decision::LeaveToOthers => count(&self.counters.left_to_others),
        }
        if let Some(dispatch) = self.dispatch() {
            dispatch.decide(question, decision);
        }
    }

    /// Returns what a message says if this instance speaks for itself alone.
    pub(super) fn for_itself(key: &str) -> Decision {
        Decision::Tell(Arc::new(FleetIncident { key: key.to_owned(), alone: true, ..FleetIncident::default() }))
    }

    /// Takes a question. Returns it if there is nobody to ask, or nothing to ask about.
    fn keep(self: &Arc<Self>, question: Question) -> Option<(Question, Decision)> {
        let report = &question.report;
        if report.update > 0 || report.ending.is_some() {
            // People are told of incidents, not of each request.
            return Some((question, Decision::LeaveToOthers));
        }
        let (key, now) = (key_of(report), Instant::now());
        let mut state = lock_std(&self.state);
        self.make_room(&mut state, &key);
        let bytes = state.question_bytes + question.bytes();
        let is_full = state.questions >= MAX_QUESTIONS || bytes > MAX_BYTES;
        let incident = state.incidents.entry(key.clone()).or_insert_with(|| Incident::new(now));
        if incident.stage != Stage::New {
            return Some((question, Decision::LeaveToOthers));
        }
        if is_full || self.conditions() == Conditions::Ignored {
            incident.stage = Stage::Alone;
            return Some((question, Self::for_itself(&key)));
        }
        incident.stage = Stage::Asking;
        incident.question = Some(question);
        state.questions += 1;
        state.question_bytes = bytes;
        drop(state);
        let (member, hurries) = (Arc::clone(self), self.hurries());
        let claim = self.runtime.spawn(super::claiming::claim(Arc::clone(self), key.clone(), hurries));
        self.runtime.spawn(async move {
            if claim.await.is_err() {
                // It panicked. The report must not wait for ever.
                member.answer(&key, Stage::Alone, Self::for_itself(&key));
            }
        });
        None
    }
}

impl Gate for Arc<Member> {
    fn ask(&self, question: Question) {
        if let Some((question, decision)) = self.keep(question) {
            self.decide(question, decision);
        }
    }

    fn is_told_elsewhere(&self, incident: &FleetIncident) -> bool {
        if incident.alone || incident.is_update() {
            return false;
        }
        let is_told = |known: &mut Incident| known.stage == Stage::Told && known.number == Some(incident.number);
        self.change(&incident.key, is_told).unwrap_or(false)
    }

    fn told(&self, incident: &FleetIncident) {
        if incident.is_update() {
            return;
        }
        self.change(&incident.key, |known| {
            // Another sink may have given it up before this one took it.
            let is_taken_after_all =
                known.stage == Stage::New && !incident.alone && known.number == Some(incident.number);
            if !known.is_on_its_way(incident) && !is_taken_after_all {
                return;
            }
            let (reports, routes) = match incident.alone {
                // It says nothing of other instances. What this one had reported by then is no news later.
                true => {
                    let all = known.all();
                    (all.reports, all.routes)
                }
                false => (incident.reports, incident.routes.clone()),
            };
            known.unsaved = Some(Told { routes: hashes(&routes), ..Member::told(self, reports) });
        });
        let (member, key) = (Arc::clone(self), incident.key.clone());
        self.runtime.spawn(async move {
            // If that fails, the next flush tries it again.
            let _ = member.save_told(&key).await;
        });
    }

    fn given_up(&self, incident: &FleetIncident) {
        if incident.is_update() {
            return;
        }
        self.change(&incident.key, |known| {
            // With several sinks, another one may have told people.
            if known.is_on_its_way(incident) && known.unsaved.is_none() {
                // The next report asks again. If this instance has claimed it, the claim expires as if it had died.
                known.stage = Stage::New;
            }
        });
    }

    fn hurry(&self) {
        self.hurries.fetch_add(1, Relaxed);
        self.hurried.notify_waiters();
        self.wake.notify_one();
    }

    fn wait(&self, left: &dyn Fn() -> Duration) -> bool {
        let mut flushes = lock_std(&self.flushes);
        // One that is running may have begun before the last report.
        let wanted = flushes.begun + 1;
        flushes.waiting += 1;
        self.wake.notify_one();
        while flushes.complete < wanted {
            let left = left();
            if left.is_zero() {
                break;
            }
            // Bounded, because `Condvar` cannot wait for as long as `Duration` can say.
            let slice = left.min(Duration::from_secs(3_600));
            flushes = self.flushed.wait_timeout(flushes, slice).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        flushes.waiting -= 1;
        flushes.complete >= wanted
    }
}
