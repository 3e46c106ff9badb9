//! Listeners of the console's own, with a thread and a runtime that nothing of the application's can block.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::HOST;
use http::request::Parts;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Console;
#[cfg(unix)]
use super::answer::answer;
use super::answer::not_found;
use crate::capture::sys;
use crate::disabled::is_disabled;
use crate::error::{Error, Result};
use crate::log::log_safely;

/// At most this many connections at a time. Others wait.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, or to begin the next one.
const HEAD: Duration = Duration::from_secs(10);
/// How long an authorizer may take.
const AUTHORIZER: Duration = Duration::from_secs(5);
/// A connection takes no more requests after this, so that a client which has vanished, or does not read, keeps no place ..
const LONGEST: Duration = Duration::from_secs(120);
/// .. and may take this long for the answer that is on its way: longer than a stream of events lasts.
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// The pause after a connection could not be accepted, because there are too many open files, for example.
pub(super) const RETRY: Duration = Duration::from_millis(200);

impl Console {
    /// Serves the console on an address of its own, and returns that address: port 0 chooses a free one. It has a thread
    /// and a runtime of its own, so it answers while every worker of the application is blocked. It is served for the life
    /// of the process. With `HEELER_DISABLE=1` in the environment, nothing listens, and it returns `address`.
    ///
    /// Choose a loopback address and a tunnel (`ssh -L 9200:localhost:9200 web1`): there is no encryption.
    ///
    /// The authorizer runs on that thread, so it must not wait for the application: for its locks or its runtime. One that
    /// has not answered within five seconds is taken as a no.
    ///
    /// At most 256 clients are connected at a time; others wait. A connection takes requests for two minutes, and its last answer
    /// may take another minute.
    ///
    /// ```
    /// use heeler::{Reports, authorize};
    ///
    /// let console = heeler::console(Reports::default(), authorize::debug_builds());
    /// let address = console.serve("127.0.0.1:0".parse()?)?;
    /// println!("http://{address}/");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot listen on the address or no thread can be started, and if the authorizer is
    /// [`extension`](crate::authorize::extension()), which needs a layer around it.
    pub fn serve(&self, address: SocketAddr) -> Result<SocketAddr, Error> {
        if self.inner.authorizer.needs_extension() {
            return Err(Error::config(
                "a console with a listener of its own has no layers around it: `authorize::extension` would refuse everybody",
            ));
        }
        if is_disabled() {
            return Ok(address);
        }
        let failed = |error: io::Error| Error::listener(format!("the console cannot listen on {address}"), error);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let console = self.clone();
        run(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            loop {
                let permit = Arc::clone(&connections).acquire_owned().await.map_err(io::Error::other)?;
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                let console = console.clone();
                // A listener on all addresses is on the loopback addresses, too.
                let is_local = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
                let door = if is_local { Door::Loopback } else { Door::Network };
                tokio::spawn(async move {
                    connection(stream, console, door).await;
                    drop(permit);
                });
            }
        })
        .map_err(failed)?;
        Ok(bound)
    }
}

/// Runs a server on a thread and a runtime of its own.
pub(super) fn run(serve: impl Future<Output = io::Result<()>> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("heeler-console".into()).spawn(move || {
        sys::block_signals();
        if let Err(error) = runtime.block_on(serve) {
            log_safely(|| tracing::error!(target: "heeler", %error, "the console has stopped"));
        }
    })?;
    Ok(())
}

/// Where a request comes in.
#[derive(Debug, Clone)]
pub(super) enum Door {
    Network,
    Loopback,
    /// A Unix socket, whose peer has been checked, and who that is.
    #[cfg(unix)]
    Socket(String),
}

/// Answers the requests of one connection.
pub(super) async fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, console: Console, door: Door) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (console, door) = (console.clone(), door.clone());
        async move {
            let (head, _) = request.into_parts();
            Ok::<_, std::convert::Infallible>(match door {
                Door::Loopback if !names_loopback(&head) => not_found(),
                Door::Loopback | Door::Network => console.respond_within(&head, AUTHORIZER).await,
                #[cfg(unix)]
                Door::Socket(peer) => answer(&console.inner.reports, &head, Some(&peer)).await,
            })
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // A client that breaks off is of no interest.
    if timeout(LONGEST, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}

/// Returns whether a request names this machine. A page elsewhere can have a browser ask any name that leads here.
fn names_loopback(head: &Parts) -> bool {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Guards: a client that asks on and on, and reads no answer, keeps no place.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_left() {
        let (mut client, server) = tokio::io::duplex(1024);
        let console = crate::console::console(crate::Reports::default(), |_: &Parts| true);
        let served = tokio::spawn(connection(server, console, Door::Network));
        let asks =
            async { while client.write_all(b"GET /?nothing HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_ok() {} };
        let began = tokio::time::Instant::now();
        let (served, ()) = tokio::join!(served, asks);
        served.unwrap();
        assert!(began.elapsed() < LONGEST + LAST_ANSWER + HEAD, "{:?}", began.elapsed());
    }

    /// Guards: an authorizer that waits for something that hangs refuses, and its connection goes on.
    #[tokio::test(start_paused = true)]
    async fn an_authorizer_that_hangs_refuses() {
        let (mut client, server) = tokio::io::duplex(1024);
        let console = crate::console::console(crate::Reports::default(), async |_: &Parts| {
            std::future::pending::<()>().await;
            true
        });
        let served = tokio::spawn(connection(server, console, Door::Network));
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        served.await.unwrap();
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let named = |host: &str| {
            let request = Request::get("/").header(HOST, host).body(()).unwrap();
            names_loopback(&request.into_parts().0)
        };
        for host in ["localhost", "LOCALHOST:9200", "127.0.0.1", "127.0.0.1:9200", "[::1]:9200", "127.1.2.3:1"] {
            assert!(named(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9200", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
        {
            assert!(!named(host), "{host}");
        }
    }
}
