//! A dump of all threads, whatever they belong to.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

#[inline(never)]
fn flush_audit_log(end: &Receiver<()>) {
    let _ = end.recv();
    std::hint::black_box(end);
}

#[inline(never)]
fn sync_all(end: &Receiver<()>) {
    let _ = end.recv_timeout(Duration::from_secs(3_600));
    std::hint::black_box(end);
}

/// Guards: threads that heeler has never seen are there with their stacks, grouped, and are not disturbed.
#[test]
fn threads_that_nobody_watches_are_in_the_dump() {
    let mut ends = Vec::new();
    let mut start = |name: &str, f: fn(&Receiver<()>)| {
        let (keep, end) = channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || f(&end)).unwrap();
        ends.push((keep, thread));
    };
    start("audit", flush_audit_log);
    for _ in 0..40 {
        start("blocking", sync_all);
    }
    let (stop, stopped) = channel::<()>();
    let busy = thread::Builder::new()
        .name("busy".into())
        .spawn(move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {})
        .unwrap();
    let mut text = String::new();
    common::until("all of them sleep", || {
        text = heeler::threads().to_string();
        text.contains("40 x blocking: sleeping, in system call futex")
    });
    println!("{text}");
    assert!(text.contains("audit ("), "{text}");
    if !common::PORTABLE {
        for function in ["flush_audit_log", "sync_all"] {
            assert!(text.contains(&format!("=> threads::{function}  tests/threads.rs:")), "{text}");
        }
        assert!(!text.contains("outer frames are missing"), "{text}");
    }
    let dump = heeler::threads();
    let group = dump.groups.iter().find(|group| group.threads.iter().any(|thread| thread.name == "busy")).unwrap();
    assert!(group.note.is_some(), "{:?}", group.frames);
    let json = serde_json::to_value(&dump).unwrap();
    assert!(json["threads"].as_u64().unwrap() >= 43 && json["groups"][0]["threads"].is_array());
    stop.send(()).unwrap();
    busy.join().unwrap();
    for (keep, thread) in ends {
        drop(keep);
        thread.join().unwrap();
    }
}
