//! Pools that a profiled request has opened or used: ordinary requests get what they need of them while a profiled one
//! blocks its thread.
#![cfg(feature = "profile")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use heeler::ProfileLayer;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer as _, ServiceExt as _, service_fn};

use common::{Driven, PATIENCE, alone, until};

/// Ordinary requests that are timed.
const MANY: usize = 100;
/// What a loaded machine may add. A request that waits for the profiled one waits for as long as the test has patience.
const SLACK: Duration = Duration::from_secs(2);

/// Answers each request on each of its connections.
async fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            });
        }
    });
    address
}

async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    address
}

/// A pool that the first request opens which needs it, of one connection where that can be said.
#[derive(Clone)]
enum Pool {
    Reqwest(SocketAddr, Arc<OnceCell<reqwest::Client>>),
    Sqlx(Arc<OnceCell<SqlitePool>>),
    Tonic(SocketAddr, Arc<OnceCell<Channel>>),
}

impl Pool {
    async fn make_use(&self) {
        match self {
            Self::Reqwest(address, client) => {
                let open = async || reqwest::Client::builder().no_proxy().build().unwrap();
                let response = client.get_or_init(open).await.get(format!("http://{address}/")).send().await.unwrap();
                assert_eq!(response.text().await.unwrap(), "ok");
            }
            Self::Sqlx(pool) => {
                let open = async || {
                    let options = SqlitePoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
                    options.connect("sqlite::memory:").await.unwrap()
                };
                let number: i64 = sqlx::query_scalar("SELECT 7").fetch_one(pool.get_or_init(open).await).await.unwrap();
                assert_eq!(number, 7);
            }
            Self::Tonic(address, channel) => {
                let open = async || Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
                let mut client = HealthClient::new(channel.get_or_init(open).await.clone());
                client.check(HealthCheckRequest::default()).await.unwrap();
            }
        }
    }
}

/// Where a thread blocks until it is opened.
#[derive(Default)]
struct Wall {
    reached: AtomicBool,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Wall {
    fn block(&self) {
        self.reached.store(true, Ordering::SeqCst);
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |open| !*open).unwrap());
    }
}

/// Opens it, also where the test fails: the other tests of the process have their turns.
struct Open(Arc<Wall>);

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.is_open.lock().unwrap() = true;
        self.0.opened.notify_all();
    }
}

fn wait<T>(task: JoinHandle<T>) -> T {
    futures::executor::block_on(task).unwrap()
}

/// The worst of many ordinary requests beside a profiled one that blocks; beside none, if `blocks` is none.
fn measure(workers: usize, pool: &Pool, blocks: Option<&'static str>) -> Duration {
    let wall = Arc::new(Wall::default());
    let open = Open(Arc::clone(&wall));
    let service = {
        let (pool, wall) = (pool.clone(), Arc::clone(&wall));
        service_fn(move |request: Request<Full<Bytes>>| {
            let (pool, wall) = (pool.clone(), Arc::clone(&wall));
            async move {
                // What it has just used is not idle when it blocks; what an earlier one has opened is.
                if request.uri().path() != "/blocks/at-once" {
                    pool.make_use().await;
                }
                match request.uri().path() {
                    "/blocks" | "/blocks/at-once" => wall.block(),
                    "/blocks/in-place" => tokio::task::block_in_place(|| wall.block()),
                    _ => {}
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("well")))
            }
        })
    };
    let service = ProfileLayer::new(|_: &http::request::Parts| true).layer(service);
    let get = move |uri: String| {
        let service = service.clone();
        async move {
            let began = Instant::now();
            let response = service.oneshot(Request::get(uri).body(Full::default()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (began.elapsed(), String::from_utf8_lossy(&body).into_owned())
        }
    };
    let worst = || {
        let get = get.clone();
        async move {
            let mut worst = Duration::ZERO;
            for _ in 0..MANY {
                worst = worst.max(get("/".to_owned()).await.0);
            }
            worst
        }
    };
    let application = Driven::new(workers);
    // The profiled request opens the pool.
    let (_, profile) = wait(application.spawn(get("/?__geordi__=json".to_owned())));
    assert!(profile.contains("\"finished\""), "{profile}");
    let Some(blocks) = blocks else { return wait(application.spawn(worst())) };
    // No ordinary request before: the pool has what the profiled one has opened, and nothing else.
    let blocked = application.spawn(get(format!("{blocks}?__geordi__=json")));
    until("the profiled request blocks", || wall.reached.load(Ordering::SeqCst));
    let requests = worst();
    let beside = wait(application.spawn(async { tokio::time::timeout(PATIENCE, requests).await }));
    drop(open);
    let (_, profile) = wait(blocked);
    assert!(profile.contains("\"finished\""), "{profile}");
    beside.expect("ordinary requests do not wait for the profiled one")
}

#[track_caller]
fn is_left_alone(name: &str, pool: impl Fn() -> Pool) {
    let _alone = alone();
    for workers in [2, 0] {
        for blocks in ["/blocks", "/blocks/at-once", "/blocks/in-place"] {
            let (control, beside) = (measure(workers, &pool(), None), measure(workers, &pool(), Some(blocks)));
            println!("{name}, {workers} workers, {blocks}: the worst of {MANY} took {beside:.1?}, alone {control:.1?}");
            assert!(
                beside <= control.mul_f64(1.2) + SLACK,
                "{name}, {workers} workers, {blocks}: {beside:?}, {control:?}"
            );
        }
    }
}

/// Guards: an idle connection that a profiled request opened is driven by the application's runtime.
#[test]
fn a_reqwest_connection_stays_with_the_application() {
    let backend = Driven::new(1);
    let address = wait(backend.spawn(http_server()));
    is_left_alone("reqwest", || Pool::Reqwest(address, Arc::default()));
}

/// Guards: a connection that a profiled request returns by a task that it spawns gets back to the pool.
#[test]
fn a_sqlx_connection_comes_back_to_the_pool() {
    is_left_alone("sqlx", || Pool::Sqlx(Arc::default()));
}

/// Guards: the same as with reqwest, and the same for the task that passes requests to the connection.
#[test]
fn a_tonic_connection_stays_with_the_application() {
    let backend = Driven::new(1);
    let address = wait(backend.spawn(grpc_server()));
    is_left_alone("tonic", || Pool::Tonic(address, Arc::default()));
}
