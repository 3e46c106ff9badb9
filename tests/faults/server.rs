//! A webhook's server that may be down.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use heeler::{Report, Webhook};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::common::Driven;

/// Where a server will be. Its port is taken already, and connections are refused.
pub(crate) struct Down {
    socket: TcpSocket,
    address: SocketAddr,
}

/// What was posted: the key that every attempt for one report has, and the report.
type Posts = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that takes everything, or never answers.
pub(crate) struct Server {
    address: SocketAddr,
    posts: Posts,
    _driven: Driven,
}

pub(crate) fn hook(address: SocketAddr) -> Webhook {
    Webhook::new(format!("http://{address}/hook"))
}

/// The key that a webhook gives a report.
pub(crate) fn key(report: &Report) -> String {
    format!("{}.{}", report.id, report.update)
}

impl Down {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn hook(&self) -> Webhook {
        hook(self.address)
    }

    /// It is up.
    pub(crate) fn start(self) -> Server {
        self.listen(true)
    }

    /// It accepts connections, and nothing else.
    pub(crate) fn hang(self) -> Server {
        self.listen(false)
    }

    fn listen(self, answers: bool) -> Server {
        let (driven, posts) = (Driven::new(1), Posts::default());
        let state = Arc::clone(&posts);
        let (address, socket) = (self.address, self.socket);
        driven.spawn(async move {
            let answer = async move |State(posts): State<Posts>, headers: HeaderMap, body: Bytes| {
                let key = headers["idempotency-key"].to_str().unwrap().to_owned();
                posts.lock().unwrap().push((key, serde_json::from_slice(&body).unwrap()));
                if !answers {
                    std::future::pending::<()>().await;
                }
                StatusCode::NO_CONTENT
            };
            let app = Router::new().fallback(answer).with_state(state);
            axum::serve(socket.listen(1024).unwrap(), app).await.unwrap();
        });
        Server { address, posts, _driven: driven }
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Down::new().start()
    }

    pub(crate) fn hook(&self) -> Webhook {
        hook(self.address)
    }

    /// The keys of what was posted, sorted: those of a report that was posted twice are here twice.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.posts.lock().unwrap().iter().map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }

    pub(crate) fn posts(&self) -> Vec<Value> {
        self.posts.lock().unwrap().iter().map(|(_, report)| report.clone()).collect()
    }
}
