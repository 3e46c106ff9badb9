//! A network that is slow, and one that is cut: between front end, worker, queue and store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::{PATIENCE, ms};
use crate::engines::{Engine, Server, queue};
use crate::service::{Client, LOST_AFTER, Shared, layer, remote, serve, service, work};
use crate::store::{Meddled, Meddling, When};

/// How long what is sent is on its way.
const DELAY: Duration = ms(50);

/// A part of the network. Nothing passes while it is cut, and nobody is told.
#[derive(Clone, Default)]
struct Link {
    cut: Arc<AtomicBool>,
    /// What a server answers is lost.
    cut_back: Arc<AtomicBool>,
    /// In addition to the delay of every link.
    slower_ms: Arc<AtomicU64>,
}

impl Link {
    fn slow_down(&self, by: Duration) {
        self.slower_ms.store(by.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }

    /// Waits while a direction of it is cut.
    async fn is_whole(&self, back: bool) {
        while self.cut.load(Ordering::Relaxed) || back && self.cut_back.load(Ordering::Relaxed) {
            tokio::time::sleep(ms(10)).await;
        }
    }

    /// Returns an address that leads to that one, over this link.
    async fn to(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let link = self.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let link = link.clone();
                tokio::spawn(async move {
                    link.is_whole(false).await;
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                    tokio::join!(link.carry(near_read, far_write, false), link.carry(far_read, near_write, true));
                });
            }
        });
        address
    }

    async fn carry(&self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, back: bool) {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(DELAY + ms(self.slower_ms.load(Ordering::Relaxed))).await;
            self.is_whole(back).await;
            if to.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Returns the store over this link: slow, and failing while it is cut.
    fn store(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        let link = self.clone();
        Meddled::new(store, move |step| match step.when {
            When::Before if link.cut.load(Ordering::Relaxed) => Meddling::Fail,
            When::Before => Meddling::Wait(DELAY),
            When::After => Meddling::Nothing,
        })
    }
}

/// One front end and one worker, with a link between each of them and each server.
struct Network {
    front_queue: Link,
    front_store: Link,
    worker_queue: Link,
    worker_store: Link,
    client: Client,
    shared: Shared,
    worker: JoinHandle<()>,
    _server: Server,
}

const ENGINES: [Engine; 2] = [Engine::Redis, Engine::Postgres];

async fn network(engine: Engine) -> Option<Network> {
    let server = Server::start(engine)?;
    let shared = Shared::new();
    prepare(&server, &shared).await;
    let (front_queue, front_store, worker_queue, worker_store) =
        (Link::default(), Link::default(), Link::default(), Link::default());
    let (url, address) = (server.url(), server.address());
    let queue =
        async |link: &Link| queue(engine, &url.replace(&address.to_string(), &link.to(address).await.to_string()));
    let front = remote(queue(&front_queue).await, front_store.store(shared.store()));
    let client = Client::new(serve(service(layer().remote(front), shared.clone())).await);
    let of_worker = remote(queue(&worker_queue).await, worker_store.store(shared.store()));
    let worker = work(of_worker.clone(), service(layer().remote(of_worker), shared.clone()));
    Some(Network { front_queue, front_store, worker_queue, worker_store, client, shared, worker, _server: server })
}

/// Has the queue's tables created over a fast network.
async fn prepare(server: &Server, shared: &Shared) {
    let remote = remote(server.queue(), shared.store());
    let router = service(layer().remote(remote.clone()), shared.clone());
    let client = Client::new(serve(router.clone()).await);
    let worker = work(remote, router);
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    worker.abort();
}

/// Guards: over a slow network a profile comes as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_changes_nothing() {
    let Some(network) = network(Engine::Redis).await else { return };
    let profile = network.client.get("/quote?__geordi__=json").await.json();
    assert_eq!(profile["outcome"], "finished");
    network.worker.abort();
}

/// Guards: a queue that takes a second for an answer is waited for. By default its client waits for half a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_takes_a_second_is_waited_for() {
    let Some(network) = network(Engine::Redis).await else { return };
    network.front_queue.slow_down(ms(600));
    network.worker_queue.slow_down(ms(600));
    let id = network.client.browse("/quote?__geordi__").await.id();
    assert_eq!(network.client.end(&id).await, "done");
    network.worker.abort();
}

/// Guards: a front end that is cut off from the queue or the store says so, and goes on when it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_that_is_cut_off_says_so() {
    futures::future::join_all(ENGINES.map(cut_off_the_front_end)).await;
}

async fn cut_off_the_front_end(engine: Engine) {
    let Some(network) = network(engine).await else { return };
    for (link, expected) in [
        (&network.front_queue, "The queue of profiles cannot be reached."),
        (&network.front_store, "The store of profiles cannot list."),
    ] {
        assert_eq!(network.client.get("/quote?__geordi__=json").await.status, 200);
        link.cut();
        let answer = network.client.send("POST", "/pay", &[("x-geordi", "1")], b"").await;
        assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{}", answer.text());
        assert!(answer.text().contains(expected), "{}", answer.text());
        link.mend();
    }
    // The queue may have got what its sender has given up. Nothing has come of it.
    assert_eq!(network.client.get("/quote?__geordi__=json").await.status, 200);
    assert_eq!(network.shared.payments(), 0);
    network.worker.abort();
}

/// Guards: a worker that is cut off from the queue while it runs a request ends it, and takes the next one when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_from_the_queue_goes_on() {
    futures::future::join_all(ENGINES.map(cut_off_the_worker)).await;
}

async fn cut_off_the_worker(engine: Engine) {
    let Some(network) = network(engine).await else { return };
    let id = network.client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    network.client.until_it_runs(&id).await;
    network.worker_queue.cut();
    assert_eq!(network.client.end(&id).await, "done");
    network.worker_queue.mend();
    assert_eq!(network.client.get("/quote?__geordi__=json").await.status, 200);
    assert_eq!(network.shared.payments(), 1);
    network.worker.abort();
}

/// Guards: if only the queue's answer is lost, the front end does not say that nothing runs while a worker has the request. If
/// none has, nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_queue_that_is_lost_decides_nothing() {
    // Redis: nothing comes to Postgres from a client that does not hear its first answers.
    let Some(network) = network(Engine::Redis).await else { return };
    let ask = || network.client.send("POST", "/pay", &[("x-geordi", "1")], b"");
    // The front end is connected.
    assert_eq!(network.client.get("/quote?__geordi__=json").await.status, 200);
    network.front_queue.cut_back.store(true, Ordering::Relaxed);
    let answer = ask().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(network.client.end(&answer.id()).await, "done");
    assert_eq!(network.shared.payments(), 1);
    network.worker_queue.cut();
    let answer = ask().await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    network.front_queue.cut_back.store(false, Ordering::Relaxed);
    network.worker_queue.mend();
    // What comes later runs, so the worker has seen whatever is in the queue.
    assert_eq!(network.client.get("/quote?__geordi__=json").await.status, 200);
    assert_eq!(network.shared.payments(), 1);
    network.worker.abort();
}

/// Guards: a request that has run does not run again, however long the store fails afterwards. The asker is told what became of
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_run_does_not_run_again() {
    let Some(network) = network(Engine::Redis).await else { return };
    let id = network.client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    network.client.until_it_runs(&id).await;
    network.worker_store.cut();
    // It takes four seconds, and its profile is kept for ten.
    tokio::time::sleep(Duration::from_secs(25)).await;
    network.worker_store.mend();
    let began = std::time::Instant::now();
    let requests = || network.shared.objects("requests");
    while !requests().is_empty() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(ms(100)).await;
    }
    assert_eq!(network.client.status(&id).await["phase"]["failed"], "the store of profiles cannot write");
    assert_eq!(network.shared.payments(), 1);
    network.worker.abort();
}

/// Guards: a worker that is cut off from the store for longer than its silence may last brings the profile when it is back, and
/// the request has run once.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_from_the_store_comes_back() {
    let Some(network) = network(Engine::Redis).await else { return };
    let id = network.client.browse("/report?__geordi__").await.id();
    network.client.until_it_runs(&id).await;
    network.worker_store.cut();
    // The report takes four seconds, so it is over before its worker is back.
    tokio::time::sleep(LOST_AFTER + ms(2_500)).await;
    let page = network.client.browse(&format!("/report?__geordi__={id}")).await.text();
    assert!(page.contains("Its worker is gone, waiting for another one"), "{page}");
    network.worker_store.mend();
    let began = std::time::Instant::now();
    while network.client.get(&format!("/quote?__geordi__={id}.json")).await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "{}", network.client.status(&id).await);
        tokio::time::sleep(ms(100)).await;
    }
    network.worker.abort();
}
