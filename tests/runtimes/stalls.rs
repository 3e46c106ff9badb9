//! Stalls.

use std::time::{Duration, Instant};

use heeler::report::{DumpState, Kind, RuntimeHealth};
use http::{Request, StatusCode};
use tower::Service as _;

use super::common::{Driven, PORTABLE, alone, collect, ms, until};

#[inline(never)]
fn hold_a_worker(time: Duration) {
    std::thread::sleep(time);
}

fn health(name: &str) -> RuntimeHealth {
    heeler::runtimes().into_iter().find(|runtime| runtime.name == name).expect("it is watched")
}

/// Blocks both workers of a runtime.
fn stall(driven: &Driven, time: Duration) {
    for _ in 0..2 {
        driven.spawn(heeler::watch("holds a worker", Duration::from_secs(3_600), async move { hold_a_worker(time) }));
    }
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
        // The first is reported, and must still go on by then.
        stall(&driven, ms(if number == 1 { 1_500 } else { 300 }));
        // On a busy machine the host may be the one to blame.
        let seen = || health("stalls").stalls + health("stalls").throttled;
        until("the stall is found", || seen() >= number);
        // What the host is to blame for is no stall, and goes on all the same.
        futures::executor::block_on(driven.spawn(std::future::ready(()))).unwrap();
        std::thread::sleep(ms(100));
    }
    let health = health("stalls");
    assert!(health.stalls + health.throttled >= 20 && health.stalls >= 10, "{health:?}");
    assert!(health.delay_max >= ms(200), "{health:?}");
    until("one is reported", || !seen.all().is_empty());
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
    assert_eq!(ask(), (StatusCode::OK, "alive\n".to_owned()));
    stall(&driven, Duration::from_secs(2));
    until("it is dead", || ask().0 == StatusCode::SERVICE_UNAVAILABLE);
    let (_, body) = ask();
    assert!(body.starts_with("the runtime \"may die\" has run nothing for "), "{body}");
    until("it lives", || ask().0 == StatusCode::OK);
    drop(driven);
    let began = Instant::now();
    until("it is gone", || heeler::runtimes().iter().all(|runtime| runtime.name != "may die"));
    assert!(heeler::liveness().is_alive(), "{:?}", began.elapsed());
}
