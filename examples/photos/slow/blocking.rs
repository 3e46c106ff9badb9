//! Slow because a thread is held: a lock of the standard library, a regular expression, a file read over and over. All
//! but `worker` hold a thread that the runtime needs for other requests.
//!
//! Those pages wait for something else first (the database, a channel), and another thread wakes them. So tokio has the
//! other worker look after sockets and timers. If a worker went straight from a socket's event into a blocking call,
//! nobody would look after them, and the tour could not hold a second worker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use axum::Json;
use axum::extract::State;
use regress::Regex;
use serde_json::json;
use tokio::sync::oneshot;

use crate::app::{Answer, App};
use crate::seed::TAGGED_PHOTO;

/// A thumbnail by the id of its photo.
pub(crate) type ThumbnailCache = Mutex<HashMap<i64, Arc<[u8]>>>;

/// `/slow/thread-lock`: a page with a thumbnail, while all thumbnails are rebuilt.
pub(crate) async fn thread_lock(State(app): State<Arc<App>>) -> Answer {
    let (locked, rebuilding) = oneshot::channel();
    let (cache, takes) = (Arc::clone(&app.thumbnails), app.stuck_for);
    thread::Builder::new().name("thumbnails".into()).spawn(move || rebuild_thumbnails(&cache, locked, takes))?;
    rebuilding.await?;
    let thumbnail = thumbnail_cache_entry(&app.thumbnails, 1);
    Ok(Json(json!({ "bytes": thumbnail.len() })))
}

fn thumbnail_cache_entry(cache: &ThumbnailCache, photo: i64) -> Arc<[u8]> {
    cache.lock().unwrap_or_else(PoisonError::into_inner).get(&photo).cloned().unwrap_or_default()
}

/// Keeps the cache locked from the first thumbnail to the last, where a lock for each would do.
fn rebuild_thumbnails(cache: &ThumbnailCache, locked: oneshot::Sender<()>, takes: Duration) {
    let mut thumbnails = cache.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody listens if the request is gone.
    let _ = locked.send(());
    thumbnails.clear();
    for photo in 0..50 {
        // Stands in for reading and decoding an original on a network drive.
        thread::sleep(takes / 50);
        thumbnails.insert(photo, vec![0; 4096].into());
    }
}

/// `/slow/regex`: a page that checks the tags of a photo.
pub(crate) async fn regex(State(app): State<Arc<App>>) -> Answer {
    let tags: Vec<(String,)> =
        sqlx::query_as("SELECT tag FROM tags WHERE photo_id = ?").bind(TAGGED_PHOTO).fetch_all(&app.pool).await?;
    let invalid = tags.iter().filter(|(tag,)| !is_valid_tag(tag)).count();
    Ok(Json(json!({ "tags": tags.len(), "invalid": invalid })))
}

/// Returns whether a tag looks valid. The engine tries every way to split the letters before it says no, and each
/// letter doubles their number.
pub(crate) fn is_valid_tag(tag: &str) -> bool {
    static TAG: LazyLock<Regex> = LazyLock::new(|| Regex::new("^(a+)+$").expect("a constant that is a valid pattern"));
    TAG.find(tag).is_some()
}

/// `/slow/files`: an album page that needs the orientation of its photos.
pub(crate) async fn files(State(app): State<Arc<App>>) -> Answer {
    let (first,): (i64,) = sqlx::query_as("SELECT min(id) FROM photos").fetch_one(&app.pool).await?;
    let upright = reread_exif(&app.original, Instant::now() + app.stuck_for)?;
    Ok(Json(json!({ "first": first, "upright": upright })))
}

/// Reads the whole original for a few bytes at its start, and does so again for each photo of a burst that shares it.
fn reread_exif(original: &Path, until: Instant) -> io::Result<usize> {
    let mut upright = 0;
    while Instant::now() < until {
        let photo = fs::read(original)?;
        upright += usize::from(photo.get(6..10) == Some(b"Exif"));
    }
    Ok(upright)
}

/// `/slow/worker`: a page that leaves the hard work to a thread made for it. The request only waits, so only the
/// thread's stack says what it waits for.
pub(crate) async fn worker(State(app): State<Arc<App>>) -> Answer {
    let until = Instant::now() + app.stuck_for;
    let resized = heeler::spawn_blocking(move || resize_photo(3000, 2000, until)).await?;
    Ok(Json(json!({ "bytes": resized })))
}

/// Scales a grey photo down to every width that somebody might ask for, by averaging. Returns the size of the result.
fn resize_photo(width: usize, height: usize, until: Instant) -> usize {
    let original = vec![128_u8; width * height];
    let mut bytes = 0;
    for factor in (2..=32).cycle() {
        let mut resized = Vec::with_capacity((width / factor) * (height / factor));
        for row in 0..height / factor {
            // A row at a time, because a whole photo takes a debug build too long to end in time.
            if Instant::now() >= until {
                return bytes;
            }
            for column in 0..width / factor {
                let mut sum = 0_usize;
                for y in row * factor..(row + 1) * factor {
                    let start = y * width + column * factor;
                    for pixel in &original[start..start + factor] {
                        sum += usize::from(*pixel);
                    }
                }
                resized.push((sum / (factor * factor)) as u8);
            }
        }
        bytes += resized.len();
    }
    bytes
}
