//! What can go wrong between the machines: servers that are down, stores that fail, requests that were altered or put back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heeler::ProfileLayer;
use heeler::authorize::Access;
use heeler::profile::ProfileStore;
use heeler::profile::remote::{JobQueue, Remote, Secret, Worker};
use http::request::Parts;

use crate::common::ms;
use crate::engines::{Engine, Server};
use crate::service::{Client, LOST_AFTER, SECRET, Shared, layer, remote, serve, service, work};
use crate::store::{Meddled, Meddling, Operation, When};

/// What a front end and a worker have: the same, each for itself.
fn app(server: &Server, shared: &Shared) -> (Remote, axum::Router) {
    let remote = remote(server.queue(), shared.store());
    (remote.clone(), service(layer().remote(remote), shared.clone()))
}

/// A queue that nobody answers for.
fn dead_queue() -> JobQueue {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    JobQueue::redis(&format!("redis://:secret-word@127.0.0.1:{port}/")).unwrap()
}

fn puts_request(step: &crate::store::Step<'_>) -> bool {
    (step.operation, step.kind) == (Operation::Put, "requests")
}

/// Guards: if the queue or the store fails, is slow or full, the asker is told soon, and when to try again. No request
/// hangs, and none runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_soon() {
    type Meddle = fn(&crate::store::Step<'_>) -> Meddling;
    let cases: [(&str, Meddle, &str); 4] = [
        ("queue down", |_| Meddling::Nothing, "The queue of profiles cannot be reached."),
        (
            "store full",
            |step| if puts_request(step) { Meddling::Fail } else { Meddling::Nothing },
            "The store of profiles cannot write.",
        ),
        (
            "store slow",
            |step| if puts_request(step) { Meddling::Wait(Duration::from_secs(60)) } else { Meddling::Nothing },
            "The store of profiles takes too long.",
        ),
        ("store down", |_| Meddling::Fail, "The store of profiles cannot write."),
    ];
    let run = async |(what, meddle, expected): (&str, Meddle, &str)| {
        let shared = Shared::new();
        let remote = remote(dead_queue(), Meddled::new(shared.store(), meddle));
        assert!(!format!("{remote:?}").contains("secret-word") && !format!("{remote:?}").contains(SECRET));
        let client = Client::new(serve(service(layer().remote(remote), shared.clone())).await);
        let began = Instant::now();
        let (form, page, header) = tokio::join!(
            client.get("/quote?__geordi__=json"),
            client.browse("/quote?__geordi__"),
            client.send("POST", "/pay", &[("x-geordi", "1")], b"money"),
        );
        for answer in [form, page, header] {
            assert_eq!(answer.status, 503, "{what}: {}", answer.text());
            assert!(answer.headers.contains_key("retry-after"), "{what}");
            assert!(answer.text().contains(expected), "{what}: {}", answer.text());
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: {:?}", began.elapsed());
        assert_eq!(shared.payments(), 0, "{what}");
        // Without the flag, all is as ever.
        assert_eq!(client.get("/quote").await.status, 200, "{what}");
    };
    futures::future::join_all(cases.map(run)).await;
}

/// Guards: a request with a body that is too long is refused, and one more than may wait, too.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_kept() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let remote = remote(server.queue(), shared.store()).max_queued(2).max_request_bytes(100);
    let client = Client::new(serve(service(layer().remote(remote), shared.clone())).await);
    let header = [("x-geordi", "1")];
    assert_eq!(client.send("POST", "/echo", &header, &[1; 101]).await.status, 413);
    for _ in 0..2 {
        assert_eq!(client.send("POST", "/echo", &header, &[1; 100]).await.status, 202);
    }
    let answer = client.send("POST", "/echo", &header, b"").await;
    assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (429, true));
}

/// Guards: the profile waits for a worker, and says so. Whoever cancels it then has nothing run.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_can_be_cancelled() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    let page = client.browse(&format!("/quote?__geordi__={id}")).await.text();
    assert!(page.contains("Waiting for a worker"), "{page}");
    let cancel = client.send("POST", &format!("/quote?__geordi__={id}.cancel"), &[], b"").await;
    assert_eq!(cancel.status, 202, "{}", cancel.text());
    assert_eq!(client.end(&id).await, "cancelled");
    let (remote, router) = app();
    let worker = work(remote, router);
    // What comes later runs, so the worker has seen the cancelled one.
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    assert_eq!(shared.payments(), 0);
    worker.abort();
}

/// Guards: what is sent is due at once, whatever the time is by the clock of whoever sends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_delays_nothing() {
    for engine in [Engine::Redis, Engine::Postgres] {
        let Some(server) = Server::start(engine) else { continue };
        let shared = Shared::new();
        let client = Client::new(serve(app(&server, &shared).1).await);
        client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
        let due_for = match engine {
            Engine::Redis => {
                let mut redis = apalis_redis::connect(server.url()).await.unwrap();
                let mut all = redis::cmd("ZRANGE");
                all.arg("heeler-profiles:scheduled").arg(0).arg(-1).arg("WITHSCORES");
                let all: Vec<(String, f64)> = all.query_async(&mut redis).await.unwrap();
                assert_eq!(all.len(), 1, "{all:?}");
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
                now - all[0].1
            }
            Engine::Postgres => {
                let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
                let due = "SELECT extract(epoch FROM now() - run_at)::float8 FROM apalis.jobs";
                sqlx::query_scalar::<_, f64>(due).fetch_one(&pool).await.unwrap()
            }
        };
        assert!(due_for > 300.0, "due for {due_for} s");
    }
}

/// Guards: a client that waits and goes away cancels its profile.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let client =
        Client::new(serve(service(layer().remote(remote(server.queue(), shared.store())), shared.clone())).await);
    let id = leaves(&client, &shared, "/report?__geordi__=json", "sent").await;
    assert_eq!(client.end(&id).await, "cancelled");
    assert!(shared.objects("requests").is_empty());
    // Also when a worker has it.
    let at_worker = remote(server.queue(), shared.store());
    let worker = work(at_worker.clone(), service(layer().remote(at_worker), shared.clone()));
    std::fs::remove_dir_all(shared.path().join("p/statuses")).unwrap();
    let id = leaves(&client, &shared, "/forever?__geordi__=json", "running").await;
    assert_eq!(client.end(&id).await, "done");
    assert_eq!(client.profile(&id).await["outcome"], "cancelled");
    worker.abort();
}

/// Asks for a profile, and goes away when it is that far. Returns its id.
async fn leaves(client: &Client, shared: &Shared, path: &str, phase: &str) -> String {
    let far = async {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < crate::common::PATIENCE, "it is never {phase}");
            tokio::time::sleep(ms(20)).await;
            if shared.objects("statuses").is_empty() || shared.objects("requests").is_empty() {
                continue;
            }
            let id = the_only_job(shared);
            let now = client.status(&id).await["phase"].clone();
            if now == phase || now.get(phase).is_some() {
                return id;
            }
        }
    };
    tokio::select! {
        answer = client.get(path) => panic!("it does not wait: {}", answer.text()),
        id = far => id,
    }
}

/// The id of the job that has a status.
fn the_only_job(shared: &Shared) -> String {
    let [name] = &shared.objects("statuses")[..] else { panic!("{:?}", shared.objects("statuses")) };
    name.trim_end_matches(".json").to_owned()
}

/// Guards: when the asker has been told that no worker has taken it, none will.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_taken_does_not_run_later() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || {
        let remote = remote(server.queue(), shared.store()).max_wait(Duration::from_secs(10));
        (remote.clone(), service(layer().remote(remote), shared.clone()))
    };
    let client = Client::new(serve(app().1).await);
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    let phase = client.end(&id).await;
    assert_eq!(phase["failed"], "no worker has taken it within 10.0 s");
    assert!(shared.objects("requests").is_empty());
    let (remote, router) = app();
    let worker = work(remote, router);
    // What comes later runs, so the worker has seen it.
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    assert_eq!((client.end(&id).await, shared.payments()), (phase, 0));
    worker.abort();
}

/// Guards: an altered request does not run. The asker is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_request_does_not_run() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    let path = shared.path().join("p/requests").join(format!("{id}.sealed"));
    let mut sealed = std::fs::read(&path).unwrap();
    for word in ["ada", "/pay", "x-geordi"] {
        assert!(!sealed.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "{word} can be read");
    }
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    std::fs::write(&path, sealed).unwrap();
    let (remote, router) = app();
    let worker = work(remote, router);
    let phase = client.end(&id).await;
    assert_eq!(phase["failed"], "its sealed request was refused: it was altered, or belongs elsewhere");
    assert_eq!(shared.payments(), 0);
    worker.abort();
}

/// Guards: a request that was copied, and is put back into store and queue when it is over, does not run again: neither one that
/// may run twice if its worker is killed, nor one that was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_put_back_does_not_run_again() {
    for (method, path, is_cancelled) in [("POST", "/pay", false), ("GET", "/visit", false), ("GET", "/visit", true)] {
        put_back(method, path, is_cancelled).await;
    }
}

async fn put_back(method: &str, path: &str, is_cancelled: bool) {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let id = client.send(method, path, &[("x-geordi", "1")], b"").await.id();
    let folder = shared.path().join("p");
    let (request, status) =
        (folder.join("requests").join(format!("{id}.sealed")), folder.join("statuses").join(format!("{id}.json")));
    let copies = (std::fs::read(&request).unwrap(), std::fs::read(&status).unwrap());
    if is_cancelled {
        let cancel = client.send("POST", &format!("/quote?__geordi__={id}.cancel"), &[], b"").await;
        assert_eq!(cancel.status, 202, "{}", cancel.text());
    }
    let (remote, router) = app();
    let worker = work(remote, router);
    assert_eq!(client.end(&id).await, if is_cancelled { "cancelled" } else { "done" });
    let runs = usize::from(!is_cancelled);
    assert_eq!(shared.payments(), runs);
    crate::common::until("the request is removed", || !request.exists());
    for kind in ["profiles", "summaries"].map(|kind| folder.join(kind)).iter().filter(|kind| kind.exists()) {
        std::fs::remove_dir_all(kind).unwrap();
    }
    std::fs::write(&status, copies.1).unwrap();
    std::fs::write(&request, copies.0).unwrap();
    push(&server, &id).await;
    crate::common::until("it is refused", || !request.exists());
    assert_eq!(shared.payments(), runs, "{method} {path}");
    worker.abort();
}

/// Puts an id into the queue, as somebody could who has access to it.
async fn push(server: &Server, id: &str) {
    use apalis_core::backend::TaskSink as _;
    let connection = apalis_redis::connect(server.url()).await.unwrap();
    let config = apalis_redis::Config::default().queue("heeler-profiles");
    let mut storage = apalis_redis::RedisStorage::<String>::new(connection).with_config(config);
    storage.push(id.to_owned()).await.unwrap();
}

/// Guards: an id that comes twice runs once, and what is no id is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_twice_runs_once() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    push(&server, "../../etc/passwd").await;
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    for _ in 0..3 {
        push(&server, &id).await;
    }
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (remote, router) = app();
            work(remote, router)
        })
        .collect();
    assert_eq!(client.end(&id).await, "done");
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    tokio::time::sleep(LOST_AFTER).await;
    assert_eq!(shared.payments(), 1);
    workers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Guards: whoever may no longer profile when the worker gets to it is refused by the worker's own service, and so is a
/// request that a layer in front of the profiler answers.
#[tokio::test(flavor = "multi_thread")]
async fn the_workers_service_decides_for_itself() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let asks = || client.send("POST", "/pay", &[("x-geordi", "1")], b"");
    let (id, other) = (asks().await.id(), asks().await.id());
    let (remote, _) = app();
    let revoked = ProfileLayer::new(|_: &Parts| Access::allowed_as("somebody else")).remote(remote.clone());
    let worker = work(remote.clone(), service(revoked, shared.clone()));
    for id in [id, other] {
        let phase = client.end(&id).await;
        assert_eq!(phase["failed"], "the worker's service does not allow its sender to profile");
    }
    worker.abort();
    let _ = worker.await;
    // Another worker: its service never comes to the profiler.
    let gate = axum::middleware::from_fn(async |_: axum::extract::Request, _| http::StatusCode::UNAUTHORIZED);
    let worker = work(remote, app().1.layer(gate));
    let phase = client.end(&asks().await.id()).await;
    assert_eq!(phase["failed"], "the worker's service answered 401 before the request came to its profiler");
    assert_eq!(shared.payments(), 0);
    worker.abort();
}

/// Guards: a layer around the profiler that gives up does not end the job, and the worker waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_around_the_profiler_changes_nothing() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || {
        let remote = remote(server.queue(), shared.store());
        let short = tower_http::timeout::TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, ms(300));
        (remote.clone(), service(layer().remote(remote), shared.clone()).layer(short))
    };
    let client = Client::new(serve(app().1).await);
    let id = client.browse("/report?__geordi__").await.id();
    let (remote, router) = app();
    let worker = work(remote, router);
    assert_eq!(client.end(&id).await, "done");
    assert_eq!(client.profile(&id).await["response"]["status"], 200);
    worker.abort();
}

/// Guards: a worker that is told to stop ends what it runs, and takes nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_ends_what_it_runs() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (remote, router) = app();
    let worker = tokio::spawn(Worker::new(remote).serve_until(router, async { _ = stopped.await }));
    let id = client.browse("/report?__geordi__").await.id();
    while client.status(&id).await["phase"] != "running" {
        tokio::time::sleep(ms(50)).await;
    }
    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
    assert_eq!(client.status(&id).await["phase"], "done");
}

/// Guards: a worker with another secret leaves jobs to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_secret_leaves_jobs_to_others() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let right = || remote(server.queue(), shared.store());
    let client = Client::new(serve(service(layer().remote(right()), shared.clone())).await);
    let wrong = Secret::from_bytes(&(0..32).collect::<Vec<u8>>()).unwrap();
    let wrong = Remote::new(server.queue(), ProfileStore::object_store(shared.store(), "p"), wrong).unwrap();
    let first = work(wrong.clone(), service(layer().remote(wrong), shared.clone()));
    let id = client.browse("/quote?__geordi__").await.id();
    // Time for the first one to try.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let right = right();
    let second = work(right.clone(), service(layer().remote(right), shared.clone()));
    assert_eq!(client.end(&id).await, "done");
    first.abort();
    second.abort();
}

/// Guards: a worker whose profiler does not share the store, or whose layers remove what says that a request was sent, does not
/// run it, and says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_set_up_wrong_says_so() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let remote = || remote(server.queue(), shared.store());
    let client = Client::new(serve(service(layer().remote(remote()), shared.clone())).await);
    let forgetful =
        axum::middleware::from_fn(async |mut request: axum::extract::Request, next: axum::middleware::Next| {
            request.extensions_mut().clear();
            next.run(request).await
        });
    let right = remote();
    for (remote, router, expected) in [
        (remote(), service(layer(), shared.clone()), "the worker's profiler has another store"),
        (
            right.clone(),
            service(layer().remote(right), shared.clone()).layer(forgetful),
            "the worker's service answered 508",
        ),
    ] {
        let worker = work(remote, router);
        let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
        let phase = client.end(&id).await;
        assert!(phase["failed"].as_str().is_some_and(|why| why.starts_with(expected)), "{phase}");
        worker.abort();
        let _ = worker.await;
    }
    assert_eq!(shared.payments(), 0);
}

/// Guards: a store that ignores or rejects conditions is refused by front ends and workers, and a store in memory at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditions_is_refused() {
    let secret = || Secret::from_base64(SECRET).unwrap();
    assert!(Remote::new(dead_queue(), ProfileStore::memory(), secret()).unwrap_err().is_config());
    let meddlings: [fn() -> Meddling; 3] = [|| Meddling::IgnoreCondition, || Meddling::Unsupported, || Meddling::Fail];
    for meddling in meddlings {
        let shared = Shared::new();
        let heedless =
            Meddled::new(shared.store(), move |step| if step.is_conditional { meddling() } else { Meddling::Nothing });
        let remote = remote(dead_queue(), heedless);
        let router = service(layer().remote(remote.clone()), shared.clone());
        let answer = Client::new(serve(router.clone()).await).get("/quote?__geordi__").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("does not support conditional writes"), "{}", answer.text());
        assert!(Worker::new(remote).serve(router).await.unwrap_err().is_config());
    }
}

/// Guards: whoever looks how far a profile is, or cancels it, is not kept waiting by a store that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_keeps_nobody_waiting() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let hangs = Arc::new(AtomicBool::new(false));
    let store = {
        let hangs = Arc::clone(&hangs);
        Meddled::new(shared.store(), move |_| {
            if hangs.load(Ordering::Relaxed) { Meddling::Wait(Duration::from_secs(600)) } else { Meddling::Nothing }
        })
    };
    let client = Client::new(serve(service(layer().remote(remote(server.queue(), store)), shared.clone())).await);
    let id = client.browse("/quote?__geordi__").await.id();
    hangs.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let path = |what: &str| format!("/quote?__geordi__={what}");
    let (status, page, form, index, cancel) = (
        path(&format!("{id}.status")),
        path(&id),
        path(&format!("{id}.json")),
        path("index"),
        path(&format!("{id}.cancel")),
    );
    let (status, page, form, index, cancel) = tokio::join!(
        client.get(&status),
        client.browse(&page),
        client.get(&form),
        client.get(&index),
        client.send("POST", &cancel, &[], b""),
    );
    for answer in [status, page, form, index, cancel] {
        assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{}", answer.text());
        assert!(answer.text().contains("cannot answer in time"), "{}", answer.text());
    }
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

/// Guards: a request that may be in the store although the store says that it is not does not stay there.
#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_fails_leaves_nothing() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let store = Meddled::new(shared.store(), |step| match (step.operation, step.when, step.kind) {
        (Operation::Put, When::After, "requests") => Meddling::Fail,
        _ => Meddling::Nothing,
    });
    let client = Client::new(serve(service(layer().remote(remote(server.queue(), store)), shared.clone())).await);
    let answer = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    crate::common::until("nothing is left", || shared.objects("requests").is_empty());
    let id = the_only_job(&shared);
    let phase = client.end(&id).await;
    assert_eq!(phase["failed"], "the store of profiles could not be reached");
}

/// Guards: limits without an end are none.
#[tokio::test(flavor = "multi_thread")]
async fn limits_may_be_endless() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let remote = remote(server.queue(), shared.store()).lost_after(Duration::MAX).max_wait(Duration::MAX);
    let router = service(layer().timeout(Duration::MAX).remote(remote.clone()), shared.clone());
    let client = Client::new(serve(router.clone()).await);
    let worker = work(remote, router);
    let answer = client.get("/quote?__geordi__=json").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    worker.abort();
}

/// Guards: what the worker's service says when it fails is shown without secrets, and in few words.
#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_a_service_that_fails_are_few() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let remote = || remote(server.queue(), shared.store());
    let client = Client::new(serve(service(layer().remote(remote()), shared.clone())).await);
    let fails = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
        let words = format!("cannot connect to postgres://app:hunter2@db/photos{}", " again".repeat(100_000));
        Err::<http::Response<String>, _>(words)
    });
    let worker = tokio::spawn(Worker::new(remote()).serve(fails));
    let phase = client.end(&client.browse("/quote?__geordi__").await.id()).await;
    let why = phase["failed"].as_str().unwrap();
    assert!(why.contains("cannot connect") && !why.contains("hunter2") && why.len() < 1_000, "{why}");
    worker.abort();
}

/// Guards: what a worker has taken waits for its turn there, whatever the layer admits of its own clients.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_has_taken_waits_for_its_turn() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let remote = remote(server.queue(), shared.store());
    let router = service(layer().max_queued(0).remote(remote.clone()), shared.clone());
    let client = Client::new(serve(router.clone()).await);
    let worker = tokio::spawn(Worker::new(remote).max_concurrent(4).serve(router));
    let ask = || client.get("/quote?__geordi__=json");
    let (one, two, three, four) = tokio::join!(ask(), ask(), ask(), ask());
    for answer in [one, two, three, four] {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    worker.abort();
}

/// Guards: a profile that cannot be read ends its job, and does not hold the worker up.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_cannot_be_read_is_the_end() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let app = || app(&server, &shared);
    let client = Client::new(serve(app().1).await);
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    let profiles = shared.path().join("p/profiles");
    std::fs::create_dir_all(&profiles).unwrap();
    let junk = profiles.join(format!("{id}.json.gz"));
    std::fs::write(&junk, b"junk").unwrap();
    let (remote, router) = app();
    let worker = work(remote, router);
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    std::fs::remove_file(&junk).unwrap();
    let phase = client.end(&id).await;
    assert!(phase["failed"].as_str().is_some_and(|why| why.contains("is corrupt")), "{phase}");
    assert_eq!(shared.payments(), 0);
    worker.abort();
}

/// Guards: a worker that brings a profile to a slow store is not taken for gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_takes_long_to_store_is_awaited() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let slow = Meddled::new(shared.store(), |step| match (step.operation, step.when, step.kind) {
        (Operation::Put, When::Before, "profiles") => Meddling::Wait(4 * LOST_AFTER),
        _ => Meddling::Nothing,
    });
    let client =
        Client::new(serve(service(layer().remote(remote(server.queue(), shared.store())), shared.clone())).await);
    let at_worker = remote(server.queue(), slow);
    let worker = work(at_worker.clone(), service(layer().remote(at_worker), shared.clone()));
    let answer = client.send("POST", "/pay?__geordi__=json", &[], b"").await;
    assert_eq!((answer.status, shared.payments()), (200, 1), "{}", answer.text());
    worker.abort();
}

/// Whether a store fails, and how often it has.
struct Failing(AtomicBool, AtomicUsize);

/// Returns the store of a worker, which can be made to fail.
fn failing(shared: &Shared) -> (Arc<Meddled>, Arc<Failing>) {
    let failing = Arc::new(Failing(AtomicBool::new(false), AtomicUsize::new(0)));
    let store = {
        let failing = Arc::clone(&failing);
        Meddled::new(shared.store(), move |_| {
            if failing.0.load(Ordering::Relaxed) {
                failing.1.fetch_add(1, Ordering::Relaxed);
                Meddling::Fail
            } else {
                Meddling::Nothing
            }
        })
    };
    (store, failing)
}

impl Failing {
    /// From now on it fails. Whatever was asked for before is over.
    fn begin(&self, shared: &Shared) {
        crate::common::until("the worker has nothing to do", || shared.objects("requests").is_empty());
        self.0.store(true, Ordering::Relaxed);
    }

    async fn until_noticed(&self) {
        let began = Instant::now();
        while self.1.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < crate::common::PATIENCE, "the worker does not use its store");
            tokio::time::sleep(ms(20)).await;
        }
    }
}

/// Guards: a worker that is to stop does not wait for its store. What it has not begun goes to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_what_has_not_begun() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let (of_worker, failing) = failing(&shared);
    let right = || remote(server.queue(), shared.store());
    let client = Client::new(serve(service(layer().remote(right()), shared.clone())).await);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let at_worker = remote(server.queue(), of_worker);
    let router = service(layer().remote(at_worker.clone()), shared.clone());
    let worker = tokio::spawn(Worker::new(at_worker).serve_until(router, async { _ = stopped.await }));
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    failing.begin(&shared);
    let id = client.send("POST", "/pay", &[("x-geordi", "1")], b"").await.id();
    failing.until_noticed().await;
    stop.send(()).unwrap();
    tokio::time::timeout(crate::common::PATIENCE, worker).await.expect("it ends").unwrap().unwrap();
    let right = right();
    let other = work(right.clone(), service(layer().remote(right), shared.clone()));
    assert_eq!((client.end(&id).await, shared.payments()), ("done".into(), 1));
    other.abort();
}

/// Guards: a store that fails for a while holds a worker up, and no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_store() {
    let Some(server) = Server::start(Engine::Redis) else { return };
    let shared = Shared::new();
    let (of_worker, failing) = failing(&shared);
    let client =
        Client::new(serve(service(layer().remote(remote(server.queue(), shared.store())), shared.clone())).await);
    let at_worker = remote(server.queue(), of_worker);
    let worker = work(at_worker.clone(), service(layer().remote(at_worker), shared.clone()));
    assert_eq!(client.get("/quote?__geordi__=json").await.status, 200);
    failing.begin(&shared);
    let id = client.browse("/quote?__geordi__").await.id();
    failing.until_noticed().await;
    assert!(client.status(&id).await["phase"].get("sent").is_some());
    failing.0.store(false, Ordering::Relaxed);
    assert_eq!(client.end(&id).await, "done");
    worker.abort();
}
