//! The other company's server: it accepts a connection, reads the request, and stays silent for a long time.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Starts it on a port of its own, with plain threads, because it must not share anything with the service.
pub(crate) fn start(silence: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("upstream".into()).spawn(move || {
        for connection in listener.incoming().flatten() {
            // An upstream does not care about a client that left, or a thread that could not start.
            let _ = thread::Builder::new().name("upstream".into()).spawn(move || answer(connection, silence));
        }
    })?;
    Ok(address)
}

fn answer(mut connection: TcpStream, silence: Duration) -> io::Result<()> {
    let mut request = [0; 4096];
    let _ = connection.read(&mut request)?;
    thread::sleep(silence);
    let place = r#"{"place":"Reykjavík"}"#;
    let length = place.len();
    write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{place}")
}
