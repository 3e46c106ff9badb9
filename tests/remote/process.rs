//! Front ends and workers as processes, each of them this program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;

use crate::engines::{Engine, bucket, queue};
use crate::service::{Shared, layer, remote, serve_at, service, work};
use crate::store::{Meddled, Meddling, Operation, When};

/// Tells a process of this program what it is: `front` or `worker`.
const ROLE: &str = "HEELER_TEST_ROLE";
const SHARED: &str = "HEELER_TEST_SHARED";
const BUCKET: &str = "HEELER_TEST_BUCKET";
const QUEUE: &str = "HEELER_TEST_QUEUE";
const NAME: &str = "HEELER_TEST_NAME";
const KILL: &str = "HEELER_TEST_KILL";
const ADDRESS: &str = "HEELER_TEST_ADDRESS";

const LISTENING: &str = "listening on ";

/// What a process works with.
pub(crate) struct Setting<'a> {
    /// The network namespace that it is in, or none of its own.
    pub(crate) namespace: Option<&'a str>,
    /// Where it listens, on any port.
    pub(crate) address: &'a str,
    pub(crate) shared: &'a Path,
    /// The endpoint of the bucket for profiles, or the shared folder.
    pub(crate) bucket: Option<&'a str>,
    /// The URL of the queue, and its name.
    pub(crate) queue: &'a str,
    pub(crate) name: &'a str,
    /// Where it kills itself: "put claims after 1" is after the first claim.
    pub(crate) kill: &'a str,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            namespace: None,
            address: "127.0.0.1",
            shared: Path::new(""),
            bucket: None,
            queue: "",
            name: "tests",
            kill: "",
        }
    }
}

/// The process is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: Option<SocketAddr>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub(crate) fn start(role: &str, setting: &Setting<'_>) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut command = Command::new(&this);
        if let Some(namespace) = setting.namespace {
            command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(&this);
        }
        command.args(["--exact", "process::a_process_of_these_tests", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(SHARED, setting.shared).env(QUEUE, setting.queue).env(NAME, setting.name);
        command.env(KILL, setting.kill).env(ADDRESS, setting.address).env(BUCKET, setting.bucket.unwrap_or_default());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.filter_map(|line| line.split_once(LISTENING).map(|(_, address)| address.to_owned())).next();
        let address = address.and_then(|address| address.parse().ok());
        Self { child, address }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

/// Not a test by itself: what the processes run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_these_tests() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let setting = |name| std::env::var(name).unwrap();
    let shared = Shared::at(&PathBuf::from(setting(SHARED)));
    let url = setting(QUEUE);
    let engine = if url.starts_with("redis") { Engine::Redis } else { Engine::Postgres };
    let queue = queue(engine, &url).named(&setting(NAME));
    let endpoint = setting(BUCKET);
    let store = if endpoint.is_empty() { shared.store() } else { bucket(&endpoint) };
    let remote = remote(queue, killing(store, &setting(KILL)));
    let router = service(layer().remote(remote.clone()), shared);
    let address = serve_at(&setting(ADDRESS), router.clone()).await;
    if role == "worker" {
        work(remote, router);
    }
    // The end of a line that the test harness has begun.
    println!("\n{LISTENING}{address}");
    std::io::stdout().flush().unwrap();
    // Until whoever has started it ends.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
    std::process::exit(0);
}

/// A store in which this process kills itself at a step: "put claims after 1".
fn killing(store: Arc<dyn ObjectStore>, step: &str) -> Arc<dyn ObjectStore> {
    let words: Vec<String> = step.split(' ').map(str::to_owned).collect();
    let [operation, kind, when, count] = &words[..] else { return store };
    let operation = match &**operation {
        "put" => Operation::Put,
        "get" => Operation::Get,
        _ => Operation::Delete,
    };
    let when = if when == "before" { When::Before } else { When::After };
    let (kind, left) = (kind.clone(), AtomicUsize::new(count.parse().unwrap()));
    Meddled::new(store, move |step| {
        let is_it = (step.operation, step.when, step.kind) == (operation, when, &*kind);
        if is_it && left.fetch_sub(1, Ordering::Relaxed) == 1 { Meddling::Kill } else { Meddling::Nothing }
    })
}
