//! Files over HTTP: hyper alone, without a subscriber.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heeler::{Reports, WatchdogLayer};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::{Layer as _, service_fn};

/// What is served, and what is shared by those who serve it.
#[derive(Debug)]
struct Files {
    root: PathBuf,
    index: tokio::sync::Mutex<Vec<String>>,
}

async fn answer(files: Arc<Files>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let content = match request.uri().path() {
        "/index" => list(&files).await,
        path => read_file(&files.root.join(&path[1..])).await,
    };
    let status = if content.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::new(content.unwrap_or_default()));
    *response.status_mut() = status;
    Ok(response)
}

async fn list(files: &Files) -> Option<Bytes> {
    let index = files.index.lock().await;
    Some(index.join("\n").into())
}

/// A named pipe takes as long as its writer; a thread of the runtime's waits for that.
async fn read_file(path: &Path) -> Option<Bytes> {
    tokio::fs::read(path).await.ok().map(Bytes::from)
}

/// A service as hyper has it, and heeler's layer around it.
async fn serve(listener: tokio::net::TcpListener, files: Arc<Files>, directory: PathBuf) {
    let reports = Reports::builder().directory(directory).repeat_after(Duration::ZERO).build().expect("reports");
    let watchdog = WatchdogLayer::new(Duration::from_millis(300)).reports(reports);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (files, watchdog) = (files.clone(), watchdog.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(files.clone(), request));
            let service = TowerToHyperService::new(watchdog.layer(service));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn main() {
    let root = std::env::temp_dir().join(format!("heeler-adoption-served-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("hello"), "hello").unwrap();
    let pipe = root.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let files = Arc::new(Files { root: root.clone(), index: tokio::sync::Mutex::new(vec!["hello".to_owned()]) });
    let directory = check::directory("files");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(listener, files.clone(), directory.clone()));

    assert!(ask(address, "/hello").join().unwrap().ends_with("hello"));
    let held = runtime.block_on(files.index.lock());
    let waits = ask(address, "/index");
    check::expect(&directory, "waiting", "/index", "files::list");
    drop(held);
    assert!(waits.join().unwrap().ends_with("hello"));

    let reads = ask(address, "/pipe");
    check::expect(&directory, "waiting", "/pipe", "files::read_file");
    std::fs::write(&pipe, "at last").unwrap();
    assert!(reads.join().unwrap().ends_with("at last"));
    check::done(&directory);
    check::done(&root);
}

fn ask(address: SocketAddr, path: &str) -> std::thread::JoinHandle<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: files\r\nconnection: close\r\n\r\n");
    std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}
