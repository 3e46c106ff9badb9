//! A service with requests that wait, and its console.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLockWriteGuard};
use std::time::Duration;

use heeler::{Console, Reports, Resource, WatchdogLayer, acquire, authorize};
use tokio::sync::{Barrier, Mutex, Semaphore};

use crate::common::{Driven, alone_at_rest, until};

pub(crate) const SECRET: &str = "a-secret-of-this-test";

/// Below an eighth of it nothing is known of a request without asking.
const THRESHOLD: Duration = Duration::from_secs(3_600);

/// What text from outside may contain.
pub(crate) const EVIL: &str = "<script>alert(1)</script>\u{202e}\u{1b}[31m'\"&";

pub(crate) struct App {
    pub(crate) driven: Driven,
    pub(crate) layer: WatchdogLayer,
    pub(crate) console: Console,
    pub(crate) reports: Reports,
    pub(crate) address: SocketAddr,
    pub(crate) open: Arc<Semaphore>,
    _alone: RwLockWriteGuard<'static, ()>,
}

async fn load_invoice(pool: Arc<(Semaphore, Resource)>, gate: Arc<Semaphore>) {
    let _connection = acquire(&pool.1, pool.0.acquire()).await.unwrap();
    let _ = gate.acquire().await;
}

impl App {
    pub(crate) fn start() -> Self {
        Self::start_with(Reports::builder().service("invoices & co", "1.2.0").build().unwrap())
    }

    pub(crate) fn start_with(reports: Reports) -> Self {
        let alone = alone_at_rest();
        let console = heeler::console(reports.clone(), authorize::bearer(SECRET).unwrap());
        let address = console.serve("127.0.0.1:0".parse().unwrap()).unwrap();
        let app = Self {
            driven: Driven::new(2),
            layer: WatchdogLayer::new(THRESHOLD),
            console,
            reports,
            address,
            open: Arc::new(Semaphore::new(0)),
            _alone: alone,
        };
        // The console keeps dumps for a while: those of an earlier test, too.
        app.until_shown(0);
        app
    }

    /// Waits until the console has so many pieces of work, each of which has been looked at. Returns the dump.
    fn until_shown(&self, many: usize) -> serde_json::Value {
        let json = |query: &str| serde_json::from_str::<serde_json::Value>(&self.get(query).body).unwrap();
        let has = |dump: &serde_json::Value| dump["in_flight"] == many && dump["unobserved"] == 0;
        let work = |dump: &serde_json::Value| dump["work"].as_array().map_or(0, Vec::len);
        until("the table has it", || work(&json("?form=table")) == many);
        let mut dump = serde_json::Value::Null;
        until("the dump has it", || {
            dump = json("?form=json");
            has(&dump)
        });
        dump
    }

    /// Sends a request that is answered after the future.
    pub(crate) fn request<F>(&self, path: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        crate::common::send(&self.driven, &self.layer, path, future);
    }

    /// Four invoices over a pool of one, two requests that wait for each other, and a job with an evil name.
    pub(crate) fn fill(&self) {
        let pool = Arc::new((Semaphore::new(1), Resource::new("invoice pool")));
        for number in 0..4 {
            self.request(&format!("/invoice/{number}?token=hunter2"), load_invoice(pool.clone(), self.open.clone()));
        }
        let locks = Arc::new([(Mutex::new(()), Resource::new("accounts")), (Mutex::new(()), Resource::new(EVIL))]);
        let (both, waiting) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        for (path, first, second) in [("/transfer", 0, 1), ("/audit", 1, 0)] {
            let (locks, both, waiting) = (Arc::clone(&locks), Arc::clone(&both), Arc::clone(&waiting));
            self.request(path, async move {
                let _first = acquire(&locks[first].1, locks[first].0.lock()).await;
                both.wait().await;
                let mut second = pin!(acquire(&locks[second].1, locks[second].0.lock()));
                assert!(futures::poll!(&mut second).is_pending());
                waiting.fetch_add(1, Ordering::Relaxed);
                let _second = second.await;
            });
        }
        let gate = self.open.clone();
        self.driven.spawn(heeler::watch(EVIL, THRESHOLD, async move {
            let _ = gate.acquire().await;
        }));
        until("two wait for each other", || waiting.load(Ordering::Relaxed) == 2);
        until("three wait for a connection", || {
            let dump = self.until_shown(7);
            let resources = dump["resources"].as_array().cloned().unwrap_or_default();
            let pool = resources.into_iter().find(|resource| resource["name"] == "invoice pool");
            let waits = pool.is_some_and(|pool| pool["waiters"].as_array().is_some_and(|waiters| waiters.len() == 3));
            waits && dump["deadlocks"].as_array().is_some_and(|rings| rings.len() == 1)
        });
    }

    /// Asks the console's own listener.
    pub(crate) fn get(&self, query: &str) -> Answer {
        self.ask(&format!("GET /{query} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n"))
    }

    /// Sends the head of a request to the console's own listener.
    pub(crate) fn ask(&self, head: &str) -> Answer {
        exchange(TcpStream::connect(self.address).unwrap(), head)
    }
}

pub(crate) fn ask_socket(path: &Path, head: &str) -> Answer {
    exchange(std::os::unix::net::UnixStream::connect(path).unwrap(), head)
}

fn exchange(mut stream: impl std::io::Read + std::io::Write, head: &str) -> Answer {
    write!(stream, "{head}connection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
    // What it sends is one piece, and has its length.
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}
