//! Slow because of the database: too many queries, a query without an index, no free connection.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use heeler::Held;
use serde_json::json;
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqlitePool};
use tokio::sync::oneshot;

use crate::app::{Answer, App, Photo, PhotoRow};

/// `/slow/queries`: an album that asks for its photos one at a time.
pub(crate) async fn queries(State(app): State<Arc<App>>) -> Answer {
    let album: Vec<(i64,)> = sqlx::query_as("SELECT id FROM photos LIMIT 10000").fetch_all(&app.pool).await?;
    let photos = load_photos_one_by_one(&app.pool, &album, Instant::now() + app.stuck_for).await?;
    Ok(Json(json!({ "photos": photos.len(), "last": photos.last() })))
}

/// Each query takes microseconds, and there are thousands of them. A fast machine would finish too early for a tour,
/// and a slow one too late. That is why there is `until`.
async fn load_photos_one_by_one(pool: &SqlitePool, album: &[(i64,)], until: Instant) -> sqlx::Result<Vec<Photo>> {
    const BY_ID: &str = "SELECT id, file_name, camera, taken_at FROM photos WHERE id = ?";
    let mut photos = Vec::with_capacity(album.len());
    for (id,) in album.iter().cycle() {
        let photo: PhotoRow = sqlx::query_as(BY_ID).bind(id).fetch_one(pool).await?;
        photos.push(photo.into());
        if Instant::now() >= until {
            break;
        }
    }
    Ok(photos)
}

/// `/slow/index`: one query, which reads the whole table again for every row it finds.
pub(crate) async fn index(State(app): State<Arc<App>>) -> Answer {
    let shots = find_by_camera(&app.pool, "Leica M6", app.shots).await?;
    Ok(Json(json!({ "shots": shots.len(), "last": shots.last() })))
}

/// Returns the photos taken with a camera, each with the time of the shot before it by the same camera. An index on
/// `photos (camera, taken_at)` would reduce this to microseconds.
pub(crate) async fn find_by_camera(
    pool: &SqlitePool,
    camera: &str,
    limit: i64,
) -> sqlx::Result<Vec<(i64, String, Option<i64>)>> {
    const BY_CAMERA: &str = "
        SELECT id, file_name, (
            SELECT max(earlier.taken_at) FROM photos AS earlier
            WHERE earlier.camera = photos.camera AND earlier.taken_at < photos.taken_at
        )
        FROM photos WHERE camera = ? LIMIT ?
    ";
    sqlx::query_as(BY_CAMERA).bind(camera).bind(limit).fetch_all(pool).await
}

/// `/slow/pool`: a page that needs a connection while the nightly statistics hold all of them.
pub(crate) async fn pool(State(app): State<Arc<App>>) -> Answer {
    let (begin, begun) = oneshot::channel();
    let statistics = nightly_statistics(Arc::clone(&app), begin);
    tokio::spawn(heeler::watch("nightly statistics", app.stuck_for * 8, statistics));
    begun.await?;
    let mut connection = checkout_connection(&app).await?;
    let (photos,): (i64,) = sqlx::query_as("SELECT count(*) FROM photos").fetch_one(&mut **connection).await?;
    Ok(Json(json!({ "photos": photos })))
}

/// Says what it takes, so that a report says who has it.
async fn checkout_connection(app: &App) -> sqlx::Result<Held<PoolConnection<Sqlite>>> {
    heeler::acquire(&app.small_pool_resource, app.small_pool.acquire()).await
}

/// They check out every connection that is free, and keep them while they compute.
async fn nightly_statistics(app: Arc<App>, begin: oneshot::Sender<()>) {
    let mut connections = Vec::new();
    while app.small_pool.num_idle() > 0 {
        connections.extend(checkout_connection(&app).await);
    }
    // Nobody listens if the request is gone.
    let _ = begin.send(());
    tokio::time::sleep(app.stuck_for).await;
}
