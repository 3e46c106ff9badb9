//! `ProfileLayer`: on real servers and clients, over TCP.

#[path = "../common/mod.rs"]
mod common;

mod jobs;
mod matrix;
mod starts;
mod streams;
mod unchanged;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use heeler::ProfileLayer;
use http::request::Parts;
use reqwest::{Method, RequestBuilder};
use tokio::task::JoinHandle;

use common::{Driven, PATIENCE, until};

/// What a browser accepts.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// What the header `who` of those says who may.
const WHO: &str = "who";

/// Allows `ada` and `bob`, by name, and `root` and `wheel` without one.
fn layer() -> ProfileLayer {
    ProfileLayer::new(|parts: &Parts| {
        let who = parts.headers.get(WHO).and_then(|who| who.to_str().ok());
        match who {
            Some("root" | "wheel") => heeler::authorize::Access::allowed(),
            Some(who @ ("ada" | "bob")) => heeler::authorize::Access::allowed_as(who),
            _ => heeler::authorize::Access::refused(),
        }
    })
}

/// A server on a runtime of its own, and a client's runtime beside it.
struct Server {
    address: SocketAddr,
    /// Its connections end with this.
    _server: Driven,
    client: Driven,
    http: reqwest::Client,
}

impl Server {
    fn start(router: Router) -> Self {
        let server = Driven::new(2);
        let listener = block_on(server.spawn(tokio::net::TcpListener::bind("127.0.0.1:0"))).unwrap();
        let address = listener.local_addr().unwrap();
        server.spawn(async { axum::serve(listener, router).await });
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address, _server: server, client: Driven::new(1), http }
    }

    /// A request of `ada`'s, from a client that is no browser.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_of("ada", method, path)
    }

    fn request_of(&self, who: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address)).header(WHO, who).timeout(PATIENCE)
    }

    /// Sends it and reads all of the answer.
    #[track_caller]
    fn send(&self, request: RequestBuilder) -> Answer {
        block_on(self.client.spawn(async {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.bytes().await.map(|body| body.to_vec());
            Answer { status, headers, body }
        }))
    }

    /// Sends it, and does not wait.
    fn send_later(&self, request: RequestBuilder) -> JoinHandle<reqwest::Result<reqwest::Response>> {
        self.client.spawn(async { request.send().await })
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path))
    }

    /// The same from a browser.
    #[track_caller]
    fn browse(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("accept", BROWSER))
    }

    /// Starts a job as a browser does. Its id.
    #[track_caller]
    fn start_job(&self, path: &str) -> String {
        let answer = self.browse(path);
        assert_eq!(answer.status, 303, "{answer:?}");
        answer.id().to_owned()
    }

    #[track_caller]
    fn status(&self, id: &str) -> serde_json::Value {
        let answer = self.get(&format!("/?__geordi__={id}.status"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until a job is over. Its profile, if there is one.
    #[track_caller]
    fn profile(&self, id: &str) -> serde_json::Value {
        let mut profile = None;
        until("the job is over", || {
            let answer = self.get(&format!("/?__geordi__={id}.json"));
            let over = answer.status != 202;
            profile = Some(answer);
            over
        });
        let answer = profile.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Result<Vec<u8>, reqwest::Error>,
}

impl Answer {
    #[track_caller]
    fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|_| panic!("{} {}", self.status, self.text()))
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// The profile's id.
    #[track_caller]
    fn id(&self) -> &str {
        self.header("x-geordi-id")
    }
}

/// A gate that a handler waits at until the test opens it, and that tells when somebody does.
#[derive(Debug, Clone)]
struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    waiting: AtomicUsize,
    open: tokio::sync::Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self(Arc::new(GateState { waiting: AtomicUsize::new(0), open: tokio::sync::Semaphore::new(0) }))
    }

    /// Goes down when whoever waits passes, or is dropped.
    async fn pass(&self) {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.0.waiting);
        self.0.open.acquire().await.unwrap().forget();
    }

    fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    fn open(&self, times: usize) {
        self.0.open.add_permits(times);
    }

    #[track_caller]
    fn until_waiting(&self, many: usize) {
        until("somebody waits at the gate, or nobody any more", || self.waiting() == many);
    }
}

#[track_caller]
fn block_on<T>(task: JoinHandle<T>) -> T {
    futures::executor::block_on(task).unwrap()
}

/// Counts what calls it.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
