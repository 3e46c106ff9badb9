//! A server that is posted to.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::serve::Listener;
use heeler::Webhook;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::common::{Driven, until};

type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Whoever does not shake hands is not served.
struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// What a client posted.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Post {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Posts = Arc<Mutex<Vec<Post>>>;

/// A server that keeps what it gets, and answers by path.
pub(crate) struct Server {
    base: String,
    posts: Posts,
    _driven: Driven,
}

async fn answer(State(posts): State<Posts>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    posts.lock().unwrap().push(Post { uri: uri.clone(), headers, body });
    match uri.path() {
        "/never/T0KEN-1" => std::future::pending().await,
        "/moved/T0KEN-1" => Redirect::permanent("/elsewhere").into_response(),
        // As many frameworks do.
        path if path.starts_with("/missing") => {
            (StatusCode::NOT_FOUND, format!("cannot POST {uri}\u{1b}[31m\nno such thing")).into_response()
        }
        "/recovering" if posts.lock().unwrap().len() == 1 => StatusCode::BAD_GATEWAY.into_response(),
        // Does not come to its end.
        "/half/T0KEN-1" => {
            let begun = futures::stream::iter([Ok::<_, io::Error>("you may not")]);
            let body = Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()));
            (StatusCode::FORBIDDEN, body).into_response()
        }
        "/down/T0KEN-1" => (StatusCode::SERVICE_UNAVAILABLE, "come back later").into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::listen("http://127.0.0.1", |tcp, app| Box::pin(axum::serve(tcp, app).into_future()))
    }

    /// One that shows this certificate, for `localhost`.
    pub(crate) fn start_tls(config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::listen("https://localhost", |tcp, app| Box::pin(axum::serve(Tls { tcp, acceptor }, app).into_future()))
    }

    fn listen(base: &str, serve: impl FnOnce(TcpListener, Router) -> Serving + Send + 'static) -> Self {
        let driven = Driven::new(1);
        let posts = Posts::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("{base}:{}", listener.local_addr().unwrap().port());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&posts));
        driven.spawn(async move { serve(TcpListener::from_std(listener).unwrap(), app).await });
        Self { base, posts, _driven: driven }
    }

    pub(crate) fn hook(&self, path: &str) -> Webhook {
        Webhook::new(format!("{}{path}", self.base))
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    pub(crate) fn post(&self) -> Post {
        until("something is posted", || !self.posts().is_empty());
        self.posts().remove(0)
    }
}
