//! What was acquired under a name.

use heeler::report::Finding;
use heeler::{Resource, Usage, acquire, acquire_blocking, acquire_shared, initialize, wait_for};
use tokio::sync::{Mutex, OnceCell, RwLock, Semaphore};

use super::{Service, fetch_rates, is, ms, shared};

async fn export(pool: &Semaphore, resource: &Resource) {
    let _connection = acquire(resource, pool.acquire()).await.unwrap();
    fetch_rates().await;
}

async fn load_invoice(pool: &Semaphore, resource: &Resource) {
    let _connection = acquire(resource, pool.acquire()).await.unwrap();
}

#[test]
fn a_pool_names_those_who_hold_its_connections() {
    let service = Service::new(2);
    let slots = shared(Semaphore::new(3));
    let counted = slots.clone();
    let usage = move || Usage::new(3 - counted.available_permits() as u32, 3);
    let pool = shared((slots, Resource::new("invoice pool").usage(usage).permits(3)));
    for _ in 0..3 {
        let pool = pool.clone();
        service.request("/export?token=hunter2", async move { export(&pool.0, &pool.1).await });
    }
    let waiting = pool.clone();
    service.request("/invoice", async move {
        is(|| waiting.0.available_permits() == 0).await;
        load_invoice(&waiting.0, &waiting.1).await;
    });
    let sentence = service.sentence("/invoice");
    assert!(sentence.contains("certain::load_invoice at "), "{sentence}");
    assert!(sentence.contains("; \"invoice pool\" (3 of 3 in use) is held by GET /export (taken "), "{sentence}");
    assert!(sentence.contains("ago at tests/causes/certain.rs:10; it waits in causes::fetch_rates at "), "{sentence}");
    assert!(sentence.ends_with(" and 2 others"), "{sentence}");
    let report = service.report("/invoice");
    let others = report.others.unwrap();
    assert_eq!((others.holders.len(), others.in_flight), (3, 3));
    assert!(others.holders.iter().all(|holder| !holder.likely && holder.held.unwrap() > ms(100)));
    let export = service.report("/export?token=[redacted]");
    assert_eq!(report.incident, export.incident);
    assert!(others.holders.iter().any(|holder| holder.id.as_ref() == Some(&export.id)));
}

/// Guards: an application that cannot say how much is in use costs its report that figure, and nothing else.
#[test]
fn a_usage_that_panics_is_left_out() {
    let service = Service::new(2);
    // Without the hook: a backtrace takes longer than a report waits.
    let panics = || std::panic::resume_unwind(Box::new("not now"));
    let lock = shared((Mutex::new(()), Resource::new("ledger").usage(panics)));
    let held = lock.clone();
    service.request("/close", async move {
        let _held = acquire(&held.1, held.0.lock()).await;
        fetch_rates().await;
    });
    service.request("/book", async move {
        is(|| lock.0.try_lock().is_err()).await;
        let _held = acquire(&lock.1, lock.0.lock()).await;
    });
    let sentence = service.sentence("/book");
    assert!(sentence.contains("; \"ledger\" is held by GET /close (taken "), "{sentence}");
}

#[test]
fn two_locks_in_the_wrong_order_are_a_deadlock() {
    let service = Service::new(2);
    let locks = shared((Mutex::new(()), Mutex::new(()), Resource::new("accounts"), Resource::new("ledger")));
    let (first, second) = (locks.clone(), locks);
    service.request("/transfer", async move {
        let _accounts = acquire(&first.2, first.0.lock()).await;
        is(|| first.1.try_lock().is_err()).await;
        let _ledger = acquire(&first.3, first.1.lock()).await;
    });
    service.request("/audit", async move {
        let _ledger = acquire(&second.3, second.1.lock()).await;
        is(|| second.0.try_lock().is_err()).await;
        let _accounts = acquire(&second.2, second.0.lock()).await;
    });
    let sentence = service.sentence("/transfer");
    assert!(sentence.contains("; deadlock: GET /audit holds \"ledger\" (taken "), "{sentence}");
    let (transfer, audit) = (service.report("/transfer"), service.report("/audit"));
    assert_eq!(audit.others.unwrap().resource.unwrap().finding, Finding::Deadlock);
    // One report for both, where repeated reports are held back.
    assert_eq!((transfer.fingerprint, transfer.incident), (audit.fingerprint, audit.incident));
}

/// Guards: one that has another branch, which will release what it holds, is not said to be stuck for ever.
#[test]
fn a_branch_that_can_release_a_lock_makes_no_deadlock() {
    let service = Service::new(2);
    let locks = shared((Mutex::new(()), Mutex::new(()), Resource::new("accounts"), Resource::new("ledger")));
    let (first, second) = (locks.clone(), locks);
    service.request("/both", async move {
        let releases = async {
            let _accounts = acquire(&first.2, first.0.lock()).await;
            fetch_rates().await;
        };
        let waits = async {
            is(|| first.1.try_lock().is_err()).await;
            let _ledger = acquire(&first.3, first.1.lock()).await;
        };
        tokio::join!(releases, waits);
    });
    service.request("/audit", async move {
        let _ledger = acquire(&second.3, second.1.lock()).await;
        is(|| second.0.try_lock().is_err()).await;
        let _accounts = acquire(&second.2, second.0.lock()).await;
    });
    let sentence = service.sentence("/audit");
    assert!(sentence.contains("; \"accounts\" is held by GET /both (taken "), "{sentence}");
    assert_ne!(service.report("/both").others.unwrap().resource.unwrap().finding, Finding::Deadlock);
}

#[test]
fn a_lock_that_is_taken_twice_is_told_so() {
    let service = Service::new(1);
    service.request("/twice", async {
        let lock = Mutex::new(());
        let _first = acquire(("ledger", 4711), lock.lock()).await;
        let _second = acquire(("ledger", 4711), lock.lock()).await;
    });
    let sentence = service.sentence("/twice");
    assert!(sentence.contains("; it holds \"ledger\" itself (taken "), "{sentence}");
}

#[test]
fn a_reader_behind_a_writer_behind_itself_is_a_deadlock() {
    let service = Service::new(2);
    let rates = shared((RwLock::new(()), Resource::new("rates")));
    let (reads, writes) = (rates.clone(), rates);
    service.request("/convert", async move {
        let _rate = acquire_shared(&reads.1, reads.0.read()).await;
        // Until a writer queues, which keeps further readers out.
        is(|| reads.0.try_read().is_err()).await;
        let _again = acquire_shared(&reads.1, reads.0.read()).await;
    });
    service.request("/update", async move {
        is(|| writes.0.try_write().is_err()).await;
        let _update = acquire(&writes.1, writes.0.write()).await;
    });
    let sentence = service.sentence("/convert");
    assert!(sentence.contains("; deadlock: GET /update holds \"rates\""), "{sentence}");
}

#[test]
fn a_futurelock_is_told_so() {
    let service = Service::new(1);
    let lock = shared((Mutex::new(()), Resource::new("sled")));
    let (held, waits) = (lock.clone(), lock);
    let parked = shared(std::sync::atomic::AtomicBool::new(false));
    let is_parked = parked.clone();
    service.request("/holder", async move {
        let _held = acquire(&held.1, held.0.lock()).await;
        is(|| is_parked.load(std::sync::atomic::Ordering::Relaxed)).await;
    });
    service.request("/select", async move {
        is(|| waits.0.try_lock().is_err()).await;
        let mut first = std::pin::pin!(acquire(&waits.1, waits.0.lock()));
        tokio::select! {
            _ = &mut first => {}
            () = tokio::time::sleep(ms(5)) => {
                // `first` is next in line, and nobody polls it.
                parked.store(true, std::sync::atomic::Ordering::Relaxed);
                let _second = acquire(&waits.1, waits.0.lock()).await;
            }
        }
    });
    let sentence = service.sentence("/select");
    assert!(sentence.contains("; \"sled\" is free, but its turn went to another future of this work"), "{sentence}");
}

#[test]
fn an_initialiser_that_hangs_is_named() {
    let service = Service::new(2);
    let cell = shared(OnceCell::<u32>::new());
    let (first, second) = (cell.clone(), cell);
    let begun = shared(std::sync::atomic::AtomicBool::new(false));
    let has_begun = begun.clone();
    service.request("/first", async move {
        let fetch = || {
            initialize(("rates", 1), async move {
                begun.store(true, std::sync::atomic::Ordering::Relaxed);
                fetch_rates().await;
                1
            })
        };
        wait_for(("rates", 1), first.get_or_init(fetch)).await;
    });
    service.request("/second", async move {
        is(|| has_begun.load(std::sync::atomic::Ordering::Relaxed)).await;
        wait_for(("rates", 1), second.get_or_init(async || 2)).await;
    });
    let sentence = service.sentence("/second");
    assert!(sentence.contains("; \"rates\" is held by GET /first (taken "), "{sentence}");
    assert!(sentence.contains("; it waits in causes::fetch_rates"), "{sentence}");
    let first = service.report("/first");
    assert!(first.others.is_none_or(|others| others.holders.is_empty()), "it does not wait for itself");
}

#[test]
fn a_holder_that_is_no_request_is_named() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(()));
    let (task, waits) = (lock.clone(), lock);
    service.driven.spawn(async move {
        let _held = acquire("token", task.lock()).await;
        std::future::pending::<()>().await;
    });
    service.request("/login", async move {
        is(|| waits.try_lock().is_err()).await;
        let _token = acquire("token", waits.lock()).await;
    });
    let sentence = service.sentence("/login");
    assert!(sentence.contains("; \"token\" is likely held by work on the thread "), "{sentence}");
    assert!(sentence.contains("which heeler does not watch"), "{sentence}");
}

#[test]
fn a_guard_that_was_forgotten_or_moved_is_still_held() {
    let service = Service::new(2);
    let permits = shared((shared(Semaphore::new(2)), Resource::new("slots").permits(2)));
    let (forgets, moves, waits) = (permits.clone(), permits.clone(), permits.clone());
    service.request("/forgets", async move {
        std::mem::forget(acquire(&forgets.1, forgets.0.acquire()).await.unwrap());
    });
    service.request("/moves", async move {
        let held = acquire(&moves.1, moves.0.clone().acquire_owned()).await.unwrap();
        tokio::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
    });
    service.request("/waits", async move {
        is(|| waits.0.available_permits() == 0).await;
        let _slot = acquire(&waits.1, waits.0.acquire()).await.unwrap();
    });
    let sentence = service.sentence("/waits");
    assert!(sentence.contains("; \"slots\" is held by work that has ended (taken "), "{sentence}");
    assert!(sentence.ends_with(" and 1 other"), "{sentence}");
}

#[test]
fn a_thread_that_blocks_on_a_lock_names_its_holder() {
    let service = Service::new(3);
    let lock = shared((std::sync::Mutex::new(()), Resource::new("ledger")));
    let (held, waits) = (lock.clone(), lock);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    service.request("/holds", async move {
        let _held = acquire_blocking(&held.1, || held.0.lock()).unwrap();
        let _ = ended.recv();
    });
    service.request("/blocks", async move {
        is(|| waits.0.try_lock().is_err()).await;
        let _ledger = acquire_blocking(&waits.1, || waits.0.lock()).unwrap();
    });
    let sentence = service.sentence("/blocks");
    assert!(sentence.contains("is blocking its thread"), "{sentence}");
    assert!(sentence.contains("; \"ledger\" is held by GET /holds (taken "), "{sentence}");
    drop(end);
}
