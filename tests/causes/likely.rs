//! Nothing but what heeler sees by itself.

use tokio::sync::{Mutex, Semaphore};

use super::common::until;
use super::{Service, fetch_rates, ms, shared};

async fn load_invoice(pool: &Semaphore) {
    let _connection = pool.acquire().await.unwrap();
}

async fn export(pool: &Semaphore) {
    let _connection = pool.acquire().await.unwrap();
    fetch_rates().await;
}

#[test]
fn a_pool_exhausted_by_another_route_names_that() {
    let service = Service::new(2);
    let pool = shared(Semaphore::new(3));
    for _ in 0..3 {
        let pool = pool.clone();
        service.request("/export", async move { export(&pool).await });
    }
    until("the pool is exhausted", || pool.available_permits() == 0);
    // They are looked at before what waits for them is.
    std::thread::sleep(ms(60));
    let waits = pool.clone();
    service.request("/invoice", async move { load_invoice(&waits).await });
    let sentence = service.sentence("/invoice");
    assert!(sentence.contains("; likely held by GET /export (began "), "{sentence}");
    assert!(sentence.contains("ago; it waits in causes::fetch_rates at tests/causes/main.rs:"), "{sentence}");
    assert!(sentence.ends_with(") and 2 others"), "{sentence}");
    assert_eq!(service.report("/invoice").incident, service.report("/export").incident);
}

async fn import(lock: &Mutex<()>) {
    let _import = lock.lock().await;
    fetch_rates().await;
}

#[test]
fn the_one_who_has_passed_the_line_is_named_whatever_else_is_stuck() {
    let service = Service::new(2);
    let lock = shared(Mutex::new(()));
    service.request("/unrelated", fetch_rates());
    let first = lock.clone();
    service.request("/import/1", async move { import(&first).await });
    until("it is locked", || lock.try_lock().is_err());
    std::thread::sleep(ms(60));
    for number in 2..5 {
        let lock = lock.clone();
        service.request(&format!("/import/{number}"), async move { import(&lock).await });
    }
    let sentence = service.sentence("/import/3");
    assert!(sentence.contains("; likely held by GET /import/1 (began "), "{sentence}");
    let others = service.report("/import/4").others.unwrap();
    // On a busy machine one of them may just be in a poll.
    assert!((1..=2).contains(&others.at_same_place), "{others:?}");
    assert_eq!(others.in_flight, 4);
}
