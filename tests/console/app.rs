//! A service with requests that wait, and its console.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLockWriteGuard};
use std::time::Duration;

use heeler::{Console, Reports, Resource, WatchdogLayer, acquire, authorize};
use tokio::sync::{Barrier, Mutex, Semaphore};

use crate::common::{Driven, alone_at_rest, ms, until};

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
        Self {
            driven: Driven::new(2),
            layer: WatchdogLayer::new(THRESHOLD),
            console,
            reports,
            address,
            open: Arc::new(Semaphore::new(0)),
            _alone: alone,
        }
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
        until("all are in flight", || heeler::metrics().in_flight.total() == 7);
        // The last of them has yet to reach what it waits for.
        std::thread::sleep(ms(60));
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
