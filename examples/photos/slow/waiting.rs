//! Slow because something else takes its time: a lock, another service, a worker thread, a wake-up that never comes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use futures::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::MutexGuard;

use crate::app::{Answer, App};

/// `/slow/lock`: a page that changes the library while an import does.
pub(crate) async fn lock(State(app): State<Arc<App>>) -> Answer {
    if app.import_lock.try_lock().is_ok() {
        tokio::spawn(import_library(Arc::clone(&app)));
    }
    while app.import_lock.try_lock().is_ok() {
        // It has not begun yet.
        tokio::task::yield_now().await;
    }
    let _library = wait_for_import(&app.import_lock).await;
    Ok(Json(json!({ "renamed": true })))
}

async fn wait_for_import(lock: &tokio::sync::Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().await
}

/// `/slow/import`: an import, which keeps the library locked from its first photo to its last.
pub(crate) async fn import(State(app): State<Arc<App>>) -> Answer {
    import_library(app).await?;
    Ok(Json(json!({ "imported": 1 })))
}

async fn import_library(app: Arc<App>) -> reqwest::Result<()> {
    let _library = app.import_lock.lock().await;
    fetch_original(&app.http, app.upstream).await
}

async fn fetch_original(http: &reqwest::Client, upstream: SocketAddr) -> reqwest::Result<()> {
    http.get(format!("http://{upstream}/originals/1")).send().await?.bytes().await.map(drop)
}

/// `/slow/upstream` and `/slow/gone`: a page that shows the place of a photo.
pub(crate) async fn geocode(State(app): State<Arc<App>>) -> Answer {
    let place = fetch_geocode(&app.http, app.upstream).await?;
    Ok(Json(serde_json::from_str(&place)?))
}

/// Asks another company, which has promised to answer within 50 ms, and does not today.
async fn fetch_geocode(http: &reqwest::Client, upstream: SocketAddr) -> reqwest::Result<String> {
    http.get(format!("http://{upstream}/reverse?lat=64.1&lon=-21.9")).send().await?.text().await
}

/// `/slow/starved`: a page that does nothing wrong. It gathers news for a moment, and then answers, if a worker is free
/// to do that.
pub(crate) async fn new_photos(State(app): State<Arc<App>>) -> Answer {
    let _listening = Listening::new(&app.listeners);
    tokio::time::sleep(app.threshold * 3 / 4).await;
    Ok(Json(json!({ "photos": [] })))
}

/// One more listener, until dropped.
struct Listening<'a>(&'a AtomicUsize);

impl<'a> Listening<'a> {
    fn new(listeners: &'a AtomicUsize) -> Self {
        listeners.fetch_add(1, Ordering::Relaxed);
        Self(listeners)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `/slow/body`: a download which answers at once, and stalls half way.
pub(crate) async fn archive(State(app): State<Arc<App>>) -> impl IntoResponse {
    let archive = Archive { next: 0, cold_storage: app.upstream };
    ([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(stream::try_unfold(archive, export_archive)))
}

struct Archive {
    next: usize,
    cold_storage: SocketAddr,
}

impl Archive {
    const PHOTOS: usize = 8;
    const IN_COLD_STORAGE: usize = 4;
}

/// Returns the next photo of the archive. Old ones come from a store that is cheap and slow.
async fn export_archive(mut archive: Archive) -> io::Result<Option<(Bytes, Archive)>> {
    if archive.next == Archive::PHOTOS {
        return Ok(None);
    }
    let photo = if archive.next == Archive::IN_COLD_STORAGE {
        let mut storage = TcpStream::connect(archive.cold_storage).await?;
        storage.write_all(b"GET /IMG_0000001.jpg HTTP/1.1\r\nhost: storage\r\n\r\n").await?;
        let mut photo = Vec::new();
        storage.read_to_end(&mut photo).await?;
        photo.into()
    } else {
        Bytes::from_static(&[0; 16 * 1024])
    };
    archive.next += 1;
    Ok(Some((photo, archive)))
}

/// `/slow/forgotten`: a page that waits for an import, and is never told that it ended.
pub(crate) async fn forgotten(State(app): State<Arc<App>>) -> Answer {
    let finished = Arc::new(Finished::default());
    tokio::spawn(import_photos(Arc::clone(&finished), 7, app.stuck_for));
    let photos = forgotten_wakeup(&finished, 7).await;
    Ok(Json(json!({ "imported": photos })))
}

/// Imports that are over, by name, and how many photos each has brought in.
type Finished = Mutex<HashMap<String, Value>>;

async fn import_photos(finished: Arc<Finished>, import: u32, takes: Duration) {
    tokio::time::sleep(takes).await;
    // It would wake the one who waits for this, if anybody had left a waker.
    finished.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("import-{import}"), json!(128));
}

/// A future written by hand, with the mistake that everybody makes once: it says "not yet" and keeps no waker, so
/// nobody asks again. Only a chance poll or the client that gives up can end it.
async fn forgotten_wakeup(finished: &Finished, import: u32) -> Value {
    poll_fn(|_context| {
        let name = format!("import-{import}");
        match finished.lock().unwrap_or_else(PoisonError::into_inner).remove(&name) {
            Some(photos) => Poll::Ready(photos),
            None => Poll::Pending,
        }
    })
    .await
}
