//! The service: its state, its routes, and the pages that are fast.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::SqlitePool;

use crate::seed::{self, Library};
use crate::settings::Settings;
use crate::slow::blocking::{self, ThumbnailCache};
use crate::slow::{database, waiting};
use crate::tour::CAUSES;
use crate::{Problem, calibrate, upstream};

/// What every request can reach.
pub(crate) struct App {
    pub(crate) pool: SqlitePool,
    pub(crate) small_pool: SqlitePool,
    /// Tells heeler who holds its connections.
    pub(crate) small_pool_resource: heeler::Resource,
    pub(crate) original: PathBuf,
    pub(crate) thumbnails: Arc<ThumbnailCache>,
    /// Held by an import while it changes the library.
    pub(crate) import_lock: Arc<tokio::sync::Mutex<()>>,
    pub(crate) http: reqwest::Client,
    /// Where places are looked up and old originals are kept.
    pub(crate) upstream: SocketAddr,
    /// Requests that wait for new photos.
    pub(crate) listeners: AtomicUsize,
    pub(crate) threshold: Duration,
    /// How long something slow lasts.
    pub(crate) stuck_for: Duration,
    /// How many shots make `find_by_camera` slow.
    pub(crate) shots: i64,
}

impl App {
    pub(crate) async fn start(library: Library, settings: &Settings) -> Result<Arc<Self>, Problem> {
        let Library { pool, small_pool, original } = library;
        let stuck_for = settings.stuck_for();
        let shots = calibrate::shots(&pool, settings.threshold * 6).await?;
        let tag = calibrate::tag(settings.threshold * 6);
        seed::add_tags(&pool, seed::TAGGED_PHOTO, &["aaa", &tag]).await?;
        Ok(Arc::new(Self {
            pool,
            small_pool_resource: resource_of("small pool", &small_pool),
            small_pool,
            original,
            thumbnails: Arc::default(),
            import_lock: Arc::default(),
            // No timeout: reqwest has none unless told, which is how `fetch_geocode` gets stuck.
            http: reqwest::Client::builder().no_proxy().build()?,
            upstream: upstream::start(stuck_for)?,
            listeners: AtomicUsize::new(0),
            threshold: settings.threshold,
            stuck_for,
            shots,
        }))
    }
}

/// Tells heeler who holds a pool's connections, and how many of them are in use.
fn resource_of(name: &'static str, pool: &SqlitePool) -> heeler::Resource {
    let (size, pool) = (pool.options().get_max_connections(), pool.clone());
    let in_use = move || pool.size().saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
    heeler::Resource::new(name).permits(size).usage(move || heeler::Usage::new(in_use(), size))
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(start_page))
        .route("/status", get(status))
        .route("/admin/{token}", get(admin))
        .route("/users/{id}/photos", get(photos_of_user))
        .route("/slow/queries", get(database::queries))
        .route("/slow/index", get(database::index))
        .route("/slow/pool", get(database::pool))
        .route("/slow/lock", get(waiting::lock))
        .route("/slow/import", get(waiting::import))
        .route("/slow/thread-lock", get(blocking::thread_lock))
        .route("/slow/regex", get(blocking::regex))
        .route("/slow/files", get(blocking::files))
        .route("/slow/upstream", get(waiting::geocode))
        .route("/slow/worker", get(blocking::worker))
        .route("/slow/starved", get(waiting::new_photos))
        .route("/slow/body", get(waiting::archive))
        .route("/slow/forgotten", get(waiting::forgotten))
        // The same page. Here the client makes the difference.
        .route("/slow/gone", get(waiting::geocode))
        .with_state(app)
}

/// A page's answer.
pub(crate) type Answer = Result<Json<Value>, Failure>;

/// Anything that went wrong in a page: a 500 with the reason.
pub(crate) struct Failure(Problem);

impl<E: Into<Problem>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", self.0)).into_response()
    }
}

#[derive(Serialize)]
pub(crate) struct Photo {
    pub(crate) id: i64,
    pub(crate) file_name: String,
    pub(crate) camera: String,
    pub(crate) taken_at: i64,
}

/// A row of `SELECT id, file_name, camera, taken_at`.
pub(crate) type PhotoRow = (i64, String, String, i64);

impl From<PhotoRow> for Photo {
    fn from((id, file_name, camera, taken_at): PhotoRow) -> Self {
        Self { id, file_name, camera, taken_at }
    }
}

async fn start_page() -> Html<String> {
    let slow: String =
        CAUSES.iter().map(|cause| format!("<li><a href=\"{0}\">{0}</a>: {1}</li>\n", cause.path, cause.what)).collect();
    Html(format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>photos</title>\n<h1>photos</h1>\n\
         <p>Fast: <a href=\"/users/1/photos\">the photos of a user</a>, <a href=\"/status\">status</a>.</p>\n\
         <p>Slow, each for a reason of its own:</p>\n<ul>\n{slow}</ul>\n\
         <p>Any of them is stopped in time on request: <a href=\"/slow/queries?timebox=100\">/slow/queries?timebox=100</a>.</p>\n\
         <p>For administrators, where it spends its time: <a href=\"/slow/queries?__geordi__\">/slow/queries?__geordi__</a>.</p>\n"
    ))
}

/// Puts the token where the browser will send it along. It is checked where it is used. Behind TLS the cookie would be
/// `Secure`, too.
async fn admin(Path(token): Path<String>) -> impl IntoResponse {
    let token: String = token.chars().filter(char::is_ascii_alphanumeric).collect();
    let cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", heeler::authorize::DEFAULT_COOKIE);
    (StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, "/".to_owned())])
}

async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    let imports = usize::from(app.import_lock.try_lock().is_err());
    Json(json!({ "listeners": app.listeners.load(Ordering::Relaxed), "imports": imports }))
}

async fn photos_of_user(State(app): State<Arc<App>>, Path(user): Path<i64>) -> Result<Json<Vec<Photo>>, Failure> {
    const OF_USER: &str =
        "SELECT id, file_name, camera, taken_at FROM photos WHERE user_id = ? ORDER BY id DESC LIMIT 100";
    let rows: Vec<PhotoRow> = sqlx::query_as(OF_USER).bind(user).fetch_all(&app.pool).await?;
    Ok(Json(rows.into_iter().map(Photo::from).collect()))
}
