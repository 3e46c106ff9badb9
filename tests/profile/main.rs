//! `ProfileLayer`: on real servers and clients, over TCP.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

#[path = "../common/mod.rs"]
mod common;

mod csrf;
mod jobs;
mod matrix;
mod own_frames;
mod starts;
mod streams;
mod tail;
mod thread;
mod unchanged;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use futures::{StreamExt as _, stream};
use heeler::ProfileLayer;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use reqwest::{Method, RequestBuilder};
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt as _};

use common::{Driven, PATIENCE, ms, until};

/// What a browser accepts.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// What a browser says of an address that somebody has typed.
const TYPED: [(&str, &str); 3] =
    [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

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
    server: Driven,
    client: Driven,
    http: reqwest::Client,
}

impl Server {
    fn start(router: Router) -> Self {
        Self::start_on(2, router)
    }

    /// On so many workers, or with none on a current-thread runtime.
    fn start_on(workers: usize, router: Router) -> Self {
        let server = Driven::new(workers);
        let listener = block_on(server.spawn(tokio::net::TcpListener::bind("127.0.0.1:0"))).unwrap();
        let address = listener.local_addr().unwrap();
        server.spawn(async { axum::serve(listener, router).await });
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address, server, client: Driven::new(1), http }
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        &self.server.handle
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

    /// The same from a browser, as somebody does who types it.
    #[track_caller]
    fn browse(&self, path: &str) -> Answer {
        self.send(typed(self.request(Method::GET, path)))
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

/// From a browser whose user has typed the address.
fn typed(request: RequestBuilder) -> RequestBuilder {
    TYPED.into_iter().fold(request.header("accept", BROWSER), |request, (name, value)| request.header(name, value))
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
        until("the expected number waits at the gate", || self.waiting() == many);
    }
}

/// A body of so many frames, `0;` and on. Each of them waits at the gate before it is made, but for so many.
fn frames(many: usize, at_once: usize, gate: &Gate) -> Body {
    let gate = gate.clone();
    Body::from_stream(stream::iter(0..many).then(move |at| {
        let gate = gate.clone();
        async move {
            if at >= at_once {
                gate.pass().await;
            }
            Ok::<_, Infallible>(format!("{at};"))
        }
    }))
}

/// For services that are asked without a server: anybody may profile.
fn anybody() -> ProfileLayer {
    ProfileLayer::new(|_: &Parts| true)
}

/// Starts a job as a browser does that has credentials and no cookie, without a server. Its id.
async fn start_at<S, B>(service: &S, path: &str) -> String
where
    S: Service<Request<String>, Response = Response<B>, Error = Infallible> + Clone,
{
    let request = Request::get(path).header("accept", BROWSER).header("authorization", "Bearer of it");
    let started = service.clone().oneshot(request.body(String::new()).unwrap()).await.unwrap();
    started.headers()["x-geordi-id"].to_str().unwrap().to_owned()
}

/// Waits until a job is over, without a server. Its profile.
async fn profile_at<S, B>(service: &S, id: &str) -> serde_json::Value
where
    S: Service<Request<String>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let is_over = async {
        loop {
            let request = Request::get(format!("/?__geordi__={id}.json")).body(String::new()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            if status != 202 {
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                return serde_json::from_slice(&body).unwrap();
            }
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_over).await.expect("the job is over")
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
