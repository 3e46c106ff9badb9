//! What a request costs the server's processor with all three layers, on services as people have them: server's CPU time with
//! the layers ÷ without, in interleaved slices over loopback.
//!
//! - `cpu.hello`: axum answers with five bytes.
//! - `cpu.health`: a path with a parameter, JSON, and a header.
//! - `cpu.database`: a row is read from SQLite through sqlx, the thread of the connection included.
//!
//! Each figure is a median with its standard error. `again` is the service without layers once more, so it should be 1: what it
//! differs by is what this measurement makes of nothing. `inside` has the layers added by `Router::layer`, which puts each route
//! into a box for each of them, whatever they do: it is compared with three layers that do nothing.
//!
//! ```text
//! cargo bench -p benches --bench cpu               # a minute and a half for each service
//! cargo bench -p benches --bench cpu -- --quick
//! cargo bench -p benches --bench cpu -- --only hello
//! ```

#[path = "common/mod.rs"]
mod common;
#[path = "common/loopback.rs"]
mod loopback;

use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use common::{at_most, median, pick, plain};
use loopback::{Client, serve};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tower::Layer;
use tower::layer::util::Identity;

fn main() {
    let only = common::after("--only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|argument| argument == name));
    if wanted("hello") {
        compare("hello", 1.01, five("/", async |_| Router::new().route("/", get(async || "hello"))));
    }
    if wanted("health") {
        let app = Router::new().route("/health/{instance}", get(health));
        compare("health", 1.01, five("/health/7", async move |_| app.clone()));
    }
    if wanted("database") {
        compare("database", 1.005, five("/photos/7", database));
    }
}

async fn health(Path(instance): Path<u32>) -> ([(&'static str, &'static str); 1], Json<Value>) {
    ([("cache-control", "no-store")], Json(json!({ "status": "up", "instance": instance, "queue": 0 })))
}

/// A pool of one connection, whose thread is named after the server's.
async fn database(name: &'static str) -> Router {
    let options = SqliteConnectOptions::new().in_memory(true).thread_name(move |_| format!("{name}/sql"));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("a database");
    sqlx::query("CREATE TABLE photos (id INTEGER PRIMARY KEY, title TEXT)").execute(&pool).await.expect("a table");
    sqlx::query("INSERT INTO photos VALUES (7, 'Dusk')").execute(&pool).await.expect("a row");
    Router::new().route("/photos/{id}", get(title)).with_state(pool)
}

async fn title(Path(id): Path<i64>, State(pool): State<SqlitePool>) -> String {
    let query = sqlx::query_scalar("SELECT title FROM photos WHERE id = ?").bind(id);
    query.fetch_one(&pool).await.expect("a title")
}

/// The same service five times: alone, again, with the layers around it, inside of it, and with layers that do nothing.
fn five<A>(path: &str, app: A) -> [Client; 5]
where
    A: AsyncFn(&'static str) -> Router + Clone + Send + 'static,
{
    let limit = Duration::from_secs(25);
    let watchdog = move || heeler::WatchdogLayer::new(limit);
    let profile = || heeler::ProfileLayer::new(|_: &http::request::Parts| false);
    let timebox = move || heeler::TimeboxLayer::new(2 * limit);
    let [alone, again, around, inside, nothing] = std::array::from_fn(|_| app.clone());
    [
        serve("alone", path, async move || alone("alone").await),
        serve("again", path, async move || again("again").await),
        serve("around", path, async move || watchdog().layer(profile().layer(timebox().layer(around("around").await)))),
        serve("inside", path, async move || inside("inside").await.layer(timebox()).layer(profile()).layer(watchdog())),
        serve("nothing", path, async move || {
            nothing("nothing").await.layer(Identity::new()).layer(Identity::new()).layer(Identity::new())
        }),
    ]
}

fn compare(service: &str, goal: f64, mut servers: [Client; 5]) {
    let rates = loopback::race(&mut servers, pick(Duration::from_secs(90), Duration::from_secs(15)));
    plain(&format!("cpu.{service}.alone"), 1e6 / median(&mut rates[0].clone()), "us a request");
    // Which of the five, and beside which. CPU a request is one over the rate.
    for (at, beside) in [(1, 0), (2, 0), (3, 4)] {
        let mut ratios: Vec<f64> = rates[at].iter().zip(&rates[beside]).map(|(rate, other)| other / rate).collect();
        let ratio = median(&mut ratios);
        match servers[at].name {
            "around" => at_most(&format!("cpu.{service}.with_all_layers"), ratio, goal),
            name => plain(&format!("cpu.{service}.{name}"), ratio, "x"),
        }
        plain(&format!("cpu.{service}.{}.standard_error", servers[at].name), standard_error(&mut ratios, ratio), "");
    }
}

/// Of a median: 1.25 times that of a mean, whose standard deviation is estimated by the median deviation, so that a slice in
/// which the machine did something else does not count.
fn standard_error(ratios: &mut [f64], median_ratio: f64) -> f64 {
    let count = ratios.len() as f64;
    let mut deviations: Vec<f64> = ratios.iter().map(|ratio| (ratio - median_ratio).abs()).collect();
    1.25 * 1.48 * median(&mut deviations) / count.sqrt()
}
