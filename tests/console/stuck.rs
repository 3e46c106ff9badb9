//! A service that does not answer any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::app::App;
use crate::common::{PORTABLE, until};

/// Says that it has begun, and blocks its thread until it may go on.
fn sync_all(began: &AtomicUsize, gate: &std::sync::Mutex<()>) {
    began.fetch_add(1, Ordering::Relaxed);
    drop(gate.lock());
}

/// Guards: while every worker is blocked, the console's own listener answers, and says what holds the workers.
#[test]
fn it_answers_while_every_worker_is_blocked() {
    let app = App::start();
    let gate: &'static std::sync::Mutex<()> = Box::leak(Box::default());
    let held = gate.lock();
    let began = Arc::new(AtomicUsize::new(0));
    for number in 0..2 {
        let began = Arc::clone(&began);
        app.request(&format!("/flush/{number}"), async move { sync_all(&began, gate) });
    }
    until("both block", || began.load(Ordering::Relaxed) == 2);
    let (go, gone) = std::sync::mpsc::channel();
    app.driven.spawn(async move { go.send(()) });
    assert!(gone.recv_timeout(Duration::from_millis(100)).is_err(), "the workers are blocked");
    until("the table has them", || {
        let began = Instant::now();
        let answer = app.get("?form=table");
        assert_eq!(answer.status, 200);
        // It is far less, but this machine is shared.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        answer.body.contains("/flush/0")
    });
    let shown = if PORTABLE { "2 in a poll" } else { "2 blocked in console::stuck::sync_all" };
    until("the dump has them", || app.get("?form=text").body.contains(shown));
    drop(held);
    gone.recv_timeout(Duration::from_secs(20)).expect("the workers go on");
}
