//! Stalls.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use heeler::report::{DumpState, Kind, RuntimeHealth};
use http::{Request, StatusCode};
use tower::Service as _;

use super::common::{Driven, PORTABLE, alone, collect, ms, until};

#[inline(never)]
fn hold_a_worker(end: &Receiver<()>) {
    let _ = end.recv();
}

fn health(name: &str) -> RuntimeHealth {
    heeler::runtimes().into_iter().find(|runtime| runtime.name == name).expect("it is watched")
}

/// Blocks both workers of a runtime until these are dropped.
fn stall(driven: &Driven) -> [Sender<()>; 2] {
    [(); 2].map(|()| {
        let (end, ended) = channel();
        driven.spawn(heeler::watch("holds a worker", Duration::from_secs(3_600), async move { hold_a_worker(&ended) }));
        end
    })
}

/// Guards: each stall is found. The first is reported, with the stack of what holds the workers, and others soon after it are
/// only counted.
#[test]
fn each_stall_is_found() {
    let _alone = alone();
    let driven = Driven::new(2);
    let (seen, reports) = collect();
    heeler::watch_runtime("stalls", &driven.handle, reports);
    until("it beats", || health("stalls").delay_p50 > Duration::ZERO);
    for number in 1..=20 {
        let held = stall(&driven);
        // On a busy machine the host may be the one to blame.
        let found = || health("stalls").stalls + health("stalls").throttled;
        until("the stall is found", || found() >= number);
        // The first is reported, and must still go on by then.
        until("it is reported", || health("stalls").stalls == 0 || !seen.all().is_empty());
        drop(held);
        // What the host is to blame for is no stall, and ends all the same.
        until("it beats again", || heeler::liveness().dead_after(ms(200)).is_alive());
    }
    let health = health("stalls");
    assert!(health.stalls + health.throttled >= 20 && health.stalls >= 10, "{health:?}");
    assert!(health.delay_max >= ms(200), "{health:?}");
    assert_eq!(seen.all().len(), 1);
    let report = seen.all().remove(0);
    let sentence = report.sentence();
    assert_eq!(report.kind, Kind::Dump);
    assert!(sentence.starts_with("a dump (the runtime \"stalls\" has not run anything for "), "{sentence}");
    let dump = report.dump.as_ref().unwrap();
    let runtime = dump.runtimes.iter().find(|runtime| runtime.name == "stalls").unwrap();
    assert!(runtime.delay_max >= ms(200) && runtime.workers == 2, "{runtime:?}");
    if !PORTABLE {
        assert_eq!((dump.groups[0].count, dump.groups[0].state), (2, DumpState::Blocked));
        assert!(sentence.contains("stalls::hold_a_worker"), "{sentence}");
    }
}

/// Guards: a runtime that works is alive, one that does not is not, and one that is shut down is no matter any more.
#[test]
fn a_dead_runtime_is_told() {
    let _alone = alone();
    let driven = Driven::new(2);
    let (_, reports) = collect();
    heeler::watch_runtime("may die", &driven.handle, reports);
    let mut liveness = heeler::liveness().dead_after(ms(400));
    let mut ask = || {
        let answer = liveness.call(Request::new(())).into_inner().unwrap();
        (answer.status(), answer.into_body())
    };
    until("it beats", || health("may die").delay_p50 > Duration::ZERO);
    until("it is alive", || ask() == (StatusCode::OK, "alive\n".to_owned()));
    let held = stall(&driven);
    let mut body = String::new();
    until("it is dead", || {
        let answer = ask();
        body = answer.1;
        answer.0 == StatusCode::SERVICE_UNAVAILABLE
    });
    drop(held);
    assert!(body.starts_with("the runtime \"may die\" has run nothing for "), "{body}");
    until("it lives", || ask().0 == StatusCode::OK);
    drop(driven);
    let began = Instant::now();
    until("it is gone", || heeler::runtimes().iter().all(|runtime| runtime.name != "may die"));
    assert!(heeler::liveness().is_alive(), "{:?}", began.elapsed());
}
