//! A request that is profiled on another machine.

use crate::engines::{Bucket, Engine, Server};
use crate::service::{Client, Shared, layer, remote, serve, service, work};

/// A front end and a worker, as two machines have them.
struct Fleet {
    client: Client,
    /// Another front end.
    other: Client,
    shared: Shared,
    worker: tokio::task::JoinHandle<()>,
    _server: Server,
}

async fn fleet(engine: Engine) -> Option<Fleet> {
    let server = Server::start(engine)?;
    let shared = Shared::new();
    let app = || {
        let remote = remote(server.queue(), shared.store());
        (service(layer().remote(remote.clone()), shared.clone()), remote)
    };
    let (front, other) = (serve(app().0).await, serve(app().0).await);
    let (router, remote) = app();
    let worker = work(remote, router);
    Some(Fleet { client: Client::new(front), other: Client::new(other), shared, worker, _server: server })
}

async fn profiles(engine: Engine) {
    let Some(fleet) = fleet(engine).await else { return };
    // A client that waits gets the profile in the form that it has asked for.
    let answer = fleet.client.get("/quote?item=7&__geordi__=json").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let profile = answer.json();
    assert_eq!(profile["request"]["uri"], "/quote?item=7");
    assert_eq!(profile["request"]["route"], "/quote");
    assert_eq!(profile["response"]["status"], 200);
    assert_eq!(profile["outcome"], "finished");
    let frames = profile["frames"].to_string();
    assert!(frames.contains("fetch_prices") && frames.contains("add_up"), "{frames}");
    // A browser gets a page at once. Any front end shows it, and the result.
    let id = fleet.client.browse("/quote?item=8&__geordi__").await.id();
    assert_eq!(fleet.other.end(&id).await, "done");
    let page = fleet.other.browse(&format!("/quote?__geordi__={id}")).await.text();
    assert!(page.contains("/quote?item=8") && page.contains("fetch_prices"), "{page}");
    // Nobody else sees it, and nothing is left of the requests.
    let bob = Client::of("bob", fleet.client.address);
    assert_eq!(bob.get(&format!("/quote?__geordi__={id}.json")).await.status, 404);
    crate::common::until("the requests are removed", || fleet.shared.objects("requests").is_empty());
    fleet.worker.abort();
}

/// Guards: a request is profiled on another machine, through Redis. Any front end shows the profile to whom it belongs.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_comes_back_through_redis() {
    profiles(Engine::Redis).await;
}

/// Guards: the same through Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_comes_back_through_postgres() {
    profiles(Engine::Postgres).await;
}

/// Guards: whoever waits sees how far the request is, although another process runs it: on any front end.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_how_far_it_is() {
    let Some(fleet) = fleet(Engine::Redis).await else { return };
    // The first profile of a process reads the debug information of the whole program.
    assert_eq!(fleet.client.get("/quote?__geordi__=json").await.status, 200);
    let id = fleet.client.browse("/report?__geordi__").await.id();
    let began = std::time::Instant::now();
    let status = loop {
        let status = fleet.other.status(&id).await;
        if status["place"].is_string() {
            break status;
        }
        assert!(began.elapsed() < crate::common::PATIENCE && status["phase"] != "done", "{status}");
        tokio::time::sleep(crate::common::ms(50)).await;
    };
    assert_eq!((&status["phase"], &status["uri"]), (&"running".into(), &"/report".into()));
    assert!(status["place"].as_str().unwrap().contains("report"), "{status}");
    assert!(status["polls"].as_u64() > Some(0) && status.get("principal").is_none(), "{status}");
    assert_eq!(fleet.client.end(&id).await, "done");
    fleet.worker.abort();
}

/// Guards: with the header, the answer says at once where the profile will be. Body, headers and method arrive, and the
/// response is in the profile.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_the_header_is_answered_at_once() {
    let Some(fleet) = fleet(Engine::Redis).await else { return };
    let headers = [("x-geordi", "1"), ("content-type", "text/plain"), ("x-lang", "gr\u{fc}n")];
    let answer = fleet.client.send("POST", "/echo?a=%2F", &headers, "sent there and back".as_bytes()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.id();
    assert!(answer.headers["link"].to_str().unwrap().contains(&id));
    assert_eq!(fleet.client.end(&id).await, "done");
    let kept = fleet.client.get(&format!("/quote?__geordi__={id}.response")).await;
    assert_eq!(kept.text(), "sent there and back");
    let request = &fleet.client.profile(&id).await["request"];
    assert_eq!((&request["method"], &request["uri"]), (&"POST".into(), &"/echo?a=%2F".into()));
    assert_eq!(request["body_bytes"], 19);
    fleet.worker.abort();
}

/// Guards: the same with a bucket as the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_comes_back_through_a_bucket() {
    let (Some(server), Some(bucket)) = (Server::start(Engine::Redis), Bucket::start()) else { return };
    let (store, shared) = (bucket.store().await, Shared::new());
    let app = || {
        let remote = remote(server.queue(), store.clone());
        (service(layer().remote(remote.clone()), shared.clone()), remote)
    };
    let client = Client::new(serve(app().0).await);
    let (router, remote) = app();
    let worker = work(remote, router);
    let profile = client.get("/quote?__geordi__=json").await.json();
    assert_eq!((&profile["outcome"], &profile["response"]["status"]), (&"finished".into(), &200.into()));
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"money").await.id();
    assert_eq!(client.end(&id).await, "done");
    assert_eq!(shared.payments(), 1);
    worker.abort();
}
