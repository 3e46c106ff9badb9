//! True waits in other people's libraries, each in a job of its own: what a report says that it waits for.
//!
//! A library that renames a function makes its line of `src/report/assemble/phrases.txt` useless. This finds it.

mod collected;

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use heeler::report::Verdict;
use heeler::{Report, Reports};
use http_body_util::{BodyExt as _, Empty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Service as _, ServiceExt as _};

use collected::Collected;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is said in the sentence, and the work that waits for it.
type Case = (&'static str, &'static str, Work);

const THRESHOLD: Duration = Duration::from_millis(500);
/// The first report of a debug build reads hundreds of megabytes of debug information.
const PATIENCE: Duration = Duration::from_secs(240);
/// Updates come at 2, 4 and 8 times the threshold.
const QUIET: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(3_600);

const CONNECTION: &str = "a connection to be made";
const POOL: &str = "a connection of the pool";
const RESPONSE: &str = "a response (nothing of it has arrived)";
const QUERY: &str = "the result of a query";
const MESSAGE: &str = "the next message (the queue is empty)";
const ROOM: &str = "room in a channel (its queue is full)";
const COMPUTED: &str = "a value that somebody else computes";

/// A case whose work is the block.
macro_rules! waits {
    ($name:literal, $for:expr, $work:block) => {
        ($name, $for, Box::pin(async move { $work }) as Work)
    };
}

/// Accepts connections, reads, and answers each with `answer`, then with nothing more.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 4_096];
                let _ = stream.read(&mut bytes);
                let _ = stream.write_all(answer);
                while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

/// A listener whose queue is full, so that the next connection is never made.
fn deaf() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        std::mem::forget(listener);
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            std::mem::forget(stream);
        }
        address
    })
}

/// "Authenticated", "ready for a query".
const POSTGRES: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

fn tokio_cases() -> Vec<Case> {
    let lock = Arc::new(tokio::sync::Mutex::new(()));
    std::mem::forget(lock.clone().try_lock_owned());
    let (read, write) = (Arc::new(tokio::sync::RwLock::new(())), Arc::new(tokio::sync::RwLock::new(())));
    std::mem::forget(read.clone().try_write_owned());
    std::mem::forget(write.clone().try_read_owned());
    let none = Arc::new(tokio::sync::Semaphore::new(0));
    let busy = Arc::new(tokio::sync::OnceCell::<u8>::new());
    let other = busy.clone();
    vec![
        waits!("mutex", "a lock", { drop(lock.lock().await) }),
        waits!("rwlock, read", "a lock", { drop(read.read().await) }),
        waits!("rwlock, write", "a lock", { drop(write.write().await) }),
        waits!("semaphore", "a permit", { drop(none.acquire().await) }),
        waits!("once cell", COMPUTED, {
            tokio::spawn(async move { other.get_or_init(std::future::pending).await.to_owned() });
            tokio::time::sleep(Duration::from_millis(50)).await;
            busy.get_or_init(async || 1).await;
        }),
        waits!("mpsc, empty", MESSAGE, {
            let (_sender, mut receiver) = tokio::sync::mpsc::channel::<u8>(1);
            receiver.recv().await;
        }),
        waits!("unbounded mpsc, empty", MESSAGE, {
            let (_sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<u8>();
            receiver.recv().await;
        }),
        waits!("mpsc, full", ROOM, {
            let (sender, _receiver) = tokio::sync::mpsc::channel::<u8>(1);
            sender.send(1).await.unwrap();
            let _ = sender.send(2).await;
        }),
        waits!("mpsc, no permit", ROOM, {
            let (sender, _receiver) = tokio::sync::mpsc::channel::<u8>(1);
            sender.send(1).await.unwrap();
            let _ = sender.reserve().await;
        }),
        waits!("broadcast", MESSAGE, {
            let (_sender, mut receiver) = tokio::sync::broadcast::channel::<u8>(1);
            let _ = receiver.recv().await;
        }),
        waits!("oneshot", "a message through a oneshot channel", {
            let (_sender, receiver) = tokio::sync::oneshot::channel::<u8>();
            let _ = receiver.await;
        }),
        waits!("watch", "a change of a watched value", {
            let (_sender, mut receiver) = tokio::sync::watch::channel(1);
            let _ = receiver.changed().await;
        }),
        waits!("notify", "a notification", { tokio::sync::Notify::new().notified().await }),
        waits!("barrier", "the others at a barrier", { drop(tokio::sync::Barrier::new(2).wait().await) }),
        waits!("sleep", "a timer", { tokio::time::sleep(FOREVER).await }),
        waits!("interval", "a timer", {
            let mut interval = tokio::time::interval(FOREVER);
            interval.tick().await;
            interval.tick().await;
        }),
        waits!("a lock, with a limit", "a notification", {
            let _ = tokio::time::timeout(FOREVER, tokio::sync::Notify::new().notified()).await;
        }),
        waits!("join handle", "another task", { drop(tokio::spawn(tokio::time::sleep(FOREVER)).await) }),
        waits!("heeler's spawn", "a notification", {
            let _ = heeler::spawn(async { tokio::sync::Notify::new().notified().await }).await;
        }),
        waits!("join set", "another task", {
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(tokio::time::sleep(FOREVER));
            tasks.join_next().await;
        }),
        waits!("child process", "the end of a child process", {
            let mut sleep = tokio::process::Command::new("sleep").arg("3600").kill_on_drop(true).spawn().unwrap();
            let _ = sleep.wait().await;
        }),
        waits!("output of a child process", "output of a child process", {
            let mut sleep = tokio::process::Command::new("sleep");
            let mut sleep = sleep.arg("3600").stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
            let _ = sleep.stdout.as_mut().unwrap().read_u8().await;
        }),
        waits!("accept", "a client to connect", {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _ = listener.accept().await;
        }),
        waits!("connect", CONNECTION, { drop(tokio::net::TcpStream::connect(deaf()).await) }),
        waits!("read", "a socket to become readable", {
            let mut stream = tokio::net::TcpStream::connect(server(b"")).await.unwrap();
            let _ = stream.read_u8().await;
        }),
        waits!("write", "a socket to become writable", {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let _ = stream.write_all(&vec![0; 64 << 20]).await;
        }),
        waits!("duplex", "a pipe", { drop(tokio::io::duplex(1).0.read_u8().await) }),
        waits!("cancellation", "a cancellation", { tokio_util::sync::CancellationToken::new().cancelled().await }),
    ]
}

/// In a runtime whose blocking threads are all busy.
fn blocking_cases() -> Vec<Case> {
    vec![
        waits!("file", "a file operation", { drop(tokio::fs::read("/etc/hostname").await) }),
        waits!("lookup", "a name to be resolved", { drop(tokio::net::lookup_host("heeler.example:80").await) }),
        waits!("connect by name", "a name to be resolved", {
            let _ = tokio::net::TcpStream::connect("heeler.example:80").await;
        }),
        waits!("hyper-util, by name", "a name to be resolved", {
            let _ = client().get("http://heeler.example/".parse().unwrap()).await;
        }),
        waits!("reqwest, by name", "a name to be resolved", { drop(reqwest::get("http://heeler.example/").await) }),
        waits!("spawn_blocking", "another task", { drop(tokio::task::spawn_blocking(|| ()).await) }),
    ]
}

fn client()
-> hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Empty<&'static [u8]>> {
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http()
}

fn http_cases() -> Vec<Case> {
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    vec![
        waits!("hyper-util, connecting", CONNECTION, {
            let _ = client().get(format!("http://{}/", deaf()).parse().unwrap()).await;
        }),
        waits!("hyper-util, response", RESPONSE, {
            let _ = client().get(format!("http://{}/", server(b"")).parse().unwrap()).await;
        }),
        waits!("hyper-util, body", "more of a body", {
            let response = client().get(format!("http://{}/", server(HALF)).parse().unwrap()).await.unwrap();
            let _ = response.into_body().collect().await;
        }),
        waits!("hyper, response", RESPONSE, {
            let stream = tokio::net::TcpStream::connect(server(b"")).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            let _ = sender.send_request(hyper::Request::new(Empty::<&[u8]>::new())).await;
        }),
        waits!("hyper, another request", "the connection to be free for another request", {
            let stream = tokio::net::TcpStream::connect(server(b"")).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            let mut first = Box::pin(sender.send_request(hyper::Request::new(Empty::<&[u8]>::new())));
            let _ = tokio::time::timeout(Duration::from_millis(50), &mut first).await;
            let _ = sender.ready().await;
            drop(first);
        }),
        waits!("reqwest, connecting", CONNECTION, { drop(reqwest::get(format!("http://{}/", deaf())).await) }),
        waits!("reqwest, response", RESPONSE, { drop(reqwest::get(format!("http://{}/", server(b""))).await) }),
        waits!("reqwest, body", "the rest of a response", {
            let response = reqwest::get(format!("http://{}/", server(HALF))).await.unwrap();
            let _ = response.bytes().await;
        }),
        waits!("reqwest, chunk", "the rest of a response", {
            let mut response = reqwest::get(format!("http://{}/", server(HALF))).await.unwrap();
            response.chunk().await.unwrap();
            let _ = response.chunk().await;
        }),
        waits!("h2, response", RESPONSE, {
            let (mut sender, _server) = h2_connection().await;
            let (response, _) = sender.send_request(hyper::Request::new(()), true).unwrap();
            let _ = response.await;
        }),
        waits!("h2, window", "room in the HTTP/2 window", {
            let (mut sender, _server) = h2_connection().await;
            let (_response, mut body) = sender.send_request(hyper::Request::new(()), false).unwrap();
            let mut sent = 0;
            while sent < 1 << 20 {
                body.reserve_capacity(1 << 20);
                let room = futures::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                body.send_data(vec![0; room].into(), false).unwrap();
                sent += room;
            }
        }),
        waits!("tls", "a TLS handshake", {
            let stream = tokio::net::TcpStream::connect(server(b"")).await.unwrap();
            let config = tokio_rustls::rustls::ClientConfig::builder()
                .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
                .with_no_client_auth();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let _ = connector.connect("localhost".try_into().unwrap(), stream).await;
        }),
        waits!("concurrency limit", "a free slot of a concurrency limit", {
            let mut limited = tower::limit::ConcurrencyLimit::new(service(), 1);
            let first = limited.ready().await.unwrap().call(1);
            let _ = limited.ready().await;
            drop(first);
        }),
        waits!("rate limit", "the next period of a rate limit", {
            let mut limited = tower::limit::RateLimit::new(service(), tower::limit::rate::Rate::new(1, FOREVER));
            drop(limited.ready().await.unwrap().call(1));
            let _ = limited.ready().await;
        }),
        waits!("buffer, full", "room in the buffer of a service", {
            let buffered = tower::buffer::Buffer::new(Stuck, 1);
            let mut calls = Vec::new();
            while calls.len() < 10 {
                let mut another = buffered.clone();
                calls.push(another.ready().await.unwrap().call(1));
            }
        }),
        waits!("buffer, answer", "the answer of a buffered service", {
            let _ = tower::buffer::Buffer::new(Stuck, 1).oneshot(1).await;
        }),
    ]
}

/// Answers after a long time.
fn service() -> tower::util::BoxService<u8, (), std::convert::Infallible> {
    tower::util::BoxService::new(tower::service_fn(async |_| {
        tokio::time::sleep(FOREVER).await;
        Ok(())
    }))
}

/// Is never ready.
struct Stuck;

impl tower::Service<u8> for Stuck {
    type Response = ();
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<(), Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Pending
    }

    fn call(&mut self, _: u8) -> Self::Future {
        std::future::pending()
    }
}

async fn h2_connection() -> (h2::client::SendRequest<hyper::body::Bytes>, tokio::task::JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        let mut kept = Vec::new();
        while let Some(request) = connection.accept().await {
            kept.push(request);
        }
    });
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    (sender.ready().await.unwrap(), server)
}

/// Makes nothing, or makes it never.
struct Manager {
    makes: bool,
}

impl Manager {
    async fn make(&self) -> Result<(), std::io::Error> {
        if self.makes { Ok(()) } else { connects_to(deaf()).boxed().await }
    }
}

fn connects_to(address: SocketAddr) -> impl Future<Output = Result<(), std::io::Error>> {
    tokio::net::TcpStream::connect(address).map(|made| made.map(drop))
}

impl deadpool::managed::Manager for Manager {
    type Type = ();
    type Error = std::io::Error;

    fn create(&self) -> impl Future<Output = Result<(), std::io::Error>> + Send {
        self.make()
    }

    async fn recycle(
        &self,
        _: &mut (),
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<std::io::Error> {
        Ok(())
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = ();
    type Error = std::io::Error;

    async fn connect(&self) -> Result<(), std::io::Error> {
        self.make().await
    }

    async fn is_valid(&self, _: &mut ()) -> Result<(), std::io::Error> {
        Ok(())
    }

    fn has_broken(&self, _: &mut ()) -> bool {
        false
    }
}

fn postgres(address: SocketAddr, connections: u32) -> sqlx::PgPool {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass();
    let options =
        options.host("127.0.0.1").port(address.port()).username("me").ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(connections).acquire_timeout(FOREVER);
    pool.connect_lazy_with(options)
}

fn database_cases() -> Vec<Case> {
    let options = || format!("host=127.0.0.1 user=me port={}", server(POSTGRES).port());
    let (silent, options) = (format!("host=127.0.0.1 user=me port={}", server(b"").port()), options());
    vec![
        waits!("sqlx, pool", POOL, {
            let pool = postgres(server(POSTGRES), 1);
            let _connection = pool.acquire().await.unwrap();
            let _ = sqlx::query("SELECT 1").fetch_one(&pool).await;
        }),
        waits!("sqlx, connecting", CONNECTION, {
            let _ = sqlx::query("SELECT 1").fetch_one(&postgres(deaf(), 1)).await;
        }),
        waits!("sqlx, logging in", CONNECTION, {
            let _ = postgres(server(b""), 1).acquire().await;
        }),
        waits!("sqlx, query", QUERY, {
            let _ = sqlx::query("SELECT 1").fetch_one(&postgres(server(POSTGRES), 1)).await;
        }),
        waits!("tokio-postgres, logging in", CONNECTION, {
            let _ = tokio_postgres::connect(&silent, tokio_postgres::NoTls).await;
        }),
        waits!("tokio-postgres, query", QUERY, {
            let (client, connection) = tokio_postgres::connect(&options, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let _ = client.query("SELECT 1", &[]).await;
        }),
        waits!("redis, connecting", CONNECTION, {
            let client = redis::Client::open(format!("redis://{}/", deaf())).unwrap();
            let config = redis::AsyncConnectionConfig::new().set_connection_timeout(Some(FOREVER));
            let _ = client.get_multiplexed_async_connection_with_config(&config).await;
        }),
        waits!("redis, reply", "a reply of Redis", {
            let client = redis::Client::open(format!("redis://{}/", server(b"+OK\r\n+OK\r\n"))).unwrap();
            let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(FOREVER));
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
            let _: Result<u8, _> = redis::cmd("GET").arg("key").query_async(&mut connection).await;
        }),
        waits!("deadpool, pool", POOL, {
            let pool: deadpool::managed::Pool<Manager> =
                deadpool::managed::Pool::builder(Manager { makes: true }).max_size(1).build().unwrap();
            let _first = pool.get().await.unwrap();
            let _ = pool.get().await;
        }),
        waits!("unmanaged deadpool", POOL, {
            let _ = deadpool::unmanaged::Pool::<u8>::new(1).get().await;
        }),
        waits!("deadpool, connecting", CONNECTION, {
            let manager = Manager { makes: false };
            let pool: deadpool::managed::Pool<Manager> = deadpool::managed::Pool::builder(manager).build().unwrap();
            let _ = pool.get().await;
        }),
        waits!("bb8, pool", POOL, {
            let pool = bb8::Pool::builder().max_size(1).build_unchecked(Manager { makes: true });
            let _first = pool.get().await.unwrap();
            let _ = pool.get().await;
        }),
    ]
}

fn other_cases() -> Vec<Case> {
    let lock = Arc::new(async_lock::Mutex::new(()));
    std::mem::forget(lock.try_lock_arc());
    let cell = Arc::new(async_lock::RwLock::new(()));
    std::mem::forget(cell.try_write_arc());
    let futures_lock = Arc::new(futures::lock::Mutex::new(()));
    std::mem::forget(futures_lock.try_lock_owned());
    let cache = moka::future::Cache::new(10);
    let other = cache.clone();
    let shared = async { tokio::time::sleep(FOREVER).await }.shared();
    let driver = shared.clone();
    vec![
        waits!("async-lock, mutex", "a lock", { drop(lock.lock().await) }),
        waits!("async-lock, rwlock", "a lock", { drop(cell.read().await) }),
        waits!("async-lock, semaphore", "a permit", { drop(async_lock::Semaphore::new(0).acquire().await) }),
        waits!("async-lock, barrier", "the others at a barrier", { drop(async_lock::Barrier::new(2).wait().await) }),
        waits!("futures, mutex", "a lock", { drop(futures_lock.lock().await) }),
        waits!("futures, oneshot", "a message through a oneshot channel", {
            let (_sender, receiver) = futures::channel::oneshot::channel::<u8>();
            let _ = receiver.await;
        }),
        waits!("futures, mpsc, empty", MESSAGE, {
            let (_sender, mut receiver) = futures::channel::mpsc::channel::<u8>(1);
            receiver.next().await;
        }),
        waits!("futures, mpsc, full", ROOM, {
            let (mut sender, _receiver) = futures::channel::mpsc::channel::<u8>(0);
            sender.send(1).await.unwrap();
            let _ = sender.send(2).await;
        }),
        waits!("futures, shared", "the result of a shared future", {
            tokio::spawn(driver);
            tokio::time::sleep(Duration::from_millis(50)).await;
            shared.await;
        }),
        waits!("futures, unordered", "one of several futures", {
            let mut all: futures::stream::FuturesUnordered<_> = (0..3).map(|_| tokio::time::sleep(FOREVER)).collect();
            all.next().await;
        }),
        waits!("async-channel, empty", MESSAGE, {
            let (_sender, receiver) = async_channel::bounded::<u8>(1);
            let _ = receiver.recv().await;
        }),
        waits!("async-channel, full", ROOM, {
            let (sender, _receiver) = async_channel::bounded::<u8>(1);
            sender.send(1).await.unwrap();
            let _ = sender.send(2).await;
        }),
        waits!("flume, empty", MESSAGE, {
            let (_sender, receiver) = flume::bounded::<u8>(1);
            let _ = receiver.recv_async().await;
        }),
        waits!("flume, full", ROOM, {
            let (sender, _receiver) = flume::bounded::<u8>(1);
            sender.send_async(1).await.unwrap();
            let _ = sender.send_async(2).await;
        }),
        waits!("kanal, empty", MESSAGE, {
            let (_sender, receiver) = kanal::bounded_async::<u8>(1);
            let _ = receiver.recv().await;
        }),
        waits!("moka", "a cache entry that somebody else computes", {
            tokio::spawn(async move { other.get_with(1, std::future::pending::<u8>()).await });
            tokio::time::sleep(Duration::from_millis(50)).await;
            cache.get_with(1, async { 2 }).await;
        }),
    ]
}

fn run(runtime: &tokio::runtime::Runtime, cases: Vec<Case>, reports: &Reports) -> Vec<(&'static str, &'static str)> {
    let expected = cases.iter().map(|case| (case.0, case.1)).collect();
    let _entered = runtime.enter();
    for (name, _, work) in cases {
        tokio::spawn(heeler::watch(name, THRESHOLD, work).reports(reports.clone()));
    }
    expected
}

fn check(expected: &[(&'static str, &'static str)], reports: &Receiver<Report>) -> Vec<String> {
    let (start, mut left, mut wrong) = (Instant::now(), expected.to_vec(), HashMap::new());
    while !left.is_empty() {
        let patience = PATIENCE.saturating_sub(start.elapsed()).min(QUIET);
        let Ok(report) = reports.recv_timeout(patience) else { break };
        let Some(at) = left.iter().position(|(name, _)| report.job.as_deref() == Some(name)) else { continue };
        let (name, awaited) = left[at];
        let sentence = report.sentence();
        let says = sentence.contains(&format!(" is waiting for {awaited}: "));
        let file = report.location.as_ref().and_then(|place| place.file.as_deref());
        let is_here = file.is_some_and(|file| file.ends_with("waits.rs"));
        if report.verdict == Verdict::Waiting && report.awaiting.as_deref() == Some(awaited) && says && is_here {
            println!("{sentence}");
            left.swap_remove(at);
        } else {
            // A slow machine may not have come to the wait yet. The next update says more.
            let frames = report.stacks.iter().flat_map(|stack| &stack.frames);
            let frames: Vec<String> = frames.map(|frame| format!("    {:?}", frame.function)).collect();
            wrong.insert(name, format!("{sentence}\n{}", frames.join("\n")));
        }
    }
    let no_report = || "no report".to_owned();
    let mut told = |(name, awaited): (&str, &str)| {
        format!("{name}: not \"{awaited}\"\n{}", wrong.remove(name).unwrap_or_else(no_report))
    };
    left.into_iter().map(&mut told).collect()
}

fn main() {
    let (sender, received) = channel();
    let sink = Collected::sending_to(sender);
    let reports = Reports::builder().without_log().repeat_after(Duration::ZERO).sink(sink).build().unwrap();
    let runtime = |blocking| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(blocking).enable_all().build().unwrap()
    };
    let (free, busy) = (runtime(16), runtime(1));
    busy.spawn_blocking(|| std::thread::park_timeout(FOREVER));
    let mut expected = Vec::new();
    {
        let _entered = free.enter();
        for cases in [tokio_cases(), http_cases(), database_cases(), other_cases()] {
            expected.extend(run(&free, cases, &reports));
        }
    }
    expected.extend(run(&busy, blocking_cases(), &reports));
    let wrong = check(&expected, &received);
    for wrong in &wrong {
        println!("\n{wrong}");
    }
    println!("{} of {} waits are said as they are", expected.len() - wrong.len(), expected.len());
    // The runtimes would wait for what never ends.
    // One or two of these waits may be somewhere else at the very moment, on a machine that is busy with other things.
    std::process::exit(i32::from(wrong.len() * 20 > expected.len()));
}
