//! Nobody is accused where nobody is to blame.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};

use super::{Service, fetch_rates, is, ms, shared};

/// Another request that is stuck, and older than the one in question.
fn unrelated(service: &Service) {
    service.request("/unrelated", fetch_rates());
    std::thread::sleep(ms(60));
}

fn held_by_a_plain_task(service: &Service, lock: Arc<Mutex<()>>) {
    service.driven.spawn(async move {
        let _held = lock.lock().await;
        std::future::pending::<()>().await;
    });
}

#[track_caller]
fn accuses_nobody(service: &Service, path: &str) {
    let sentence = service.sentence(path);
    assert!(!sentence.contains("held by") && !sentence.contains("likely"), "{sentence}");
    assert!(service.report(path).others.is_none_or(|others| others.holders.is_empty()), "{sentence}");
}

#[test]
fn waits_that_no_other_request_can_end() {
    let service = Service::new(2);
    unrelated(&service);
    let (_keep, receiver) = oneshot::channel::<()>();
    service.request("/answer", fetch_rates());
    service.request("/timer", async { tokio::time::sleep(Duration::from_secs(60)).await });
    service.request("/oneshot", async move { drop(receiver.await) });
    service.request("/notify", async { Notify::new().notified().await });
    service.request("/message", async {
        let (_keep, mut messages) = mpsc::channel::<()>(1);
        messages.recv().await;
    });
    service.request("/watch", async {
        let (_keep, mut value) = watch::channel(());
        let _ = value.changed().await;
    });
    service.request("/join", async {
        let _ = tokio::spawn(std::future::pending::<()>()).await;
    });
    for path in ["/answer", "/timer", "/oneshot", "/notify", "/message", "/watch", "/join"] {
        accuses_nobody(&service, path);
    }
}

/// Guards: the same of waits that end by other means than another request.
#[test]
fn waits_for_the_outside_and_for_tasks() {
    use futures::FutureExt as _;
    use futures::stream::{FuturesUnordered, StreamExt as _};
    let service = Service::new(2);
    unrelated(&service);
    service.request("/barrier", async { _ = tokio::sync::Barrier::new(2).wait().await });
    service.request("/broadcast", async {
        let (_keep, mut values) = tokio::sync::broadcast::channel::<()>(1);
        let _ = values.recv().await;
    });
    service.request("/set", async {
        let mut set = tokio::task::JoinSet::new();
        set.spawn(std::future::pending::<()>());
        set.join_next().await;
    });
    service.request("/unordered", async {
        let (_keep, receiver) = oneshot::channel::<()>();
        FuturesUnordered::from_iter([receiver]).next().await;
    });
    service.request("/shared", async {
        let (_keep, receiver) = oneshot::channel::<()>();
        let _ = receiver.shared().await;
    });
    service.request("/accept", async {
        let _ = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().accept().await;
    });
    service.request("/datagram", async {
        let _ = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().recv(&mut [0]).await;
    });
    service.request("/interval", async {
        let mut interval = tokio::time::interval(Duration::from_secs(60));
        interval.tick().await;
        interval.tick().await;
    });
    service.request("/timers", async {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
            () = tokio::time::sleep(Duration::from_secs(90)) => {}
        }
    });
    let paths =
        ["/barrier", "/broadcast", "/set", "/unordered", "/shared", "/accept", "/datagram", "/interval", "/timers"];
    for path in paths {
        accuses_nobody(&service, path);
    }
}

/// Guards: what a plain task holds is no other request's fault, and those who wait for it do not accuse each other.
#[test]
fn what_a_plain_task_holds() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(()));
    let table = shared(tokio::sync::RwLock::new(()));
    let permits = shared(tokio::sync::Semaphore::new(1));
    let cell = shared(tokio::sync::OnceCell::<u32>::new());
    let (full, mut never_read) = mpsc::channel::<u32>(1);
    let (theirs, held) = ((lock.clone(), table.clone(), permits.clone(), cell.clone()), shared(Notify::new()));
    let is_held = held.clone();
    service.driven.spawn(async move {
        let _all = (theirs.0.lock().await, theirs.1.write().await, theirs.2.acquire().await.unwrap());
        let initialises = theirs.3.get_or_init(async || {
            held.notify_one();
            std::future::pending().await
        });
        initialises.await;
        let _ = never_read.recv().await;
    });
    futures::executor::block_on(is_held.notified());
    full.try_send(1).unwrap();
    service.request("/lock", async move { drop(lock.lock().await) });
    service.request("/table", async move { drop(table.read().await) });
    service.request("/permit", async move { drop(permits.acquire().await.unwrap()) });
    service.request("/cell", async move { _ = cell.get_or_init(async || 1).await });
    service.request("/queue", async move { full.send(2).await.unwrap() });
    for path in ["/lock", "/table", "/permit", "/cell", "/queue"] {
        accuses_nobody(&service, path);
    }
}

/// Guards: either of two may hold it, and one that came later cannot.
#[test]
fn a_lock_whose_holder_is_not_clear() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(()));
    let waits = lock.clone();
    held_by_a_plain_task(&service, lock);
    unrelated(&service);
    service.request("/other", async {
        tokio::io::copy(&mut super::silence().await.1, &mut tokio::io::sink()).await.map(drop).unwrap()
    });
    std::thread::sleep(ms(60));
    service.request("/waits", async move {
        is(|| waits.try_lock().is_err()).await;
        drop(waits.lock().await);
    });
    accuses_nobody(&service, "/waits");
}

#[test]
fn work_that_came_later() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(()));
    let waits = lock.clone();
    held_by_a_plain_task(&service, lock);
    service.request("/first", async move {
        is(|| waits.try_lock().is_err()).await;
        drop(waits.lock().await);
    });
    std::thread::sleep(ms(60));
    service.request("/later", fetch_rates());
    accuses_nobody(&service, "/first");
}

/// Guards: fast requests of many kinds, which wait for each other a little, are neither reported nor blamed.
#[test]
fn ten_thousand_fast_requests() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(0_u32));
    let permits = shared(tokio::sync::Semaphore::new(3));
    let named = shared((Mutex::new(0_u32), heeler::Resource::new("ledger")));
    let done = shared(std::sync::atomic::AtomicUsize::new(0));
    const BATCH: usize = 200;
    for batch in 0..10_000 / BATCH {
        for at in 0..BATCH {
            let (lock, permits, named, done) = (lock.clone(), permits.clone(), named.clone(), done.clone());
            service.request("/fast", async move {
                match at % 5 {
                    0 => *lock.lock().await += 1,
                    1 => drop(permits.acquire().await.unwrap()),
                    2 => **heeler::acquire(&named.1, named.0.lock()).await += 1,
                    3 => {
                        let (send, mut receive) = mpsc::channel(1);
                        tokio::join!(async { send.send(at).await.unwrap() }, async { receive.recv().await });
                    }
                    _ => tokio::spawn(async { tokio::task::yield_now().await }).await.unwrap(),
                }
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        super::common::until("the batch is done", || {
            done.load(std::sync::atomic::Ordering::Relaxed) == (batch + 1) * BATCH
        });
    }
    assert!(service.reports.blocking_flush(super::common::PATIENCE));
    // On a busy machine some may have been late. Even then nobody is stuck.
    for report in service.seen.all() {
        assert!(report.others.as_ref().is_none_or(|others| others.holders.is_empty()), "{}", report.to_text());
    }
}
