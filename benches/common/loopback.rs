//! Servers in this process, and a client that keeps its connections: requests over loopback, by the time that the server's
//! threads are on a processor, as the kernel counts it. What else wants the processor does not count.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::Service;

use crate::common;

const CONNECTIONS: usize = 16;

/// Requests a second of the server's time, one list a server, a figure a round: in slices, forth and back, so that nobody
/// always comes after the same one.
pub(crate) fn race(servers: &mut [Client], duration: Duration) -> Vec<Vec<f64>> {
    for client in &mut *servers {
        client.run(Duration::from_millis(200));
    }
    let slice = Duration::from_millis(60);
    let rounds = (duration.as_secs_f64() / slice.as_secs_f64() / servers.len() as f64) as usize;
    let mut rates = vec![Vec::with_capacity(rounds); servers.len()];
    for round in 0..rounds {
        let order: Vec<usize> =
            if round % 2 == 0 { (0..servers.len()).collect() } else { (0..servers.len()).rev().collect() };
        for index in order {
            rates[index].push(servers[index].run(slice));
        }
    }
    rates
}

/// Starts a server on a thread of its own, and connects to it. Threads that it starts belong to it if they are named
/// `name/..`.
pub(crate) fn serve<S, B>(name: &'static str, path: &str, service: impl AsyncFnOnce() -> S + Send + 'static) -> Client
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a non-blocking listener");
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let service = service().await;
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let service = TowerToHyperService::new(service.clone());
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
    Client::new(name, path, address)
}

/// Connections on which requests are written and answers are read, all from one thread without a runtime: the client
/// should cost less than the server.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    /// The server's threads in `/proc`.
    server: Vec<String>,
    connections: Vec<TcpStream>,
    request: Vec<u8>,
    /// Bytes of one answer; all are the same, for the date in it has a fixed length.
    answer: usize,
}

impl Client {
    fn new(name: &'static str, path: &str, address: SocketAddr) -> Self {
        let connect = || {
            let connection = TcpStream::connect(address).expect("a connection");
            connection.set_nodelay(true).expect("no delay");
            connection
        };
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: example.com\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
        let mut buffer = [0; 4096];
        connections[0].write_all(request.as_bytes()).expect("sent");
        let answer = connections[0].read(&mut buffer).expect("an answer");
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "not the answer: {}", String::from_utf8_lossy(&buffer[..answer]));
        let server = common::threads(name);
        assert!(!server.is_empty(), "the server's thread");
        Self { name, server, connections, request: request.into_bytes(), answer }
    }

    /// Requests a second of the server's time: one request on each connection, then their answers, and again.
    fn run(&mut self, duration: Duration) -> f64 {
        let mut buffer = vec![0; self.answer];
        let (start, used) = (Instant::now(), self.on_cpu());
        let mut count = 0;
        while start.elapsed() < duration {
            for connection in &mut self.connections {
                connection.write_all(&self.request).expect("sent");
            }
            for connection in &mut self.connections {
                connection.read_exact(&mut buffer).expect("an answer");
                count += 1;
            }
        }
        f64::from(count) * 1e9 / (self.on_cpu() - used) as f64
    }

    fn on_cpu(&self) -> u64 {
        self.server.iter().map(|thread| common::nanos_on_cpu(thread)).sum()
    }
}
