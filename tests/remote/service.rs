//! The service that front ends and workers run, and how the tests ask for profiles of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use heeler::ProfileLayer;
use heeler::authorize::Access;
use heeler::profile::ProfileStore;
use heeler::profile::remote::{JobQueue, Remote, Secret, Worker};
use http::request::Parts;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tokio::task::JoinHandle;

use crate::common::{PATIENCE, ms};

/// Base64 of 32 bytes.
pub(crate) const SECRET: &str = "RPwe4GBYbwpE9WnOR6pTvYtrLh8UqyPzoVGGUNZRrFI=";

/// What a worker's silence lasts before it counts as gone.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(3);

/// A folder that all instances share: profiles are in it, and what requests have done.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Folder>);

enum Folder {
    Own(tempfile::TempDir),
    Others(PathBuf),
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Folder::Own(tempfile::tempdir().unwrap())))
    }

    /// That of another process.
    pub(crate) fn at(path: &Path) -> Self {
        Self(Arc::new(Folder::Others(path.to_owned())))
    }

    pub(crate) fn path(&self) -> &Path {
        match &*self.0 {
            Folder::Own(folder) => folder.path(),
            Folder::Others(path) => path,
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new_with_prefix(self.path()).unwrap())
    }

    /// The names of the objects of a kind.
    pub(crate) fn objects(&self, kind: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.path().join("p").join(kind)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names
    }

    fn count_payment(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).create(true).open(self.path().join("payments")).unwrap();
        file.write_all(b"p").unwrap();
    }

    /// How often a payment was made.
    pub(crate) fn payments(&self) -> usize {
        std::fs::read_to_string(self.path().join("payments")).unwrap_or_default().len()
    }
}

pub(crate) fn remote(queue: JobQueue, store: Arc<dyn ObjectStore>) -> Remote {
    let store = ProfileStore::object_store(store, "p");
    Remote::new(queue, store, Secret::from_base64(SECRET).unwrap()).unwrap().lost_after(LOST_AFTER)
}

/// Allows `ada` and `bob`, by name.
pub(crate) fn layer() -> ProfileLayer {
    ProfileLayer::new(|parts: &Parts| {
        let who = parts.headers.get("who").and_then(|who| who.to_str().ok());
        who.filter(|who| matches!(*who, "ada" | "bob")).map_or(Access::refused(), Access::allowed_as)
    })
}

async fn fetch_prices() {
    tokio::time::sleep(ms(150)).await;
}

fn add_up(time: Duration) -> u64 {
    let (began, mut sum) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    sum
}

async fn quote() -> String {
    fetch_prices().await;
    format!("a quote, by process {} ({})", std::process::id(), add_up(ms(60)) > 0)
}

/// Takes long enough to be killed in.
async fn report() -> &'static str {
    tokio::time::sleep(Duration::from_secs(4)).await;
    "the report"
}

async fn forever() {
    std::future::pending().await
}

async fn pay(State(shared): State<Shared>, body: Bytes) -> String {
    shared.count_payment();
    tokio::time::sleep(Duration::from_secs(4)).await;
    format!("paid {} bytes", body.len())
}

/// Counts like a payment, and takes no time.
async fn visit(State(shared): State<Shared>) -> &'static str {
    shared.count_payment();
    "a visit"
}

async fn echo(body: Bytes) -> Bytes {
    body
}

pub(crate) fn service(layer: ProfileLayer, shared: Shared) -> Router {
    let routes = Router::new().route("/quote", get(quote)).route("/report", get(report)).route("/pay", post(pay));
    routes
        .route("/visit", get(visit))
        .route("/forever", get(forever))
        .route("/echo", post(echo))
        .with_state(shared)
        .layer(layer)
}

/// Serves it.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    serve_at("127.0.0.1", router).await
}

pub(crate) async fn serve_at(address: &str, router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Works for others, until it is aborted.
pub(crate) fn work(remote: Remote, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move { Worker::new(remote).serve(router).await.unwrap() })
}

/// Somebody who asks.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) address: SocketAddr,
    pub(crate) who: &'static str,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    #[track_caller]
    pub(crate) fn id(&self) -> String {
        let id = self.headers.get("x-geordi-id").unwrap_or_else(|| panic!("{} {}", self.status, self.text()));
        id.to_str().unwrap().to_owned()
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::of("ada", address)
    }

    pub(crate) fn of(who: &'static str, address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().unwrap(), address, who }
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> reqwest::Result<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("http://{}{path}", self.address)).header("who", self.who);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body.to_vec()).timeout(2 * PATIENCE).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// As somebody does who types it into a browser.
    pub(crate) async fn browse(&self, path: &str) -> Answer {
        let typed = [
            ("accept", "text/html"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        self.send("GET", path, &typed, b"").await
    }

    pub(crate) async fn status(&self, id: &str) -> serde_json::Value {
        let answer = self.get(&format!("/quote?__geordi__={id}.status")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until a job is in such a phase, and returns it.
    pub(crate) async fn until(&self, id: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let phase = self.status(id).await["phase"].clone();
            if is_it(&phase) {
                return phase;
            }
            assert!(began.elapsed() < 2 * PATIENCE, "{phase}");
            tokio::time::sleep(ms(50)).await;
        }
    }

    pub(crate) async fn until_it_runs(&self, id: &str) {
        self.until(id, |phase| phase == "running").await;
    }

    /// Waits until a job is over: the last phase.
    pub(crate) async fn end(&self, id: &str) -> serde_json::Value {
        let began = Instant::now();
        loop {
            let answer = self.get(&format!("/quote?__geordi__={id}.status")).await;
            if answer.status == 200 {
                let phase = answer.json()["phase"].clone();
                let goes_on = phase == "running" || phase.get("queued").is_some() || phase.get("sent").is_some();
                if !goes_on {
                    return phase;
                }
            }
            assert!(began.elapsed() < 2 * PATIENCE, "it does not end: {} {}", answer.status, answer.text());
            tokio::time::sleep(ms(100)).await;
        }
    }

    pub(crate) async fn profile(&self, id: &str) -> serde_json::Value {
        let answer = self.get(&format!("/quote?__geordi__={id}.json")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}
