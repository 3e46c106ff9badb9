//! Servers of axum in this process, and a client that keeps its connections: requests a second over loopback.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::{Layer, Service};

use crate::common;
use crate::peers::LIMIT;

const CONNECTIONS: usize = 16;
const REQUEST: &[u8] =
    b"GET /users/4711/photos HTTP/1.1\r\nhost: example.com\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";

/// What came of it: shares of the throughput without a layer, one a round, by name.
pub(crate) type Shares = Vec<(&'static str, Vec<f64>)>;

/// Requests a second of the router alone, and for each layer its share of the router's throughput.
///
/// A layer goes around the router; and, for comparison, into it: `Router::layer` puts each route into a box of its own,
/// whatever the layer does, and `any_layer` is one that does nothing.
///
/// Throughput is requests for a second of the server's thread on a processor, as the kernel counts it: what a saturated
/// server delivers, and not who else wanted the processor.
pub(crate) fn compare(duration: Duration) -> (f64, Shares) {
    let app = || Router::new().route("/users/{id}/photos", get(|| async { "hello" }));
    let status = http::StatusCode::GATEWAY_TIMEOUT;
    let timeout = || tower_http::timeout::TimeoutLayer::with_status_code(status, LIMIT);
    let heeler = || heeler::WatchdogLayer::new(LIMIT);
    let mut servers = [
        serve("router", app()),
        serve("heeler", heeler().layer(app())),
        serve("tower_http_timeout", timeout().layer(app())),
        serve("tower_http_trace", tower_http::trace::TraceLayer::new_for_http().layer(app())),
        serve("any_layer_inside", app().layer(tower::layer::util::Identity::new())),
        serve("heeler_inside", app().layer(heeler())),
        // The noise: what this measurement makes of no difference.
        serve("router_again", app()),
    ];
    for client in &mut servers {
        client.run(Duration::from_millis(200));
    }
    let slice = Duration::from_millis(60);
    let rounds = (duration.as_secs_f64() / slice.as_secs_f64() / servers.len() as f64) as usize;
    let mut rates = vec![Vec::with_capacity(rounds); servers.len()];
    for round in 0..rounds {
        // Forth and back, so that nobody always comes after the same one.
        let order: Vec<usize> =
            if round % 2 == 0 { (0..servers.len()).collect() } else { (0..servers.len()).rev().collect() };
        for index in order {
            rates[index].push(servers[index].run(slice));
        }
    }
    let plain = rates[0].clone();
    let shares = |rates: &[f64]| rates.iter().zip(&plain).map(|(rate, plain)| rate / plain).collect();
    let ratios = servers.iter().zip(&rates).skip(1).map(|(client, rates)| (client.name, shares(rates))).collect();
    (common::median(&mut plain.clone()), ratios)
}

/// Starts a server on a thread of its own, and connects to it.
fn serve<S, B>(name: &'static str, service: S) -> Client
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
    Client::new(name, address)
}

/// Connections on which requests are written and answers are read, all from one thread without a runtime: the client
/// should cost less than the server.
struct Client {
    name: &'static str,
    /// The server's thread in `/proc`.
    server: String,
    connections: Vec<TcpStream>,
    /// Bytes of one answer; all are the same, for the date in it has a fixed length.
    answer: usize,
}

impl Client {
    fn new(name: &'static str, address: SocketAddr) -> Self {
        let connect = || {
            let connection = TcpStream::connect(address).expect("a connection");
            connection.set_nodelay(true).expect("no delay");
            connection
        };
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
        let mut buffer = [0; 4096];
        connections[0].write_all(REQUEST).expect("sent");
        let answer = connections[0].read(&mut buffer).expect("an answer");
        assert!(buffer.starts_with(b"HTTP/1.1 200") && buffer[..answer].ends_with(b"hello"), "not the answer");
        let server = common::thread(name).expect("the server's thread");
        Self { name, server, connections, answer }
    }

    /// Requests a second of the server's time: one request on each connection, then their answers, and again.
    fn run(&mut self, duration: Duration) -> f64 {
        let mut buffer = vec![0; self.answer];
        let (start, used) = (Instant::now(), common::nanos_on_cpu(&self.server));
        let mut count = 0;
        while start.elapsed() < duration {
            for connection in &mut self.connections {
                connection.write_all(REQUEST).expect("sent");
            }
            for connection in &mut self.connections {
                connection.read_exact(&mut buffer).expect("an answer");
                count += 1;
            }
        }
        f64::from(count) * 1e9 / (common::nanos_on_cpu(&self.server) - used) as f64
    }
}
