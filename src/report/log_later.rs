//! Logs from threads that must not wait.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::capture::{PerProcess, sys};
use crate::log::{TARGET, log_safely};
use crate::sync::lock_std;

/// More than these do not wait. The oldest go first.
const MAX_WAITING: usize = 64;

type Log = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Later {
    waiting: VecDeque<Log>,
    dropped: u64,
    has_thread: bool,
}

static LATER: PerProcess<Mutex<Later>> = PerProcess::new(Mutex::default);

/// Runs `log`, which must only log something, soon, on a thread of heeler's, in order. A log is the application's code: it may
/// wait for a lock that a stuck thread holds, or for a pipe that nobody reads.
pub(crate) fn log_later(log: impl FnOnce() + Send + 'static) {
    let mut later = lock_std(LATER.get());
    if later.waiting.len() == MAX_WAITING {
        later.waiting.pop_front();
        later.dropped += 1;
    }
    later.waiting.push_back(Box::new(log));
    if !later.has_thread {
        // Without a thread it waits for the next one.
        later.has_thread = std::thread::Builder::new().name("heeler-log".into()).spawn(run).is_ok();
    }
}

fn run() {
    sys::block_signals();
    loop {
        let (log, dropped) = {
            let mut later = lock_std(LATER.get());
            let Some(log) = later.waiting.pop_front() else {
                later.has_thread = false;
                return;
            };
            (log, std::mem::take(&mut later.dropped))
        };
        if dropped > 0 {
            log_safely(|| tracing::warn!(target: TARGET, dropped, "log lines of heeler's were dropped: the log hung"));
        }
        log_safely(log);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Guards: a log that hangs or panics keeps nobody waiting, and what is logged meanwhile comes in order, the latest at
    /// least.
    #[test]
    fn a_log_that_hangs_keeps_nobody_waiting() {
        let ((go_on, hangs), (say, said)) = (channel::<()>(), channel());
        log_later(move || {
            let _ = hangs.recv();
        });
        for number in 0..2 * MAX_WAITING {
            let say = say.clone();
            log_later(move || {
                say.send(number).unwrap();
                std::panic::resume_unwind(Box::new("a subscriber that panics"));
            });
        }
        drop((go_on, say));
        let said: Vec<usize> = said.into_iter().collect();
        assert!(said.len() <= MAX_WAITING && said.is_sorted(), "{said:?}");
        assert_eq!(said.last(), Some(&(2 * MAX_WAITING - 1)));
    }
}
