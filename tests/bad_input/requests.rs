//! Requests made to break reports, or to get secrets into them.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use heeler::{Reports, WatchdogLayer};
use http::{HeaderValue, Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::Layer as _;

use super::common::{PATIENCE, collect, in_own_process, ms, until};
use super::{ask_until_reported, get};

/// Everything in the directory's files, by name.
fn files(directory: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
    };
    entries.map(read).collect()
}

/// A service on a real socket, which takes a while.
async fn serve(layer: WatchdogLayer, listener: tokio::net::TcpListener) {
    let service = layer.layer(tower::service_fn(|_: Request<hyper::body::Incoming>| async {
        tokio::time::sleep(ms(300)).await;
        Ok::<_, std::convert::Infallible>(Response::new("answered".to_owned()))
    }));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Sends bytes, and returns the first line of the answer.
fn talk(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may close before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// Guards: a URI of a megabyte (which the server refuses), one of the longest that `http` accepts (which reaches heeler), and
/// raw control characters, over a real socket. The service goes on.
#[test]
fn a_service_survives_bad_requests_over_a_socket() {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(10)).reports(reports);
    let runtime = super::common::runtime(1);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(layer.clone(), listener));
    let request = |uri: &str, agent: &str| {
        format!("GET {uri} HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let refused = talk(address, &request(&format!("/{}", "x".repeat(1 << 20)), "a"));
    assert!(refused.is_empty() || refused.contains("414") || refused.contains("431"), "{refused}");
    let refused = talk(address, &request("/a\u{1b}[31m\u{7}", "a"));
    assert!(refused.is_empty() || refused.contains("400"), "{refused}");
    let longest = format!("/{}", "x".repeat(65_000));
    assert_eq!(talk(address, &request(&longest, "<b>\t\u{202e}agent")), "HTTP/1.1 200 OK");
    let report = seen.first();
    let asked = report.request.as_ref().unwrap();
    assert!(asked.uri.starts_with("/xxx") && asked.uri.len() < 4_096, "{}", asked.uri.len());
    assert_eq!(talk(address, &request("/after", "a")), "HTTP/1.1 200 OK");
    seen.wait("the next request", |report| report.request.as_ref().unwrap().uri == "/after");
    until("all rows are free", || layer.handle().in_flight() == 0);
}

/// Guards: nothing in a request reaches a terminal, a log or a page as more than text.
#[test]
fn control_characters_and_markup_stay_text() {
    in_own_process("requests::control_characters_and_markup_stay_text", || {
        let log = super::common::log::Log::start();
        let place = tempfile::tempdir().unwrap();
        let reports = Reports::builder().directory(place.path()).repeat_after(Duration::ZERO).build().unwrap();
        let layer = WatchdogLayer::new(ms(10)).reports(reports.clone());
        let uris = [
            "/%00%0a%0d%1b%5b31m%9b%e2%80%ae?a=%0aINJECTED",
            "/a\u{202e}gpj.exe/\u{9b}31m/\u{200b}\u{feff}?\u{2028}x",
            "/%3Cscript%3Ealert(1)%3C/script%3E?q=\"><img src=x>".split('"').next().unwrap(),
            "/{{7*7}}/${jndi:ldap://x}/%s%n%d",
        ];
        for uri in uris {
            ask_until_reported(&layer, &reports, || {
                let mut request = get(uri);
                let agent = b"<script>\"'&\t\xe2\x80\xae\xff\x80 \xc2\x9b31m";
                request.headers_mut().insert("user-agent", HeaderValue::from_bytes(agent).unwrap());
                request
            });
        }
        assert!(reports.blocking_flush(PATIENCE));
        let mut outputs = files(place.path());
        assert!(outputs.len() >= 3 * uris.len());
        outputs.push(("log".to_owned(), log.text()));
        for (name, text) in outputs {
            let odd = text.chars().find(|&c| {
                (c.is_control() && c != '\n')
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}')
            });
            assert_eq!(odd, None, "{name}:\n{text}");
            assert!(text.lines().all(|line| !line.trim_start().starts_with("INJECTED")), "{name}:\n{text}");
            if name.ends_with(".json") {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(value["request"]["uri"].is_string());
            }
        }
    });
}

/// Guards: no output contains a secret, wherever a client puts it.
#[test]
fn no_output_contains_a_secret_from_the_request() {
    in_own_process("requests::no_output_contains_a_secret_from_the_request", || {
        let log = super::common::log::Log::start();
        let place = tempfile::tempdir().unwrap();
        let builder = Reports::builder().directory(place.path()).repeat_after(Duration::ZERO);
        let reports = builder.allow_headers(["host", "x-tenant"]).secret_params(["patient"]).build().unwrap();
        let layer = WatchdogLayer::new(ms(10)).reports(reports.clone());
        let uris = [
            "/a?token=hunter2&page=7",
            "/a?page=7&PassWord=hunter2&patient=hunter2#hunter",
            "/a?X-Amz-Signature=hunter2&api_key=hunter2&access%5Ftoken=hunter2",
            "/a;jsessionid=hunter2?page=7",
            "http://user:hunter2@photos.example/a?page=7",
        ];
        for uri in uris {
            ask_until_reported(&layer, &reports, || {
                let mut request = get(uri);
                for name in ["authorization", "cookie", "proxy-authorization", "x-api-key", "referer"] {
                    request.headers_mut().insert(name, HeaderValue::from_static("hunter2"));
                }
                request.headers_mut().insert("x-tenant", HeaderValue::from_static("visible"));
                request
            });
        }
        assert!(reports.blocking_flush(PATIENCE));
        let mut outputs = files(place.path());
        assert!(outputs.len() >= 3 * uris.len());
        outputs.push(("log".to_owned(), log.text()));
        for (name, text) in &outputs {
            // Its own arguments are those of the test's source, whose lines a report may quote.
            assert!(!text.contains("hunter2"), "{name}:\n{text}");
        }
        let texts = outputs.iter().filter(|(name, _)| name.ends_with(".txt"));
        assert!(texts.clone().all(|(_, text)| text.contains("visible")));
        assert!(texts.clone().any(|(_, text)| text.contains("page=7")));
    });
}
