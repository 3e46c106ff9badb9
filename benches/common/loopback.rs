//! Servers of axum in this process, and a client that keeps its connections: requests a second over loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::{Router, routing::get};

use crate::peers::LIMIT;

const CONNECTIONS: usize = 16;
const REQUEST: &[u8] =
    b"GET /users/4711/photos HTTP/1.1\r\nhost: example.com\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";

/// Requests a second of the server without a layer, and for each layer its share of that, one a round.
pub(crate) fn compare(duration: Duration) -> (f64, Vec<(&'static str, Vec<f64>)>) {
    let app = || Router::new().route("/users/{id}/photos", get(|| async { "hello" }));
    let servers = [
        ("nothing", app()),
        ("heeler", app().layer(heeler::WatchdogLayer::new(LIMIT))),
        ("tower_http_timeout", {
            let status = http::StatusCode::GATEWAY_TIMEOUT;
            app().layer(tower_http::timeout::TimeoutLayer::with_status_code(status, LIMIT))
        }),
        ("tower_http_trace", app().layer(tower_http::trace::TraceLayer::new_for_http())),
        // The noise: what this measurement makes of no difference.
        ("nothing_again", app()),
    ];
    let mut servers: Vec<_> = servers.into_iter().map(|(name, app)| (name, Client::new(serve(app)))).collect();
    for (_, client) in &mut servers {
        client.run(Duration::from_millis(200));
    }
    let slice = Duration::from_millis(100);
    let rounds = (duration.as_secs_f64() / slice.as_secs_f64() / servers.len() as f64) as usize;
    let mut rates = vec![Vec::with_capacity(rounds); servers.len()];
    for round in 0..rounds {
        // Forth and back, so that nobody always comes after the same one.
        let order: Vec<usize> =
            if round % 2 == 0 { (0..servers.len()).collect() } else { (0..servers.len()).rev().collect() };
        for index in order {
            rates[index].push(servers[index].1.run(slice));
        }
    }
    let plain = rates[0].clone();
    let shares = |rates: &[f64]| rates.iter().zip(&plain).map(|(rate, plain)| rate / plain).collect();
    let ratios = servers.iter().zip(&rates).skip(1).map(|((name, _), rates)| (*name, shares(rates))).collect();
    (crate::common::median(&mut plain.clone()), ratios)
}

/// Starts a server on a thread of its own and returns its address.
fn serve(app: Router) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a non-blocking listener");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, app).await.expect("a server that goes on");
        });
    });
    address
}

/// Connections on which requests are written and answers are read, all from one thread without a runtime: the client
/// should cost less than the server.
struct Client {
    connections: Vec<TcpStream>,
    /// Bytes of one answer; all are the same, for the date in it has a fixed length.
    answer: usize,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
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
        Self { connections, answer }
    }

    /// Requests a second: one request on each connection, then their answers, and again.
    fn run(&mut self, duration: Duration) -> f64 {
        let mut buffer = vec![0; self.answer];
        let start = Instant::now();
        let mut count = 0;
        loop {
            for connection in &mut self.connections {
                connection.write_all(REQUEST).expect("sent");
            }
            for connection in &mut self.connections {
                connection.read_exact(&mut buffer).expect("an answer");
                count += 1;
            }
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return f64::from(count) / elapsed.as_secs_f64();
            }
        }
    }
}
