//! Who keeps work waiting in other people's libraries: named where it is clear, and nobody where it isn't.
//!
//! Each case is a holder and one who waits for what it holds, in true waits. The sentence about the latter must name the
//! former, or the case says that it must name nobody.

mod collected;

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::Arc;
use std::time::{Duration, Instant};

use heeler::{Report, Reports, Resource, acquire, initialize, wait_for};
use tokio::runtime::{Builder, Runtime};

use collected::Collected;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

const THRESHOLD: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);
/// Between the start of the holder and that of the others.
const BEFORE: Duration = Duration::from_millis(150);

/// What must be in the sentence about the victim. Nobody is accused if it is empty.
struct Case {
    name: &'static str,
    says: &'static str,
    holders: Vec<Work>,
    victim: Work,
}

fn case(
    name: &'static str,
    says: &'static str,
    holder: impl Future<Output = ()> + Send + 'static,
    victim: impl Future<Output = ()> + Send + 'static,
) -> Case {
    Case { name, says, holders: vec![Box::pin(holder)], victim: Box::pin(victim) }
}

/// An answer from outside that never comes.
async fn fetch_rates() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let _server = listener.accept().await.unwrap();
    let _ = tokio::io::AsyncReadExt::read(&mut client, &mut [0; 1]).await;
}

const ACCUSED: &str = "somebody is accused";
const HOLDER: &str = "held by the job \"holder\"";

#[derive(Debug)]
struct Connections;

impl deadpool::managed::Manager for Connections {
    type Type = ();
    type Error = std::convert::Infallible;

    async fn create(&self) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn recycle(
        &self,
        (): &mut (),
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Self::Error> {
        Ok(())
    }
}

impl bb8::ManageConnection for Connections {
    type Connection = ();
    type Error = std::convert::Infallible;

    async fn connect(&self) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn is_valid(&self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has_broken(&self, (): &mut ()) -> bool {
        false
    }
}

fn pools() -> Vec<Case> {
    let pool: deadpool::managed::Pool<Connections> =
        deadpool::managed::Pool::builder(Connections).max_size(1).build().unwrap();
    let other = pool.clone();
    let unmanaged = deadpool::unmanaged::Pool::from(vec![1]);
    let also = unmanaged.clone();
    let its = Resource::new("invoice pool");
    let its_too = its.clone();
    let named: deadpool::managed::Pool<Connections> =
        deadpool::managed::Pool::builder(Connections).max_size(1).build().unwrap();
    let also_named = named.clone();
    vec![
        case(
            "deadpool",
            HOLDER,
            async move {
                let _c = pool.get().await.unwrap();
                fetch_rates().await
            },
            async move { drop(other.get().await) },
        ),
        case(
            "deadpool, unmanaged",
            HOLDER,
            async move {
                let _c = unmanaged.get().await.unwrap();
                fetch_rates().await
            },
            async move { drop(also.get().await) },
        ),
        case(
            "deadpool, by name",
            "\"invoice pool\" is held by the job \"holder\"",
            async move {
                let _c = acquire(&its, named.get()).await.unwrap();
                fetch_rates().await
            },
            async move { drop(acquire(&its_too, also_named.get()).await) },
        ),
    ]
}

async fn bb8_pool() -> Case {
    let pool = bb8::Pool::builder().max_size(1).build(Connections).await.unwrap();
    let other = pool.clone();
    case(
        "bb8",
        HOLDER,
        async move {
            let _c = pool.get().await.unwrap();
            fetch_rates().await
        },
        async move { drop(other.get().await) },
    )
}

fn locks() -> Vec<Case> {
    let lock = Arc::new(async_lock::Mutex::new(()));
    let (one, two) = (lock.clone(), lock);
    let rw = Arc::new(async_lock::RwLock::new(()));
    let (reads, writes) = (rw.clone(), rw);
    let futures_lock = Arc::new(futures::lock::Mutex::new(()));
    let (three, four) = (futures_lock.clone(), futures_lock);
    let tokio_rw = Arc::new(tokio::sync::RwLock::new(()));
    let (five, six) = (tokio_rw.clone(), tokio_rw);
    let owned = Arc::new(tokio::sync::Semaphore::new(1));
    let (seven, eight) = (owned.clone(), owned);
    let (full, rx) = tokio::sync::mpsc::channel::<u8>(1);
    vec![
        case(
            "async-lock",
            HOLDER,
            async move {
                let _l = one.lock().await;
                fetch_rates().await
            },
            async move { drop(two.lock().await) },
        ),
        case(
            "async-lock, write",
            HOLDER,
            async move {
                let _l = reads.read().await;
                fetch_rates().await
            },
            async move { drop(writes.write().await) },
        ),
        case(
            "futures",
            HOLDER,
            async move {
                let _l = three.lock().await;
                fetch_rates().await
            },
            async move { drop(four.lock().await) },
        ),
        case(
            "tokio, read",
            HOLDER,
            async move {
                let _l = five.write().await;
                fetch_rates().await
            },
            async move { drop(six.read().await) },
        ),
        case(
            "tokio, owned permit",
            HOLDER,
            async move {
                let _l = seven.acquire_owned().await.unwrap();
                fetch_rates().await
            },
            async move { drop(eight.acquire().await) },
        ),
        case(
            "an actor that is busy",
            HOLDER,
            async move {
                let mut rx = rx;
                while rx.recv().await.is_some() {
                    fetch_rates().await;
                }
            },
            async move {
                for message in 0..3 {
                    let _ = full.send(message).await;
                }
            },
        ),
    ]
}

fn caches() -> Vec<Case> {
    let cache: moka::future::Cache<u8, u8> = moka::future::Cache::new(10);
    let other = cache.clone();
    let named: moka::future::Cache<u8, u8> = moka::future::Cache::new(10);
    let also = named.clone();
    async fn load() -> u8 {
        fetch_rates().await;
        1
    }
    async fn rate(cache: moka::future::Cache<u8, u8>) {
        cache.get_with(1, load()).await;
    }
    async fn named_rate(cache: moka::future::Cache<u8, u8>) {
        wait_for(("rates", 1), cache.get_with(1, initialize(("rates", 1), load()))).await;
    }
    vec![
        case("moka", HOLDER, rate(cache), rate(other)),
        case("moka, by name", "\"rates\" is held by the job \"holder\"", named_rate(named), named_rate(also)),
    ]
}

/// A guard that is held across an await, while others block their threads.
fn maps() -> Vec<Case> {
    let map = Arc::new([(1, 1)].into_iter().collect::<dashmap::DashMap<i32, i32>>());
    let (held, inserts) = (map.clone(), map);
    vec![case(
        "dashmap",
        HOLDER,
        // The guard is not `Send`, so the task cannot be, either: a thread of its own has it.
        async move {
            let _entry = Sends(held.get_mut(&1).unwrap());
            fetch_rates().await;
        },
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            inserts.insert(1, 2);
        },
    )]
}

/// Makes a guard `Send`, as its feature `send_guard` does in parking_lot.
struct Sends<T>(#[allow(dead_code, reason = "held until it is dropped")] T);

// SAFETY: the lock of a `DashMap` is a word that any thread may unlock.
unsafe impl<T> Send for Sends<T> {}

/// Nobody of this process can end these waits, and something else is stuck besides.
fn innocent() -> Vec<Case> {
    let waits: Vec<(&'static str, Work)> = vec![
        ("a response", Box::pin(fetch_rates())),
        ("a timer", Box::pin(async { tokio::time::sleep(Duration::from_secs(600)).await })),
        (
            "a message",
            Box::pin(async {
                let (_tx, mut rx) = tokio::sync::mpsc::channel::<u8>(1);
                rx.recv().await;
            }),
        ),
        (
            "a oneshot",
            Box::pin(async {
                let (_tx, rx) = tokio::sync::oneshot::channel::<u8>();
                let _ = rx.await;
            }),
        ),
        ("a notification", Box::pin(async { tokio::sync::Notify::new().notified().await })),
        (
            "flume, empty",
            Box::pin(async {
                let (_tx, rx) = flume::bounded::<u8>(1);
                let _ = rx.recv_async().await;
            }),
        ),
        ("a barrier", Box::pin(async { drop(tokio::sync::Barrier::new(2).wait().await) })),
        ("a cancellation", Box::pin(async { tokio_util::sync::CancellationToken::new().cancelled().await })),
    ];
    waits
        .into_iter()
        .map(|(name, victim)| Case { name, says: "", holders: vec![Box::pin(fetch_rates())], victim })
        .collect()
}

fn run(runtime: &Runtime, case: Case) -> Result<(), String> {
    let (tell, told): (Sender<Report>, Receiver<Report>) = channel();
    let reports =
        Reports::builder().without_log().repeat_after(Duration::ZERO).sink(Collected::sending_to(tell)).build().unwrap();
    let mut tasks = Vec::new();
    for holder in case.holders {
        tasks.push(runtime.spawn(heeler::watch("holder", THRESHOLD, holder).reports(reports.clone())));
    }
    std::thread::sleep(BEFORE);
    tasks.push(runtime.spawn(heeler::watch("victim", THRESHOLD, case.victim).reports(reports.clone())));
    let until = Instant::now() + PATIENCE;
    let report = loop {
        let left = until.saturating_duration_since(Instant::now());
        let report = told.recv_timeout(left).map_err(|_| format!("{}: no report", case.name))?;
        if report.job.as_deref() == Some("victim") {
            break report;
        }
    };
    tasks.iter().for_each(|task| task.abort());
    let sentence = report.sentence();
    println!("{}: {sentence}", case.name);
    let accuses =
        sentence.contains("held by") || report.others.as_ref().is_some_and(|others| !others.holders.is_empty());
    match case.says {
        "" if accuses => Err(format!("{}: {ACCUSED}: {sentence}", case.name)),
        says if !sentence.contains(says) => Err(format!("{}: not said: {says}\n{}", case.name, report.to_text())),
        _ => Ok(()),
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let mut cases = pools();
    cases.push(runtime.block_on(bb8_pool()));
    cases.extend(locks());
    cases.extend(caches());
    cases.extend(maps());
    cases.extend(innocent());
    let number = cases.len();
    let wrong: Vec<String> = cases.into_iter().filter_map(|case| run(&runtime, case).err()).collect();
    println!("{} of {number} cases are right", number - wrong.len());
    wrong.iter().for_each(|wrong| println!("\n{wrong}"));
    let accuses = wrong.iter().any(|wrong| wrong.contains(ACCUSED));
    // Threads may be blocked for ever. On a machine that is busy with other things, one may not be named.
    std::process::exit(i32::from(accuses || wrong.len() * 10 > number));
}
