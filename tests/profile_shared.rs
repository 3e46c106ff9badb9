//! Two processes with one store in a directory: each answers for the other.
#![cfg(feature = "profile")]
#![cfg(feature = "object-store")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use heeler::ProfileLayer;
use heeler::authorize::Access;
use heeler::profile::ProfileStore;
use http::request::Parts;
use object_store::local::LocalFileSystem;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use common::{PATIENCE, runtime, until};

/// Says to a process of this program that it is an instance, and which directory it shares.
const SHARED: &str = "HEELER_TEST_SHARED";

/// What an instance's address is written after.
const LISTENING: &str = "listening on ";

/// Goes down when whoever waits passes, or is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn wait_for_somebody(gate: &Semaphore) {
    gate.acquire().await.unwrap().forget();
}

/// Serves until its standard input ends.
fn instance(directory: &Path) {
    let store = ProfileStore::object_store(Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap()), "profiles");
    let layer = ProfileLayer::new(|parts: &Parts| match parts.headers.get("who").and_then(|who| who.to_str().ok()) {
        Some(who) => Access::allowed_as(who),
        None => Access::refused(),
    });
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let albums = {
        let (gate, waiting) = (Arc::clone(&gate), Arc::clone(&waiting));
        async move || {
            waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(waiting);
            wait_for_somebody(&gate).await;
            "three albums"
        }
    };
    let router = Router::new()
        .route("/albums", get(albums))
        .route("/waiting", get(async move || waiting.load(Ordering::SeqCst).to_string()))
        .route("/open", get(async move || gate.add_permits(1)))
        .layer(layer.store(store));
    let runtime = runtime(2);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    println!("\n{LISTENING}{}", listener.local_addr().unwrap());
    runtime.spawn(async { axum::serve(listener, router).await });
    let _ = std::io::stdin().read(&mut [0]);
    runtime.shutdown_background();
}

/// An instance in a process of its own, which ends with this.
struct Instance<'a> {
    process: Child,
    address: String,
    client: &'a Client,
}

struct Client {
    runtime: Runtime,
    http: reqwest::Client,
}

/// Status, headers and body.
type Answer = (u16, http::HeaderMap, String);

impl<'a> Instance<'a> {
    fn start(directory: &Path, test: &str, client: &'a Client) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(SHARED, directory);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix(LISTENING).map(str::to_owned));
        Self { process, address: address.expect("it tells its address"), client }
    }

    /// Asked by `who`; by a browser, if that is said.
    #[track_caller]
    fn ask(&self, who: &str, method: http::Method, path: &str, browser: bool) -> Answer {
        let request = self.client.http.request(method, format!("http://{}{path}", self.address)).header("who", who);
        let typed = [
            ("accept", "text/html,*/*;q=0.8"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        let headers = if browser { &typed[..] } else { &[] };
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.client.runtime.block_on(async {
            let response = request.timeout(PATIENCE).send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            (status, headers, response.text().await.unwrap())
        })
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.ask("ada", http::Method::GET, path, false)
    }

    #[track_caller]
    fn page(&self, path: &str) -> Answer {
        self.ask("ada", http::Method::GET, path, true)
    }

    #[track_caller]
    fn waiting(&self) -> String {
        self.get("/waiting").2
    }

    /// Starts a profile as a browser does, and waits until its handler waits. Its id.
    #[track_caller]
    fn start_job(&self) -> String {
        let (status, headers, text) = self.page("/albums?__geordi__");
        assert_eq!(status, 303, "{text}");
        until("its handler waits", || self.waiting() == "1");
        headers["x-geordi-id"].to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn status(&self, id: &str) -> Value {
        let (status, _, text) = self.get(&format!("/?__geordi__={id}.status"));
        if status == 200 { serde_json::from_str(&text).unwrap() } else { Value::Null }
    }

    /// Waits until a job is over. Its profile.
    #[track_caller]
    fn profile(&self, id: &str) -> Value {
        let mut answer = (202, http::HeaderMap::new(), String::new());
        until("the job is over", || {
            answer = self.get(&format!("/?__geordi__={id}.json"));
            answer.0 != 202
        });
        assert_eq!(answer.0, 200, "{}", answer.2);
        serde_json::from_str(&answer.2).unwrap()
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Guards: a poll and a cancellation that reach the other instance are answered as by the one that runs the job. A finished
/// job outlives its process, and an unfinished one is reported as lost.
#[test]
fn each_instance_answers_for_the_other() {
    const TEST: &str = "each_instance_answers_for_the_other";
    if let Some(directory) = std::env::var_os(SHARED) {
        return instance(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let client = Client { runtime: runtime(1), http };
    let start = || Instance::start(directory.path(), TEST, &client);
    let (one, other) = (start(), start());

    // A poll.
    let id = one.start_job();
    until("the other instance knows where it is", || {
        let status = other.status(&id);
        let is_there = status["place"].as_str().is_some_and(|place| place.contains("wait_for_somebody"));
        status["phase"] == "running" && (is_there || common::PORTABLE)
    });
    let elapsed = |status: &Value| status["elapsed_ms"].as_u64().unwrap();
    let first = elapsed(&other.status(&id));
    until("time goes on there, too", || elapsed(&other.status(&id)) > first);
    let (status, headers, _) = other.get(&format!("/?__geordi__={id}.svg"));
    assert_eq!((status, &headers["retry-after"]), (202, &"1".parse().unwrap()));
    let (status, _, page) = other.page(&format!("/albums?__geordi__={id}"));
    assert!(status == 200 && page.contains("Running") && page.contains(&format!("{id}.cancel")), "{page}");
    let not_theirs = other.ask("bob", http::Method::GET, &format!("/?__geordi__={id}.status"), false);
    assert_eq!(not_theirs.0, 404);
    one.get("/open");
    let profile = other.profile(&id);
    assert_eq!((&profile["id"], &profile["outcome"]), (&id.clone().into(), &"finished".into()));
    assert_eq!(profile["process"]["pid"], one.process.id(), "the instance that ran the job");
    assert_eq!(other.status(&id)["phase"], "done");

    // A cancellation.
    let cancelled = one.start_job();
    until("the other instance knows about it", || other.status(&cancelled)["phase"] == "running");
    let cancel = format!("/?__geordi__={cancelled}.cancel");
    assert_eq!(other.ask("bob", http::Method::POST, &cancel, false).0, 404);
    assert_eq!(one.waiting(), "1");
    assert_eq!(other.ask("ada", http::Method::POST, &cancel, false).0, 202);
    until("the handler is dropped", || one.waiting() == "0");
    for instance in [&one, &other] {
        assert_eq!(instance.profile(&cancelled)["outcome"], "cancelled");
        assert_eq!(instance.status(&cancelled)["phase"], "done");
    }

    // The end of a process.
    let lost = one.start_job();
    until("the other instance knows about it", || other.status(&lost)["phase"] == "running");
    drop(one);
    assert_eq!(other.profile(&id), profile);
    let (status, _, index) = other.get("/?__geordi__=index");
    assert!(status == 200 && index.contains(&id) && index.contains(&cancelled), "{index}");
    until("it is given up", || other.status(&lost)["phase"] == "lost");
    assert_eq!(other.get(&format!("/?__geordi__={lost}.svg")).0, 410);
}
