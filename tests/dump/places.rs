//! Where everything is.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heeler::report::{DumpKind, DumpState};
use heeler::{Resource, Usage, acquire};
use tokio::sync::{Barrier, Mutex, Semaphore};

use super::common::{PORTABLE, until};
use super::{Service, dump};

async fn forever() {
    std::future::pending::<()>().await;
}

async fn nobody_answers(receiver: tokio::sync::oneshot::Receiver<()>) {
    let _ = receiver.await;
}

async fn load_invoice(pool: Arc<(Arc<Semaphore>, Resource)>) {
    let _connection = acquire(&pool.1, pool.0.acquire()).await.unwrap();
    forever().await;
}

/// Guards: work that nothing has looked at before is grouped by place, with its stack; who holds and who waits for a
/// resource is named; a deadlock is told; child work belongs to its request.
#[test]
fn everything_in_flight_is_grouped_by_place() {
    let service = Service::new(2);
    let slots = Arc::new(Semaphore::new(3));
    let counted = Arc::clone(&slots);
    let usage = move || Usage::new(3 - counted.available_permits() as u32, 3);
    let pool = Arc::new((slots, Resource::new("invoice pool").usage(usage).permits(3)));
    for number in 0..11 {
        service.request(&format!("/invoice/{number}?token=hunter2"), load_invoice(Arc::clone(&pool)));
    }
    let locks = Arc::new([(Mutex::new(()), Resource::new("accounts")), (Mutex::new(()), Resource::new("ledger"))]);
    let (both, waiting) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    for (path, first, second) in [("/transfer", 0, 1), ("/audit", 1, 0)] {
        let (locks, both, waiting) = (Arc::clone(&locks), Arc::clone(&both), Arc::clone(&waiting));
        service.request(path, async move {
            let _first = acquire(&locks[first].1, locks[first].0.lock()).await;
            both.wait().await;
            let mut second = pin!(acquire(&locks[second].1, locks[second].0.lock()));
            assert!(futures::poll!(&mut second).is_pending());
            waiting.fetch_add(1, Ordering::Relaxed);
            let _second = second.await;
        });
    }
    let (_keep, receiver) = tokio::sync::oneshot::channel();
    service.request("/export", async move {
        let _ = heeler::spawn(nobody_answers(receiver)).await;
    });
    until("two wait for each other", || waiting.load(Ordering::Relaxed) == 2);
    service.until_at_rest(11 + 2 + 2, 2);
    let dump = dump();
    println!("{dump}\n{}", serde_json::to_string_pretty(&dump).unwrap().len());
    assert_eq!((dump.in_flight, dump.omitted, dump.unobserved), (15, 0, 0));

    let largest = &dump.groups[0];
    assert_eq!((largest.count, largest.state), (8, DumpState::Waiting));
    assert_eq!(largest.routes, [("GET /invoice/{id}".to_owned(), 8)]);
    let function = largest.location.as_ref().unwrap().function.as_deref().unwrap();
    assert!(function.ends_with("places::load_invoice"), "{function}");
    if !PORTABLE {
        assert_eq!(largest.awaiting.as_deref(), Some("a permit"));
    }
    assert!(largest.paths[0].stacks[0].frames.iter().any(|frame| frame.own));

    let pool = dump.resources.iter().find(|resource| resource.name == "invoice pool").unwrap();
    assert_eq!((pool.holders.len(), pool.waiters.len(), pool.usage), (3, 8, Some(Usage::new(3, 3))));
    assert!(!pool.deadlock && pool.certain && pool.waiters[0].at.file.as_deref() == Some(file!()));

    let ring = &dump.deadlocks[..];
    let names: Vec<&str> = dump.work.iter().filter(|work| ring[0].contains(&work.id)).map(|work| &*work.name).collect();
    assert!(ring.len() == 1 && names.len() == 2 && names.contains(&"GET /transfer") && names.contains(&"GET /audit"));
    assert!(dump.resources.iter().filter(|resource| resource.deadlock).count() == 2);
    let sentence = dump.sentence();
    assert!(sentence.starts_with("15 in flight, 2 of them in a deadlock (GET /"), "{sentence}");
    assert!(sentence.contains("): 8 waiting for a permit in ") || PORTABLE, "{sentence}");

    let child = dump.work.iter().find(|work| work.kind == DumpKind::Child).unwrap();
    let export = dump.work.iter().find(|work| work.name == "GET /export").unwrap();
    assert_eq!((child.parent.as_ref(), &*child.name), (Some(&export.id), "spawn"));
    let text = dump.to_string();
    assert!(!text.contains("hunter2") && !serde_json::to_string(&dump).unwrap().contains("hunter2"));
    assert!(text.contains("DEADLOCK"), "{text}");
}

/// Says that it has begun, and blocks its thread until it may go on.
fn sync_all(began: &AtomicUsize, gate: &std::sync::Mutex<()>) {
    began.fetch_add(1, Ordering::Relaxed);
    drop(gate.lock());
}

/// Guards: a dump needs no worker. What holds them is shown with the stack of its thread, and what is behind it is said to
/// be woken and not polled.
#[test]
fn a_dump_is_taken_while_all_workers_are_blocked() {
    let service = Service::new(2);
    let gate: &'static std::sync::Mutex<()> = Box::leak(Box::default());
    let (go, mut gone) = tokio::sync::watch::channel(false);
    for number in 0..40 {
        let mut gone = gone.clone();
        service.request(&format!("/feed/{number}"), async move {
            let _ = gone.wait_for(|gone| *gone).await;
        });
    }
    service.until_at_rest(40, 2);
    let held = gate.lock();
    let began = Arc::new(AtomicUsize::new(0));
    for number in 0..2 {
        let began = Arc::clone(&began);
        service.request(&format!("/flush/{number}"), async move { sync_all(&began, gate) });
    }
    until("both block", || began.load(Ordering::Relaxed) == 2);
    let dump = heeler::blocking_dump();
    println!("{dump}");
    let states: Vec<_> = dump.groups.iter().map(|group| (group.count, group.state)).collect();
    let busy = if PORTABLE { DumpState::Polled } else { DumpState::Blocked };
    assert_eq!(states, [(40, DumpState::Woken), (2, busy)]);
    assert!(dump.took < Duration::from_secs(5), "{:?}", dump.took);
    if !PORTABLE {
        let function = dump.groups[1].location.as_ref().unwrap().function.as_deref().unwrap();
        assert!(function.ends_with("places::sync_all"), "{function}");
    }
    drop(held);
    go.send_replace(true);
    until("all are answered", || heeler::metrics().in_flight.total() == 0);
    assert!(*gone.borrow_and_update());
}
