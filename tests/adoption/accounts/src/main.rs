//! Accounts in Postgres: axum and sqlx, on all cores.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Captured, State};
use axum::routing::{get, post};
use heeler::{ProfileLayer, Reports, SpanLayer, TimeboxLayer, WatchdogLayer, authorize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing_subscriber::prelude::*;

const CONNECTIONS: u32 = 2;
const TOKEN: &str = "an-administrators-token-of-32-characters";

async fn balance(State(pool): State<PgPool>, Captured(id): Captured<i32>) -> String {
    load_balance(&pool, id).await.map_or_else(|error| error.to_string(), |cents| cents.to_string())
}

async fn load_balance(pool: &PgPool, id: i32) -> sqlx::Result<i64> {
    let mut connection = pool.acquire().await?;
    sqlx::query_scalar("SELECT cents FROM accounts WHERE id = $1").bind(id).fetch_one(&mut *connection).await
}

/// A query that the database takes its time for.
async fn history(State(pool): State<PgPool>) -> &'static str {
    load_history(&pool).await.map_or("failed", |()| "done")
}

async fn load_history(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_sleep(2)").execute(pool).await?;
    Ok(())
}

/// A row that another transaction holds.
async fn deposit(State(pool): State<PgPool>, Captured(id): Captured<i32>) -> &'static str {
    add_to_balance(&pool, id).await.map_or("failed", |()| "done")
}

async fn add_to_balance(pool: &PgPool, id: i32) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query("UPDATE accounts SET cents = cents + 1 WHERE id = $1").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Statements of all accounts, made on the worker.
async fn statements() -> String {
    render_statements()
}

fn render_statements() -> String {
    let began = std::time::Instant::now();
    let mut digest = 7_u64;
    while began.elapsed() < Duration::from_secs(2) {
        digest = (0..10_000).fold(digest, |digest, n| std::hint::black_box(digest.rotate_left(5) ^ n));
    }
    digest.to_string()
}

async fn connect(url: &str) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(Duration::from_secs(20));
    let pool = pool.connect(url).await.expect("a database");
    sqlx::query("CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, cents bigint)").execute(&pool).await.unwrap();
    sqlx::query("INSERT INTO accounts VALUES (1, 100) ON CONFLICT DO NOTHING").execute(&pool).await.unwrap();
    pool
}

fn app(pool: PgPool, directory: &Path) -> Router {
    let reports = Reports::builder().directory(directory).repeat_after(Duration::ZERO).build().expect("reports");
    Router::new()
        .route("/balance/{id}", get(balance))
        .route("/history", get(history))
        .route("/deposit/{id}", post(deposit))
        .route("/statements", get(statements))
        .with_state(pool)
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .layer(TimeboxLayer::new(Duration::from_secs(10)).reports(reports.clone()))
        .layer(ProfileLayer::new(authorize::bearer(TOKEN).expect("a long token")))
        .layer(WatchdogLayer::new(Duration::from_millis(300)).reports(reports))
}

#[tokio::main]
async fn main() {
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(SpanLayer::new()).init();
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL");
    let (pool, directory) = (connect(&url).await, check::directory("accounts"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app(pool.clone(), &directory)).into_future());
    ask_for_everything(address, &pool, &directory).await;
    check::done(&directory);
}

async fn ask_for_everything(address: SocketAddr, pool: &PgPool, directory: &Path) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |path: &str| {
        let request = client.get(format!("http://{address}{path}"));
        tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() })
    };
    let expect = |verdict: &'static str, uri: &'static str, function: &'static str| {
        let directory = directory.to_owned();
        async move { tokio::task::spawn_blocking(move || check::expect(&directory, verdict, uri, function)).await.unwrap() }
    };
    assert!(ask("/balance/1").await.unwrap().parse::<i64>().is_ok());

    let slow = ask("/history");
    let report = expect("waiting", "/history", "accounts::load_history").await;
    assert_eq!(report["spans"][0]["name"], "request", "the span of tower-http: {report}");
    assert_eq!(slow.await.unwrap(), "done");

    // Others hold all connections.
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let waits = ask("/balance/1");
    expect("waiting", "/balance/1", "accounts::load_balance").await;
    drop(held);
    waits.await.unwrap();

    let mut holder = pool.begin().await.unwrap();
    sqlx::query("UPDATE accounts SET cents = 0 WHERE id = 1").execute(&mut *holder).await.unwrap();
    let request = client.post(format!("http://{address}/deposit/1"));
    let deposit = tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() });
    expect("waiting", "/deposit/1", "accounts::add_to_balance").await;
    holder.commit().await.unwrap();
    assert_eq!(deposit.await.unwrap(), "done");

    let profiled = client.get(format!("http://{address}/history?__geordi__=json")).bearer_auth(TOKEN);
    let profile = profiled.send().await.unwrap().text().await.unwrap();
    assert!(profile.contains("accounts::load_history"), "{profile}");

    let computes = ask("/statements");
    expect("blocking", "/statements", "accounts::render_statements").await;
    computes.await.unwrap();
}
