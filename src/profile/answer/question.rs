//! Questions that a page has put to somebody: whether to profile this request, this many times.
//!
//! The answer, a POST, has to name the question by 128 random bits that are in no other page. It is valid once, for
//! five minutes, for the same request and the same caller. The response to it redirects to a number of the same kind,
//! whose GET starts the profile. This is because routers distinguish methods before a request reaches a layer, so only
//! a GET leads to the service that was asked about. Questions belong to this process: another instance does not know
//! them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::request::Parts;

use crate::authorize::Access;
use crate::capture::PerProcess;
use crate::profile::flag::{Flag, Start};
use crate::profile::id::Id;
use crate::sync::lock_std;

/// How long a question can be answered.
const LIFE: Duration = Duration::from_secs(5 * 60);

/// How many questions can wait for an answer. The oldest makes room.
const MAX: usize = 256;

/// The questions that wait for an answer, oldest first.
pub(in crate::profile) struct Questions(PerProcess<Mutex<VecDeque<Question>>>);

impl Default for Questions {
    fn default() -> Self {
        Self(PerProcess::new(Mutex::default))
    }
}

struct Question {
    token: Id,
    asked: Instant,
    principal: Option<String>,
    /// Path and query without the flag.
    target: String,
    start: Start,
    stage: Stage,
}

/// The stage of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Asked,
    /// Somebody has confirmed, and follows the redirect.
    Confirmed,
}

impl Questions {
    /// Puts a question. Only GET requests are asked about, because the answer determines the method.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system has no random numbers to give.
    pub(super) fn ask(
        &self,
        head: &Parts,
        flag: &Flag,
        access: &Access,
        start: Start,
        stage: Stage,
    ) -> Result<Id, getrandom::Error> {
        let token = Id::random()?;
        let principal = access.principal().map(str::to_owned);
        let question = Question { token, asked: Instant::now(), principal, target: target(head, flag), start, stage };
        let mut waiting = lock_std(self.0.get());
        if waiting.len() == MAX {
            waiting.pop_front();
        }
        waiting.push_back(question);
        Ok(token)
    }

    /// Returns what to start, if the caller may answer the question. It cannot be answered again, not even correctly.
    pub(super) fn answer(&self, token: Id, head: &Parts, flag: &Flag, access: &Access, stage: Stage) -> Option<Start> {
        self.answer_at(token, head, flag, access, stage, Instant::now())
    }

    fn answer_at(
        &self,
        token: Id,
        head: &Parts,
        flag: &Flag,
        access: &Access,
        stage: Stage,
        now: Instant,
    ) -> Option<Start> {
        let mut waiting = lock_std(self.0.get());
        waiting.retain(|question| now.saturating_duration_since(question.asked) < LIFE);
        // Compares all of them, however early one is found, so that the time it takes tells nothing.
        let found = waiting.iter().enumerate().fold(None, |found, (at, question)| {
            if bool::from(question.token.ct_eq(&token)) { Some(at) } else { found }
        });
        let question = waiting.remove(found?)?;
        drop(waiting);
        let is_theirs = question.stage == stage
            && question.principal.as_deref() == access.principal()
            && question.target == target(head, flag);
        is_theirs.then_some(question.start)
    }
}

fn target(head: &Parts, flag: &Flag) -> String {
    flag.strip(&head.uri).path_and_query().map_or("/", |target| target.as_str()).to_owned()
}

impl fmt::Debug for Questions {
    /// Leaves out what the questions are about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("waiting", &lock_std(self.0.get()).len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Stage::{Asked, Confirmed};
    use super::*;

    fn head(uri: &str) -> Parts {
        http::Request::post(uri).body(()).unwrap().into_parts().0
    }

    fn many() -> Start {
        Start { runs: Some(200), ..Start::default() }
    }

    /// Guards: a confirmation works once, for the same request and the same person, and only for a while.
    #[test]
    fn a_confirmation_works_only_once() {
        let (questions, flag, ada) = (Questions::default(), Flag::default(), Access::allowed_as("ada"));
        let about = head("/vote?a=1&__geordi__=200x");
        let ask = || questions.ask(&about, &flag, &ada, many(), Asked).unwrap();
        let answered = head("/vote?a=1&__geordi__=0123456789abcdef0123456789abcdef.confirm");

        let token = ask();
        assert_eq!(questions.answer(Id::random().unwrap(), &answered, &flag, &ada, Asked), None);
        assert_eq!(questions.answer(token, &answered, &flag, &ada, Asked), Some(many()));
        assert_eq!(questions.answer(token, &answered, &flag, &ada, Asked), None, "a second time");

        for (uri, access) in [
            ("/vote?a=2", Access::allowed_as("ada")),
            ("/vote", Access::allowed_as("ada")),
            ("/delete?a=1", Access::allowed_as("ada")),
            ("/vote?a=1", Access::allowed_as("bob")),
            ("/vote?a=1", Access::allowed()),
        ] {
            let token = ask();
            assert_eq!(questions.answer(token, &head(uri), &flag, &access, Asked), None, "{uri}");
            assert_eq!(questions.answer(token, &answered, &flag, &ada, Asked), None, "spent on a wrong answer");
        }

        // One number does not work in place of the other.
        let token = ask();
        assert_eq!(questions.answer(token, &answered, &flag, &ada, Confirmed), None);
        let token = questions.ask(&about, &flag, &ada, many(), Confirmed).unwrap();
        assert_eq!(questions.answer(token, &answered, &flag, &ada, Confirmed), Some(many()));

        let token = ask();
        let late = Instant::now() + LIFE;
        assert_eq!(questions.answer_at(token, &answered, &flag, &ada, Asked, late), None);
        assert_eq!(lock_std(questions.0.get()).len(), 0);
    }

    /// Guards: only the latest questions are kept, however many are asked.
    #[test]
    fn the_oldest_question_makes_room() {
        let (questions, flag, all) = (Questions::default(), Flag::default(), Access::allowed());
        let head = head("/");
        let tokens: Vec<_> = (0..MAX + 2).map(|_| questions.ask(&head, &flag, &all, many(), Asked).unwrap()).collect();
        assert_eq!(lock_std(questions.0.get()).len(), MAX);
        assert_eq!(questions.answer(tokens[1], &head, &flag, &all, Asked), None);
        assert_eq!(questions.answer(tokens[2], &head, &flag, &all, Asked), Some(many()));
    }
}
