//! Jobs: their course, their ends, and how many there can be.

use std::collections::BTreeMap;
#[cfg(feature = "object-store")]
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use futures::future::join_all;
use heeler::profile::ProfileStore;
use reqwest::Method;

use super::common::{ms, until};
use super::{BROWSER, Calls, Gate, Server, block_on, layer};

/// A handler that waits at a gate.
fn gated(gate: &Gate) -> Router {
    let gate = gate.clone();
    Router::new().route("/", get(async move || gate.pass().await))
}

/// Guards: while a job runs, its status says so and keeps changing, and clients are told to come back. Then it is done.
#[test]
fn a_job_goes_from_running_to_done() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer()));
    let id = server.start_job("/?a&__geordi__");
    gate.until_waiting(1);
    let first = server.status(&id);
    assert_eq!((&first["phase"], &first["uri"], &first["method"]), (&"running".into(), &"/?a".into(), &"GET".into()));
    assert_eq!(first.get("principal"), None);
    let elapsed = |status: &serde_json::Value| status["elapsed_ms"].as_u64().unwrap();
    until("time goes on", || elapsed(&server.status(&id)) > elapsed(&first));
    let early = server.get(&format!("/?__geordi__={id}.svg"));
    assert_eq!((early.status, early.header("retry-after"), &early.json()["phase"]), (202, "1", &"running".into()));
    gate.open(1);
    assert_eq!(server.profile(&id)["outcome"], "finished");
    assert_eq!(server.status(&id)["phase"], "done");
}

/// Guards: after a cancellation the request is dropped, and there is a profile of what it had done.
#[test]
fn a_job_can_be_cancelled_by_the_button() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer()));
    let id = server.start_job("/?__geordi__");
    gate.until_waiting(1);
    let cancel = server.request(Method::POST, &format!("/?x=1&__geordi__={id}.cancel"));
    let answer = server.send(cancel.header("accept", BROWSER).header("sec-fetch-site", "same-origin"));
    assert_eq!((answer.status, answer.header("location")), (303, &*format!("?x=1&__geordi__={id}")));
    gate.until_waiting(0);
    assert_eq!(server.profile(&id)["outcome"], "cancelled");
    // Again, and it stays as it is.
    let again = server.send(server.request(Method::POST, &format!("/?__geordi__={id}.cancel")));
    assert_eq!((again.status, &server.profile(&id)["outcome"]), (202, &"cancelled".into()));
}

/// Guards: if a client waits for the result and leaves, the request is dropped.
#[test]
fn a_client_that_leaves_cancels_the_request() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer()));
    for (query, header) in [("?__geordi__", None), ("", Some("1"))] {
        let mut request = server.request(Method::GET, &format!("/{query}"));
        if let Some(value) = header {
            request = request.header("x-geordi", value);
        }
        let asker = server.send_later(request);
        gate.until_waiting(1);
        asker.abort();
        gate.until_waiting(0);
    }
    // Its turn is over.
    gate.open(1);
    assert_eq!(server.get("/?__geordi__=json").json()["outcome"], "finished");
}

/// Guards: a client that leaves while waiting for its turn leaves the queue.
#[test]
fn a_client_that_leaves_the_queue_is_removed() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer().max_queued(1)));
    let running = server.start_job("/?__geordi__");
    gate.until_waiting(1);
    let asker = server.send_later(server.request(Method::GET, "/?__geordi__=json"));
    until("the queue is full", || {
        let answer = server.browse("/?__geordi__");
        if answer.status == 303 {
            // It was there first: make room.
            server.send(server.request(Method::POST, &format!("/?__geordi__={}.cancel", answer.id())));
        }
        answer.status == 429
    });
    asker.abort();
    let mut next = String::new();
    until("there is room", || {
        let answer = server.browse("/?__geordi__");
        if answer.status == 303 {
            answer.id().clone_into(&mut next);
        }
        answer.status == 303
    });
    gate.open(2);
    assert_eq!(server.profile(&running)["outcome"], "finished");
    assert_eq!(server.profile(&next)["outcome"], "finished");
}

/// Guards: a request that takes longer than a profiled one may is dropped.
#[test]
fn drops_a_request_that_takes_too_long() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer().timeout(ms(200))));
    let asked = std::time::Instant::now();
    let profile = server.get("/?__geordi__=json").json();
    assert_eq!((&profile["outcome"], gate.waiting()), (&"too_long".into(), 0));
    assert!(asked.elapsed() >= ms(200));
    let answer = server.send(server.request(Method::GET, "/").header("x-geordi", "1"));
    assert_eq!((answer.status, gate.waiting()), (503, 0));
    assert_eq!(server.profile(answer.id())["outcome"], "too_long");
}

/// Guards: a few requests wait, each at its own place. The rest are sent away and told when to come back. Those that wait run
/// in order.
#[test]
fn a_full_queue_sends_further_requests_away() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer().max_queued(2)));
    let jobs: Vec<String> = (0..3)
        .map(|_| {
            let id = server.start_job("/?__geordi__");
            gate.until_waiting(1);
            id
        })
        .collect();
    for (at, id) in jobs.iter().enumerate().skip(1) {
        assert_eq!(server.status(id)["phase"]["queued"]["place"], at - 1);
    }
    for answer in [
        server.browse("/?__geordi__"),
        server.get("/?__geordi__=json"),
        server.send(server.request(Method::POST, "/").header("x-geordi", "1")),
    ] {
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert_eq!((answer.status, (1..=600).contains(&seconds)), (429, true));
    }
    for (at, id) in jobs.iter().enumerate() {
        gate.open(1);
        assert_eq!(server.profile(id)["outcome"], "finished");
        if let Some(next) = jobs.get(at + 1) {
            gate.until_waiting(1);
            assert_eq!(server.status(next)["phase"], "running");
        }
    }
}

/// Guards: as many jobs run at a time as the layer allows, and no more.
#[test]
fn runs_only_as_many_jobs_as_allowed() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer().max_concurrent(3)));
    let jobs: Vec<String> = (0..5).map(|_| server.start_job("/?__geordi__")).collect();
    gate.until_waiting(3);
    assert_eq!(server.status(&jobs[4])["phase"]["queued"]["place"], 1);
    gate.open(5);
    for id in &jobs {
        assert_eq!(server.profile(id)["outcome"], "finished");
    }
}

/// Guards: a panic of the handler is the profile's outcome. With the header, the panic reaches the connection, as it would
/// without a layer. The next request finishes.
#[test]
fn a_panic_of_the_handler_is_the_outcome() {
    let main = thread::current().id();
    let router = Router::new()
        .route("/str", get(async || -> () { panic!("at the disco") }))
        .route("/string", get(async || -> () { panic!("{} at the disco", 7) }))
        .route("/value", get(async || -> () { std::panic::panic_any(7) }))
        .route(
            "/later",
            get(async move || {
                tokio::task::yield_now().await;
                if thread::current().id() != main {
                    panic!("later");
                }
            }),
        )
        .route("/", get(async || "well"))
        .layer(layer());
    let server = Server::start(router);
    for (path, said) in [
        ("/str", "at the disco"),
        ("/string", "7 at the disco"),
        ("/value", "a panic without words"),
        ("/later", "later"),
    ] {
        let profile = server.get(&format!("{path}?__geordi__=json")).json();
        assert_eq!(profile["outcome"]["panicked"], said);
        assert_eq!(profile["response"], serde_json::Value::Null);
        let bare = block_on(server.send_later(server.request(Method::GET, path)));
        let with = block_on(server.send_later(server.request(Method::GET, path).header("x-geordi", "1")));
        assert!(bare.is_err() && with.is_err(), "{path}");
    }
    assert_eq!(server.get("/?__geordi__=json").json()["outcome"], "finished");
}

/// Guards: a panic while the request is dropped is caught as well.
#[test]
fn a_panic_in_a_destructor_is_caught() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("in a destructor");
            }
        }
    }
    let gate = Gate::new();
    let handler = {
        let gate = gate.clone();
        async move || {
            let _bomb = Bomb;
            gate.pass().await;
        }
    };
    let server = Server::start(Router::new().route("/", get(handler)).layer(layer()));
    for _ in 0..2 {
        let id = server.start_job("/?__geordi__");
        gate.until_waiting(1);
        server.send(server.request(Method::POST, &format!("/?__geordi__={id}.cancel")));
        assert!(server.profile(&id)["outcome"]["panicked"].as_str().unwrap().contains("destructor"));
    }
}

/// Guards: 200 clients at once each get the profile of their own request, and none is forgotten.
#[test]
fn two_hundred_clients_get_their_own_profiles() {
    let calls = Calls::default();
    let handler = {
        let calls = calls.clone();
        async move |Path(number): Path<usize>| {
            calls.count();
            tokio::time::sleep(Duration::from_millis(1)).await;
            number.to_string()
        }
    };
    let store = ProfileStore::memory().max_count(200);
    let server =
        Server::start(Router::new().route("/{number}", get(handler)).layer(layer().max_queued(200).store(store)));
    let asked = (0..200).map(|number| {
        let request = match number % 2 {
            0 => server.request(Method::GET, &format!("/{number}?__geordi__=json")),
            _ => server.request(Method::GET, &format!("/{number}")).header("x-geordi", "1"),
        };
        async move {
            let response = request.send().await.unwrap();
            let id = response.headers()["x-geordi-id"].to_str().unwrap().to_owned();
            (number, id, response.bytes().await.unwrap())
        }
    });
    let answers = block_on(server.client.spawn(join_all(asked)));
    let mut ids = BTreeMap::new();
    for (number, id, body) in answers {
        if number % 2 == 1 {
            assert_eq!(body, number.to_string());
        }
        let profile = server.profile(&id);
        assert_eq!((&profile["id"], &profile["request"]["uri"]), (&id.clone().into(), &format!("/{number}").into()));
        assert!(ids.insert(id, number).is_none());
    }
    assert_eq!((ids.len(), calls.get()), (200, 200));
}

/// Guards: an instance answers for another one with the same store: the progress of a job, its profile, and its cancellation.
#[test]
fn another_instance_can_answer_for_a_job() {
    let (gate, store) = (Gate::new(), ProfileStore::memory());
    let instance = || Server::start(gated(&gate).layer(layer().store(store.clone())));
    let (one, other) = (instance(), instance());
    for cancel in [false, true] {
        let id = one.start_job("/?__geordi__");
        gate.until_waiting(1);
        until("the other instance knows that it runs", || {
            let answer = other.get(&format!("/?__geordi__={id}.status"));
            answer.status == 200 && answer.json()["phase"] == "running"
        });
        let theirs = other.send(other.request_of("bob", Method::GET, &format!("/?__geordi__={id}.status")));
        let path = format!("/?__geordi__={id}.cancel");
        let not_theirs = other.send(other.request_of("bob", Method::POST, &path));
        assert_eq!((theirs.status, not_theirs.status), (404, 404));
        if cancel {
            assert_eq!(other.send(other.request(Method::POST, &path)).status, 202);
        } else {
            gate.open(1);
        }
        gate.until_waiting(0);
        assert_eq!(other.profile(&id)["outcome"], if cancel { "cancelled" } else { "finished" });
    }
}

/// Guards: browsers get pages: of the progress, of the result, of all stored profiles and of errors. Each page has its
/// policy, and none may be cached or framed.
#[test]
fn browsers_get_pages_with_a_strict_policy() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer()));
    let id = server.start_job("/?a=<b>&__geordi__");
    gate.until_waiting(1);
    let live = server.browse(&format!("/?__geordi__={id}"));
    assert!(live.text().contains(&format!("?__geordi__={id}.cancel")), "{}", live.text());
    gate.open(1);
    server.profile(&id);
    let done = server.browse(&format!("/?__geordi__={id}"));
    assert!(done.text().contains("<svg") && done.text().contains(&format!("?__geordi__={id}.pprof")));
    let index = server.browse("/?q=a%3D+GET&__geordi__=index");
    assert!(index.text().contains(&id));
    let nothing = server.browse("/?__geordi__=index&q=another");
    assert!(!nothing.text().contains(&id));
    let compared = server.browse(&format!("/?__geordi__={id}.vs.{id}"));
    let missing = server.browse("/?__geordi__=0123456789abcdef0123456789abcdef");
    for (answer, status) in [(live, 200), (done, 200), (index, 200), (nothing, 200), (compared, 200), (missing, 404)] {
        assert_eq!((answer.status, answer.header("content-type")), (status, "text/html; charset=utf-8"));
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(policy.contains("script-src 'nonce-") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
        assert!(!answer.text().contains("<b>&"), "{}", answer.text());
    }
    let listed = server.get("/?__geordi__=index").json();
    assert_eq!(listed[0]["id"], id);
}

/// Guards: a client whose job was cancelled before its turn is told why.
#[test]
fn a_queued_job_learns_of_its_cancellation() {
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer()));
    let running = server.start_job("/?__geordi__");
    gate.until_waiting(1);
    let waiting = server.start_job("/?__geordi__");
    server.send(server.request(Method::POST, &format!("/?__geordi__={waiting}.cancel")));
    until("it is cancelled", || server.status(&waiting)["phase"] == "cancelled");
    assert_eq!(server.get(&format!("/?__geordi__={waiting}.svg")).status, 410);
    gate.open(1);
    assert_eq!(server.profile(&running)["outcome"], "finished");
    assert_eq!(gate.waiting(), 0);
}

#[test]
fn another_instance_can_cancel_a_queued_job() {
    let (gate, store) = (Gate::new(), ProfileStore::memory());
    let instance = || Server::start(gated(&gate).layer(layer().store(store.clone())));
    let (one, other) = (instance(), instance());
    one.start_job("/?__geordi__");
    gate.until_waiting(1);
    let id = one.start_job("/?__geordi__");
    let path = format!("/?__geordi__={id}.cancel");
    until("the other instance knows about it", || other.send(other.request(Method::POST, &path)).status == 202);
    until("it is cancelled", || one.status(&id)["phase"] == "cancelled");
    gate.open(1);
    gate.until_waiting(0);
}

/// Guards: a store that takes forever keeps nobody from their turn, nor others in the queue from theirs.
#[cfg(feature = "object-store")]
#[test]
fn a_hanging_store_blocks_nobody() {
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    let hour = Duration::from_secs(3_600);
    let config = ThrottleConfig { wait_put_per_call: hour, wait_get_per_call: hour, ..ThrottleConfig::default() };
    let store = ProfileStore::object_store(Arc::new(ThrottledStore::new(InMemory::new(), config)), "");
    let gate = Gate::new();
    let server = Server::start(gated(&gate).layer(layer().store(store)));
    server.start_job("/?__geordi__");
    gate.until_waiting(1);
    let [cancelled, next] = [(); 2].map(|()| server.start_job("/?__geordi__"));
    let place = |id: &str| server.status(id)["phase"]["queued"]["place"].as_u64();
    assert_eq!([&cancelled, &next].map(|id| place(id)), [Some(0), Some(1)]);
    server.send(server.request(Method::POST, &format!("/?__geordi__={cancelled}.cancel")));
    let opened = std::time::Instant::now();
    until("it is cancelled", || server.status(&cancelled)["phase"] == "cancelled");
    gate.open(1);
    until("the next one runs", || server.status(&next)["phase"] == "running");
    // One look into the store takes ten seconds until it is given up.
    assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    gate.open(1);
}
