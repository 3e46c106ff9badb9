//! A server whose handler computes and waits, with a layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use heeler::{ProfileLayer, authorize};
use tokio::sync::Semaphore;

use crate::browser::Page;
use crate::common::{Driven, ms};

const SECRET: &str = "a-secret-of-this-test";

/// What the handler waits for, and how many are waiting.
#[derive(Debug)]
struct Gate {
    waiting: AtomicUsize,
    open: Semaphore,
}

async fn wait_for_somebody(gate: &Gate) {
    struct Waiting<'a>(&'a AtomicUsize);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    gate.waiting.fetch_add(1, Ordering::SeqCst);
    let _waiting = Waiting(&gate.waiting);
    gate.open.acquire().await.unwrap().forget();
}

#[inline(never)]
fn compute_an_answer() -> u64 {
    let began = Instant::now();
    let mut sum = 0_u64;
    while began.elapsed() < ms(150) {
        sum = std::hint::black_box(sum.rotate_left(5) ^ 7);
    }
    sum
}

/// A server whose handler computes and waits.
pub(crate) struct App {
    gate: Arc<Gate>,
    pub(crate) home: String,
    _server: Driven,
}

impl App {
    pub(crate) fn start() -> Self {
        let gate = Arc::new(Gate { waiting: AtomicUsize::new(0), open: Semaphore::new(0) });
        let handler = {
            let gate = Arc::clone(&gate);
            async move || {
                wait_for_somebody(&gate).await;
                format!("<b>{}</b>", compute_an_answer())
            }
        };
        let layer = ProfileLayer::new(authorize::bearer(SECRET).unwrap());
        let router = Router::new().route("/albums", get(handler)).layer(layer);
        // A page without a policy, into which somebody may have put something.
        let router =
            router.route("/guests", get(async || axum::response::Html("<!doctype html><title>Guests</title>")));
        let server = Driven::new(2);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let home = format!("http://{}", listener.local_addr().unwrap());
        server.spawn(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
        Self { gate, home, _server: server }
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.gate.waiting.load(Ordering::SeqCst)
    }

    /// Lets one go on.
    pub(crate) fn open(&self) {
        self.gate.open.add_permits(1);
    }

    /// A browser of somebody who may profile.
    pub(crate) fn page(&self) -> Option<Page> {
        Page::new(&self.home, (authorize::DEFAULT_COOKIE, SECRET))
    }
}
