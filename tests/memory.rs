//! What heeler costs in memory, in a large program with names and lines of everything: before the first report, while stacks are
//! named, and afterwards.
#![cfg(all(feature = "watchdog", feature = "timebox"))]
// Elsewhere names are read by the `backtrace` crate, which keeps what it reads.
#![cfg(heeler_copies)]

#[path = "common/memory.rs"]
mod memory;

use std::pin::Pin;

use memory::{MB, Memory};

/// Libraries that a service has beside it, so that there is something to search. Never run.
fn weigh() {
    let database = async {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    };
    let client = async { reqwest::get("http://localhost/").await.unwrap().bytes().await.unwrap() };
    let grpc = async {
        let (_, health) = tonic_health::server::health_reporter();
        tonic::transport::Server::builder().add_service(health).serve("127.0.0.1:1".parse().unwrap()).await
    };
    let server = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:1").await.unwrap();
        axum::serve(listener, axum::Router::<()>::new()).await
    };
    let store = async {
        use object_store::ObjectStoreExt as _;
        object_store::local::LocalFileSystem::new().get(&object_store::path::Path::from("a")).await
    };
    let sentry = async { drop(sentry::init("http://a@localhost/1")) };
    let all = async { drop(tokio::join!(database, client, grpc, server, store, sentry)) };
    let all: Pin<Box<dyn Future<Output = ()>>> = Box::pin(all);
    drop(std::hint::black_box(all));
    std::hint::black_box(monomorphized());
}

/// A library's worth of code, once for each of many types, as generics make it.
fn collections<const N: usize>() {
    use std::collections::{BTreeMap, HashMap, VecDeque};
    let keys = std::hint::black_box([[0_u8; N]; 2]);
    let tree: BTreeMap<[u8; N], usize> = keys.into_iter().zip(0..).collect();
    let table: HashMap<[u8; N], usize> = tree.range(keys[0]..).map(|(key, value)| (*key, *value)).collect();
    let mut list: Vec<[u8; N]> = table.into_keys().collect();
    list.sort();
    let queue: VecDeque<[u8; N]> = list.drain(..).rev().collect();
    println!("{queue:?}");
}

macro_rules! sizes {
    ($($tens:literal)*) => {
        fn monomorphized() -> Vec<fn()> {
            vec![$(
                collections::<{ 10 * $tens }>, collections::<{ 10 * $tens + 1 }>, collections::<{ 10 * $tens + 2 }>,
                collections::<{ 10 * $tens + 3 }>, collections::<{ 10 * $tens + 4 }>, collections::<{ 10 * $tens + 5 }>,
                collections::<{ 10 * $tens + 6 }>, collections::<{ 10 * $tens + 7 }>, collections::<{ 10 * $tens + 8 }>,
            )*]
        }
    };
}
sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33);

/// Guards: at rest heeler keeps little. Naming takes no more than it may, and returns it.
#[test]
fn memory_is_given_back() {
    weigh();
    let size = std::fs::metadata("/proc/self/exe").unwrap().len();
    println!("a program of {} MB", size / 1_000_000);
    assert!(!cfg!(debug_assertions) || size >= 300_000_000, "{size}");
    let life = memory::live(50_000, 1_000);
    let grown = |memory: Memory| memory.heap.saturating_sub(life.before.heap);
    let anonymous = |memory: Memory| memory.anonymous.saturating_sub(life.before.anonymous);
    assert!(grown(life.at_rest) <= 2 * MB && anonymous(life.at_rest) <= 3 * MB, "{life:?}");
    assert!(grown(life.naming) <= 64 * MB && anonymous(life.naming) <= 64 * MB, "{life:?}");
    assert!(grown(life.first_report) <= 3 * MB && grown(life.many_requests) <= 3 * MB, "{life:?}");
    // The allocator keeps some of what fifty requests at a time have needed.
    assert!(grown(life.many_reports) <= 4 * MB && anonymous(life.many_reports) <= 32 * MB, "{life:?}");
}
