//! The profile thread: what a profiled request finds on it, and what becomes of polls that do not return and of runtimes that
//! end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use axum::Router;
use axum::routing::get;
use heeler::profile::ProfileStore;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::common::{FOREVER, Wall, in_own_process, ms, runtime, until};
use super::{Calls, Gate, Server, anybody, block_on, frames, layer, profile_at, start_at};

fn thread_name() -> String {
    thread::current().name().map(str::to_owned).unwrap_or_default()
}

/// Guards: what the handler spawns lives on the application's runtime, and may outlive the request. The handler itself is not
/// a task of that runtime.
#[test]
fn spawned_work_lives_on_the_applications_runtime() {
    for workers in [2, 0] {
        let gate = Gate::new();
        let calls = Calls::default();
        let handler = {
            let (gate, calls) = (gate.clone(), calls.clone());
            async move || {
                let spawned = tokio::spawn(async { (thread_name(), Handle::current().id()) }).await.unwrap();
                let blocking = tokio::task::spawn_blocking(|| (thread_name(), Handle::current().id())).await.unwrap();
                tokio::spawn(async move {
                    gate.pass().await;
                    calls.count();
                });
                let elsewhere = [&spawned.0, &blocking.0].iter().all(|name| !name.starts_with("heeler"));
                let runtimes = [Handle::current().id(), spawned.1, blocking.1];
                let in_place = tokio::task::block_in_place(thread_name);
                format!("{elsewhere} {runtimes:?} {in_place} {} {:?}", thread_name(), tokio::task::try_id())
            }
        };
        let server = Server::start_on(workers, Router::new().route("/", get(handler)).layer(layer()));
        let id = server.get("/?__geordi__=json").id().to_owned();
        let said = server.get(&format!("/?__geordi__={id}.response"));
        let its_runtime = server.runtime().id();
        let runtimes = [its_runtime, its_runtime, its_runtime];
        assert_eq!(said.text(), format!("true {runtimes:?} heeler-profile heeler-profile None"));
        gate.open(1);
        until("it goes on without the request", || calls.get() == 1);
    }
}

/// Guards: on a current-thread runtime, too, a profile ends whatever its request does, whether or not the request ends by
/// itself.
#[test]
fn profiles_work_on_a_current_thread_runtime() {
    let gate = Gate::new();
    let everything = async || {
        tokio::time::sleep(ms(5)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"hello").await.unwrap();
        });
        let mut said = String::new();
        TcpStream::connect(address).await.unwrap().read_to_string(&mut said).await.unwrap();
        peer.await.unwrap();
        let blocking = tokio::task::spawn_blocking(|| thread::sleep(ms(5)));
        tokio::task::block_in_place(|| thread::sleep(ms(5)));
        blocking.await.unwrap();
        said
    };
    let streams = {
        let gate = gate.clone();
        async move || frames(3, 0, &gate)
    };
    let waits = {
        let gate = gate.clone();
        async move || gate.pass().await
    };
    let store = ProfileStore::memory();
    let router = Router::new()
        .route("/everything", get(everything))
        .route("/panics", get(async || -> () { panic!("at the disco") }))
        .route("/streams", get(streams))
        .route("/waits", get(waits.clone()))
        .layer(layer().store(store.clone()))
        .merge(Router::new().route("/capped", get(waits)).layer(layer().timeout(ms(100)).store(store)));
    let server = Server::start_on(0, router);
    let profile = server.get("/everything?__geordi__=json");
    assert_eq!((&profile.json()["outcome"], &profile.json()["response"]["status"]), (&"finished".into(), &200.into()));
    assert_eq!(server.get(&format!("/?__geordi__={}.response", profile.id())).text(), "hello");
    assert_eq!(server.get("/panics?__geordi__=json").json()["outcome"]["panicked"], "at the disco");
    assert_eq!(server.get("/capped?__geordi__=json").json()["outcome"], "too_long");
    let id = server.start_job("/waits?__geordi__");
    gate.until_waiting(1);
    server.send(server.request(Method::POST, &format!("/waits?__geordi__={id}.cancel")));
    assert_eq!(server.profile(&id)["outcome"], "cancelled");
    gate.until_waiting(0);
    gate.open(3);
    let streamed = server.send(server.request(Method::GET, "/streams").header("x-geordi", "1"));
    assert_eq!(streamed.text(), "0;1;2;");
    assert_eq!(server.profile(streamed.id())["outcome"], "finished");
}

/// Guards: a poll that does not return cannot be stopped. The client gets a result all the same, and so does the next one.
/// The poll keeps its thread, and nobody from their turn.
#[test]
fn a_poll_that_never_returns_keeps_only_its_thread() {
    for inline in [false, true] {
        let wall = Wall::default();
        let handler = {
            let wall = wall.clone();
            async move || wall.block()
        };
        let layer = if inline { layer().inline() } else { layer() };
        let router =
            Router::new().route("/", get(handler)).route("/quick", get(async || ())).layer(layer.timeout(ms(50)));
        let server = Server::start(router);
        let profile = server.get("/?__geordi__=json").json();
        assert_eq!(profile["outcome"], "too_long");
        let notes = profile["notes"].to_string();
        assert!(notes.contains("has not returned") && !notes.contains("waits for it"), "{notes}");
        wall.until_blocked(1);
        // On a busy machine this may take too long, too.
        until("the next one finishes", || server.get("/quick?__geordi__=json").json()["outcome"] == "finished");
        wall.until_blocked(1);
        wall.open();
        wall.until_blocked(0);
    }
}

/// Guards: only a few threads have polls that do not return. Clients in the queue are told so, ordinary requests do not
/// notice, and when one returns there are profiles again.
#[test]
fn only_so_many_polls_may_never_return() {
    // They are counted for the whole process.
    in_own_process("thread::only_so_many_polls_may_never_return", || {
        let wall = Wall::default();
        let handler = {
            let wall = wall.clone();
            async move || wall.block()
        };
        let router = Router::new().route("/", get(handler)).route("/quick", get(async || "quick"));
        let server = Server::start(router.layer(layer().max_concurrent(8).max_queued(1).timeout(ms(50))));
        let blocked: Vec<String> = (0..8).map(|_| server.start_job("/?__geordi__")).collect();
        wall.until_blocked(8);
        let queued = server.send_later(server.request(Method::GET, "/quick?__geordi__=json"));
        for id in &blocked {
            assert_eq!(server.profile(id)["outcome"], "too_long");
        }
        // Its turn came with the first request that was given up, or too late.
        let queued = block_on(queued).unwrap().status().as_u16();
        assert!([200, 500].contains(&queued), "{queued}");
        let refused = [
            server.browse("/quick?__geordi__"),
            server.get("/quick?__geordi__=json"),
            server.send(server.request(Method::GET, "/quick").header("x-geordi", "1")),
        ];
        assert_eq!(refused.map(|answer| answer.status), [503; 3]);
        assert_eq!(server.get("/quick").text(), "quick");
        wall.until_blocked(8);
        wall.open();
        until("profiles are possible again", || server.get("/quick?__geordi__=json").status == 200);
    });
}

/// Guards: the end of the application's runtime ends a profile wherever its request is, and the profile gives that as the
/// reason.
#[test]
fn a_runtime_that_shuts_down_ends_the_profile() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for workers in [2, 0] {
        for path in ["/nothing", "/timer", "/socket", "/task", "/blocks"] {
            let (begun, wall) = (Arc::new(AtomicBool::new(false)), Wall::default());
            let service = {
                let (begun, wall) = (Arc::clone(&begun), wall.clone());
                service_fn(move |request: Request<String>| {
                    let (begun, wall) = (Arc::clone(&begun), wall.clone());
                    async move {
                        begun.store(true, Ordering::SeqCst);
                        match request.uri().path() {
                            "/nothing" => std::future::pending().await,
                            "/timer" => tokio::time::sleep(FOREVER).await,
                            "/socket" => _ = TcpStream::connect(address).await.unwrap().read_u8().await.unwrap(),
                            "/task" => tokio::spawn(std::future::pending()).await.unwrap(),
                            _ => {
                                wall.block();
                                tokio::time::sleep(ms(1)).await;
                            }
                        }
                        Ok::<_, Infallible>(Response::new(String::new()))
                    }
                })
            };
            let service = anybody().layer(service);
            let application = runtime(workers);
            let id = application.block_on(start_at(&service, &format!("{path}?__geordi__")));
            until("it has begun", || begun.load(Ordering::SeqCst));
            application.shutdown_timeout(ms(1_000));
            wall.open();
            let profile = runtime(1).block_on(profile_at(&service, &id));
            assert_eq!(profile["outcome"]["failed"], "the application's runtime has shut down", "{workers} {path}");
        }
    }
}

/// Guards: the same for a request that runs as a task of that runtime.
#[test]
fn a_runtime_that_shuts_down_ends_an_inline_profile() {
    let gate = Gate::new();
    let its = gate.clone();
    let service = service_fn(move |_: Request<String>| {
        let gate = its.clone();
        async move {
            gate.pass().await;
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let service = anybody().inline().layer(service);
    let application = runtime(1);
    let id = application.block_on(start_at(&service, "/?__geordi__"));
    gate.until_waiting(1);
    drop(application);
    gate.until_waiting(0);
    let profile = runtime(1).block_on(profile_at(&service, &id));
    assert_eq!(profile["outcome"]["failed"], "the application's runtime has shut down");
}

/// Guards: where there is no runtime, the request runs as if there were no flag, and its response says so. A response to a
/// request without the flag says nothing.
#[test]
fn a_request_without_a_runtime_runs_unprofiled() {
    let service = service_fn(async |request: Request<String>| {
        let seen = format!("{} {}", request.uri(), request.headers().contains_key("x-geordi"));
        Ok::<_, Infallible>(Response::new(seen))
    });
    let service = anybody().layer(service);
    for (uri, header, says_so) in
        [("/?a=1&__geordi__=json", None, true), ("/?a=1", Some("1"), true), ("/?a=1", None, false)]
    {
        let mut request = Request::get(uri);
        if let Some(value) = header {
            request = request.header("x-geordi", value);
        }
        let response =
            futures::executor::block_on(service.clone().oneshot(request.body(String::new()).unwrap())).unwrap();
        let error = response.headers().get("x-geordi-error").map(|error| error.to_str().unwrap().to_owned());
        assert_eq!(error.is_some_and(|error| error.contains("outside of a tokio runtime")), says_so, "{uri}");
        let body = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        assert_eq!(body, "/?a=1 false");
    }
}

/// Guards: a request that is cancelled before its turn is dropped inside the runtime that it came from, and may take its
/// time.
#[test]
fn a_queued_request_is_dropped_inside_its_runtime() {
    struct Parting(Wall, Calls);
    impl Drop for Parting {
        fn drop(&mut self) {
            tokio::spawn(async {});
            self.1.count();
            self.0.block();
        }
    }
    let (gate, wall, calls) = (Gate::new(), Wall::default(), Calls::default());
    let waits = {
        let gate = gate.clone();
        async move || gate.pass().await
    };
    let (its_wall, its_calls) = (wall.clone(), calls.clone());
    let attach = axum::middleware::from_fn(move |mut request: axum::extract::Request, next: axum::middleware::Next| {
        if request.uri().path() == "/parting" {
            let parting = Parting(its_wall.clone(), its_calls.clone());
            request.extensions_mut().insert(Arc::new(parting));
        }
        next.run(request)
    });
    let router = Router::new().route("/", get(waits)).route("/parting", get(async || ()));
    let server = Server::start(router.layer(layer()).layer(attach));
    let running = server.start_job("/?__geordi__");
    gate.until_waiting(1);
    let queued = server.start_job("/parting?__geordi__");
    server.send(server.request(Method::POST, &format!("/?__geordi__={queued}.cancel")));
    wall.until_blocked(1);
    // Nobody waits for that.
    gate.open(1);
    assert_eq!(server.profile(&running)["outcome"], "finished");
    assert_eq!(server.status(&queued)["phase"], "cancelled");
    wall.open();
    wall.until_blocked(0);
    assert_eq!(calls.get(), 1);
}
