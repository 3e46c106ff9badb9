//! The hand-over between the thread that asks for a stack and the signal handler that copies it.
//!
//! One word holds a cookie and a state. The asker moves it from idle to asked. The handler moves it from asked to
//! copying, and to done, missed or unreadable. An asker that has waited long enough takes the question back, unless the
//! handler is copying. Then it waits on, because a copy takes microseconds. A handler with another cookie changes
//! nothing.

use crate::sync::atomic::{AtomicU64, Ordering};

const IDLE: u64 = 0;
const ASKED: u64 = 1;
const COPYING: u64 = 2;
const DONE: u64 = 3;
const MISSED: u64 = 4;
const UNREADABLE: u64 = 5;
const STATE: u64 = 7;

/// See the module.
#[derive(Debug)]
pub(crate) struct Handover(AtomicU64);

/// The state of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No answer yet.
    Pending,
    /// The stack is copied, and what the handler wrote can be read.
    Done,
    /// The handler ran, but not inside the poll that was asked for.
    Missed,
    /// The handler ran inside that poll, but on a stack that could not be read.
    Unreadable,
}

impl Handover {
    #[cfg(not(all(test, heeler_loom)))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    #[cfg(all(test, heeler_loom))]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    /// Asks. What the handler will read must be written before. The asker ensures that there is one question at a time.
    pub(crate) fn ask(&self, cookie: u64) {
        // idle → asked
        self.0.store(cookie << 3 | ASKED, Ordering::Release);
    }

    /// In the handler: returns the cookie of the open question, or of the last one. It still has to be
    /// [taken](Handover::take).
    pub(crate) fn cookie(&self) -> u64 {
        self.0.load(Ordering::Acquire) >> 3
    }

    /// In the handler: returns whether this question is open, and takes it if so.
    pub(crate) fn take(&self, cookie: u64) -> bool {
        // asked → copying
        let (from, to) = (cookie << 3 | ASKED, cookie << 3 | COPYING);
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// In the handler, after [`Handover::take`]: publishes what was written.
    pub(crate) fn answer(&self, cookie: u64, answer: Answer) {
        // copying → done | missed | unreadable
        let state = match answer {
            Answer::Done => DONE,
            Answer::Unreadable => UNREADABLE,
            Answer::Missed | Answer::Pending => MISSED,
        };
        self.0.store(cookie << 3 | state, Ordering::Release);
    }

    /// Returns the state of the question. An answer makes the word idle again.
    pub(crate) fn poll(&self) -> Answer {
        let answer = match self.0.load(Ordering::Acquire) & STATE {
            DONE => Answer::Done,
            MISSED => Answer::Missed,
            UNREADABLE => Answer::Unreadable,
            _ => return Answer::Pending,
        };
        // done | missed | unreadable → idle
        self.0.store(IDLE, Ordering::Relaxed);
        answer
    }

    /// Takes the question back. Returns false if the handler has taken it. Then an answer will come.
    pub(crate) fn withdraw(&self, cookie: u64) -> bool {
        // asked → idle
        self.0.compare_exchange(cookie << 3 | ASKED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, heeler_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;

    use super::*;

    /// The handler's writes are seen with the answer, and never collide with those for the next question.
    #[test]
    fn loom_answer_and_withdrawal_exclude_each_other() {
        loom::model(|| {
            let shared = Arc::new((Handover::new(), UnsafeCell::new(0_u64)));
            let handler = {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    if shared.0.take(7) {
                        // SAFETY: the question was taken, and the asker keeps off until the answer.
                        #[allow(unsafe_code)]
                        shared.1.with_mut(|value| unsafe { *value = 42 });
                        shared.0.answer(7, Answer::Done);
                    }
                })
            };
            shared.0.ask(7);
            let answered = loop {
                match shared.0.poll() {
                    Answer::Done => break true,
                    Answer::Pending => {}
                    answer => unreachable!("{answer:?}"),
                }
                if shared.0.withdraw(7) {
                    break false;
                }
                loom::thread::yield_now();
            };
            // SAFETY: if answered, the handler is done. If withdrawn, it will never begin.
            #[allow(unsafe_code)]
            let value = shared.1.with(|value| unsafe { *value });
            assert_eq!(value, if answered { 42 } else { 0 });
            // A second question, with another cookie, which the late handler must not answer.
            shared.0.ask(8);
            handler.join().unwrap();
            assert!(matches!(shared.0.poll(), Answer::Pending));
        });
    }
}
