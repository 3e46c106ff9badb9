//! A dump while everything changes: threads start, end and panic, processes are forked, libraries are loaded, requests come and
//! go.

#![allow(unsafe_code, reason = "forks, and loads libraries")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Service;
use super::common::until;

/// How many dumps are taken. Ten thousand take a quarter of an hour.
fn dumps() -> u64 {
    std::env::var("HEELER_DUMPS").ok().and_then(|dumps| dumps.parse().ok()).unwrap_or(15)
}

static STOP: AtomicBool = AtomicBool::new(false);

fn goes_on() -> bool {
    !STOP.load(Ordering::Relaxed)
}

/// Guards: a dump harms nothing, and whatever happens meanwhile harms no dump. All responses are right.
#[test]
fn a_dump_survives_whatever_happens_meanwhile() {
    let service = Service::new(2);
    let answered = std::sync::Arc::new(AtomicU64::new(0));
    let panics = std::panic::take_hook();
    // A thousand of these would hide everything else.
    std::panic::set_hook(Box::new(|_| {}));
    let noise = [
        std::thread::spawn(|| {
            while goes_on() {
                let started =
                    std::thread::Builder::new().spawn(|| std::thread::sleep(Duration::from_micros(300))).unwrap();
                std::thread::spawn(|| panic!("on purpose")).join().unwrap_err();
                started.join().unwrap();
            }
        }),
        std::thread::spawn(|| {
            while goes_on() {
                // SAFETY: the child ends at once, by a function that may be called after a fork.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: as above.
                    unsafe { libc::_exit(0) };
                }
                assert!(child > 0);
                // SAFETY: waits for that child.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
                std::thread::sleep(Duration::from_millis(2));
            }
        }),
        std::thread::spawn(|| {
            while goes_on() {
                // SAFETY: a library of the system's, which is only loaded and unloaded.
                unsafe {
                    let library = libc::dlopen(c"libutil.so.1".as_ptr(), libc::RTLD_NOW);
                    if !library.is_null() {
                        libc::dlclose(library);
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }),
    ];
    let mut sent = 0;
    for number in 0..dumps() {
        for _ in 0..50 {
            let answered = std::sync::Arc::clone(&answered);
            service.request(&format!("/feed/{sent}"), async move {
                tokio::time::sleep(Duration::from_millis(sent % 40)).await;
                tokio::task::yield_now().await;
                answered.fetch_add(1, Ordering::Relaxed);
            });
            sent += 1;
        }
        let dump = heeler::blocking_dump();
        assert!(dump.work.len() as u64 <= sent, "{number}");
        assert!(!dump.to_string().is_empty());
    }
    STOP.store(true, Ordering::Relaxed);
    noise.into_iter().for_each(|thread| thread.join().unwrap());
    std::panic::set_hook(panics);
    until("all are answered", || answered.load(Ordering::Relaxed) == sent);
    until("nothing is left", || heeler::metrics().in_flight.total() == 0);
}
