//! `examples/hyper_shared.rs`: a hyper service that is not `Clone`, and bodies that cannot be made.
#![cfg(all(feature = "watchdog", feature = "timebox", feature = "profile"))]

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code, reason = "its `main` is not used")]
#[path = "../examples/hyper_shared.rs"]
mod hyper_shared;

use common::{PATIENCE, collect, place};

/// Guards: one such service handles all connections, is watched, and is profiled many times over, although a hyper body
/// cannot be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_not_clone_accept_all_layers() {
    let (seen, reports) = collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(hyper_shared::serve(listener, reports));
    // Each request over a connection of its own.
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap();
    let get = async |path: &str| {
        let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/").await, (200, "request 1\n".to_owned()));
    assert_eq!(get("/slow").await, (200, "request 2\n".to_owned()));
    let report = tokio::task::spawn_blocking(move || seen.first()).await.unwrap();
    assert_eq!((place(&report), report.request.unwrap().uri), ("wait".to_owned(), "/slow".to_owned()));
    let (status, profile) = get("/?__geordi__=20x,json").await;
    // Nobody has access in other builds.
    if cfg!(debug_assertions) {
        let profile: serde_json::Value = serde_json::from_str(&profile).unwrap();
        assert_eq!((status, &profile["runs"], &profile["outcome"]), (200, &20.into(), &"finished".into()));
        assert_eq!(get("/").await.1, "request 23\n");
    }
    server.abort();
}
