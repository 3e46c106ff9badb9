//! Where the table comes from.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::data::Dump;

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
const QUERY: &str = "?form=table";

/// An answer, or why there is none.
pub(crate) type Answer = Result<Dump, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Host and port, and the path.
    Http(String, String),
    Socket(String),
    /// A host as `ssh` knows it, and a socket there.
    Ssh(String, String),
}

impl Source {
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if let Some(rest) = name.strip_prefix("http://") {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
            return Ok(Self::Http(host, format!("/{path}")));
        }
        if let Some(rest) = name.strip_prefix("ssh:") {
            let (host, path) = rest.split_once(':').ok_or("ssh:host:path of a socket")?;
            let is_plain = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['\'', '\n']);
            if !is_plain(host) || !is_plain(path) {
                return Err("ssh:host:path of a socket".to_owned());
            }
            return Ok(Self::Ssh(host.to_owned(), path.to_owned()));
        }
        if name.contains("://") {
            return Err(format!("{name}: only http:// is known; use a tunnel or ssh: for the rest"));
        }
        Ok(Self::Socket(name.to_owned()))
    }

    /// Asks again and again, on a thread of its own.
    pub(crate) fn watch(&self, period: Duration) -> Receiver<Answer> {
        let (news, received) = channel();
        let source = self.clone();
        std::thread::spawn(move || {
            while news.send(source.ask()).is_ok() {
                std::thread::sleep(period);
            }
        });
        received
    }

    fn ask(&self) -> Answer {
        let body = match self {
            Self::Http(host, path) => TcpStream::connect(host).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, host, &format!("{path}{QUERY}"))
            }),
            Self::Socket(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, "heeler", &format!("/{QUERY}"))
            }),
            Self::Ssh(host, path) => {
                let curl = format!("curl -sS -m 10 --unix-socket '{path}' 'http://heeler/{QUERY}'");
                Command::new("ssh").args(["-o", "BatchMode=yes", host, &curl]).output().and_then(|output| {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other(said)) }
                })
            }
        };
        let body = body.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| format!("this is not a console of heeler's: {error}"))
    }
}

/// Sends a request, and returns the body of the answer.
fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<Vec<u8>> {
    let token = std::env::var("HEELER_TOKEN").ok().filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{token}connection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    match head.split(' ').nth(1) {
        Some("200") => Ok(bytes.split_off(end + 4)),
        Some("404") => Err(io::Error::other("404: there is no console here, or HEELER_TOKEN does not open it")),
        status => Err(io::Error::other(format!("the answer is {}", status.unwrap_or("none")))),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(host, path) => write!(f, "http://{host}{path}"),
            Self::Socket(path) => f.write_str(path),
            Self::Ssh(host, path) => write!(f, "{host}:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let http = |host: &str, path: &str| Ok(Source::Http(host.to_owned(), path.to_owned()));
        assert_eq!(Source::parse("http://127.0.0.1:3001"), http("127.0.0.1:3001", "/"));
        assert_eq!(Source::parse("http://web1/ops/console"), http("web1:80", "/ops/console"));
        assert_eq!(Source::parse("/run/x.sock"), Ok(Source::Socket("/run/x.sock".to_owned())));
        assert_eq!(Source::parse("ssh:web1:/run/x.sock"), Ok(Source::Ssh("web1".to_owned(), "/run/x.sock".to_owned())));
        for nonsense in ["https://web1", "ssh:web1", "ssh:-oProxyCommand=x:/run", "ssh:web1:/run/'; rm -rf /"] {
            assert!(Source::parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn an_answer_is_read() {
        struct Fake(io::Cursor<Vec<u8>>);
        impl Read for Fake {
            fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
                self.0.read(bytes)
            }
        }
        impl Write for Fake {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ask = |answer: &str| exchange(Fake(io::Cursor::new(answer.as_bytes().to_vec())), "h", "/");
        assert_eq!(ask("HTTP/1.1 200 OK\r\na: b\r\n\r\n{}").unwrap(), b"{}");
        assert!(ask("HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().to_string().contains("HEELER_TOKEN"));
        assert!(ask("").is_err());
    }
}
