//! What a watched request pays when nothing is wrong with it, beside what other layers cost.
//!
//! - `overhead.ready`: a request that is answered at its first poll; what the layer adds, that is: service with the layer
//!   minus service without. Also for a request as hyper makes it, with a path and headers that share a buffer.
//! - `overhead.suspend_once`: a request that wakes itself and returns `Pending` once; also in a task with a scheduler
//!   around it, and woken by another task.
//! - `overhead.allocations_per_request`: memory allocations that the layer adds.
//! - `overhead.axum`: requests a second of an axum server over loopback, with the layer and without.
//!
//! ```text
//! cargo bench -p benches --bench overhead               # some two minutes
//! cargo bench -p benches --bench overhead -- --quick
//! cargo bench -p benches --bench overhead -- --only ready suspend_once allocations axum
//! ```
//!
//! On a busy machine instructions say more than time. `--count <service>_<ready|once|hyper|task|oncetask> [n]` runs one
//! loop and times nothing (services: bare, heeler, tower, tower_http_timeout, tower_http_trace, tokio_metrics, tasktrace, await_tree):
//!
//! ```text
//! bench=$(ls -t target/release/deps/overhead-* | grep -v '\.d$' | head -1)
//! valgrind --tool=callgrind --toggle-collect='*drive*' --callgrind-out-file=/tmp/out $bench --count heeler_ready 10000
//! ```

#![allow(unsafe_code, reason = "the allocator that counts")]

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/mod.rs"]
mod common;
#[path = "common/loopback.rs"]
mod loopback;
#[path = "common/peers.rs"]
mod peers;

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use common::{Contender, at_least, at_most, median, pick, plain, race, undisturbed};
use http::{Request, Response};
use http_body_util::Full;
use peers::{Answers, Body, LIMIT, Requests, Visit, drive, hyper_requests, plain_request, services};
use tokio::runtime::Runtime;
use tower::{Layer, Service};
use tower_http::trace::TraceLayer;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let waker = prepare(&runtime);
    if let Some(arguments) = common::after("--count") {
        return count(&arguments, &runtime, &waker);
    }
    let only = common::after("--only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|argument| argument == name));
    // In a task: there a request runs, with a scheduler around it.
    let rounds = pick(600, 100);
    if wanted("ready") {
        goal("ready", &in_a_task(&runtime, rounds, 2000, Answers(0), &plain_request), 1.0);
        figures("ready_like_hyper", &in_a_task(&runtime, rounds, 2000, Answers(0), &hyper_requests()));
        figures("ready_by_hand", &by_hand(&runtime, &waker, rounds, 2000, Answers(0)));
    }
    if wanted("suspend_once") {
        goal("suspend_once", &in_a_task(&runtime, rounds, 2000, Answers(1), &plain_request), 0.6);
        figures("suspend_once_like_hyper", &in_a_task(&runtime, rounds, 2000, Answers(1), &hyper_requests()));
        figures("suspend_once_by_hand", &by_hand(&runtime, &waker, rounds, 2000, Answers(1)));
        let woken = tower::service_fn(woken_by_another);
        figures("woken_by_another_task", &in_a_task(&runtime, rounds / 2, 1000, woken, &plain_request));
    }
    if wanted("allocations") {
        allocations(&runtime, &waker);
    }
    if wanted("axum") {
        axum(pick(Duration::from_secs(50), Duration::from_secs(14)));
    }
}

/// Requests a second of a router alone, and what share of them is left with a layer.
///
/// A layer goes around the router; and, for comparison, into it: `Router::layer` puts each route into a box of its own,
/// whatever the layer does, and `any_layer` is one that does nothing.
fn axum(duration: Duration) {
    let app = || Router::new().route("/users/{id}/photos", get(|| async { "hello" }));
    let status = http::StatusCode::GATEWAY_TIMEOUT;
    let timeout = move || tower_http::timeout::TimeoutLayer::with_status_code(status, LIMIT);
    let heeler = || heeler::WatchdogLayer::new(LIMIT);
    let path = "/users/4711/photos";
    let mut servers = [
        loopback::serve("router", path, async move || app()),
        loopback::serve("heeler", path, async move || heeler().layer(app())),
        loopback::serve("tower_http_timeout", path, async move || timeout().layer(app())),
        loopback::serve("tower_http_trace", path, async move || TraceLayer::new_for_http().layer(app())),
        loopback::serve("any_layer_inside", path, async move || app().layer(tower::layer::util::Identity::new())),
        loopback::serve("inside_heeler", path, async move || app().layer(heeler())),
        // The noise: what this measurement makes of no difference.
        loopback::serve("again_router", path, async move || app()),
    ];
    let rates = loopback::race(&mut servers, duration);
    plain("overhead.axum.requests_per_second_alone", median(&mut rates[0].clone()), "1/s");
    for (client, with) in servers.iter().zip(&rates).skip(1) {
        let share = median(&mut with.iter().zip(&rates[0]).map(|(with, alone)| with / alone).collect::<Vec<_>>());
        match client.name {
            "heeler" => at_least("overhead.axum.throughput_with_layer", share, 0.98),
            name => plain(&format!("overhead.axum.throughput_with_{name}"), share, "of that alone"),
        }
    }
}

/// A runtime as it is in a service at work: it has parked once, with a timer that is due before those to come, so that a
/// new one need not wake the driver. Returns the waker of one of its tasks.
fn prepare(runtime: &Runtime) -> Waker {
    runtime.block_on(async {
        tokio::spawn(tokio::time::sleep(Duration::from_secs(20)));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        tokio::spawn(std::future::poll_fn(move |cx| {
            if let Some(sender) = sender.take() {
                let _ = sender.send(cx.waker().clone());
            }
            std::task::Poll::<()>::Pending
        }));
        tokio::time::sleep(Duration::from_millis(5)).await;
        receiver.await.expect("the task has run")
    })
}

async fn woken_by_another(_: Request<Body>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _ = sender.send(Response::new(Full::default()));
    });
    Ok(receiver.await.expect("an answer"))
}

/// Nanoseconds a request by service, in the order of [`services`]: all rounds.
type Times = Vec<(&'static str, Vec<f64>)>;

/// Races the services in a task of their own each, one request after the other, on a current-thread runtime.
fn in_a_task<I, M>(runtime: &Runtime, rounds: usize, n: u64, inner: I, make: &M) -> Times
where
    I: Service<Request<Body>, Response = Response<Full<bytes::Bytes>>, Error = Infallible> + Clone + Send + 'static,
    I::Future: Send,
    M: Fn() -> Request<Body> + Clone + Send + 'static,
{
    struct Collect<'a, M>(&'a Runtime, &'a M, Vec<(&'static str, Contender<'a>)>);
    impl<I, M: Fn() -> Request<Body> + Clone + Send + 'static> Visit<I> for Collect<'_, M> {
        fn visit<S>(&mut self, name: &'static str, service: S)
        where
            S: Service<Request<Body>> + Clone + Send + 'static,
            S::Future: Send,
            S::Error: Send,
            S::Response: Send,
        {
            let (runtime, make) = (self.0, self.1.clone());
            let run = move |n| in_its_task(runtime, service.clone(), make.clone(), n);
            self.2.push((name, Box::new(run)));
        }
    }
    let mut collect = Collect(runtime, make, Vec::new());
    services(inner, &mut collect);
    let (names, mut contenders): (Vec<_>, Vec<_>) = collect.2.into_iter().unzip();
    names.into_iter().zip(race(rounds, n, &mut contenders)).collect()
}

fn in_its_task<S>(runtime: &Runtime, mut service: S, make: impl Fn() -> Request<Body> + Send + 'static, n: u64)
where
    S: Service<Request<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    S::Response: Send,
{
    let task = async move {
        let mut requests = Requests::new(make);
        for _ in 0..n {
            std::hint::black_box(service.call(requests.next()).await.is_ok());
        }
    };
    runtime.block_on(async { tokio::spawn(task).await }).expect("no panic");
}

/// Races the services without a scheduler, polled in a bare loop: what a layer does shows undiluted, and so does how well
/// a loop this short happens to fit the processor.
fn by_hand(runtime: &Runtime, waker: &Waker, rounds: usize, n: u64, inner: Answers) -> Times {
    struct Collect<'a>(&'a Waker, Vec<(&'static str, Contender<'a>)>);
    impl Visit<Answers> for Collect<'_> {
        fn visit<S: Service<Request<Body>> + 'static>(&mut self, name: &'static str, mut service: S) {
            let (waker, mut requests) = (self.0.clone(), Requests::new(plain_request));
            let run = move |n| drive(&mut service, &mut Context::from_waker(&waker), &mut requests, n);
            self.1.push((name, Box::new(run)));
        }
    }
    let _guard = runtime.enter();
    let mut collect = Collect(waker, Vec::new());
    services(inner, &mut collect);
    let (names, mut contenders): (Vec<_>, Vec<_>) = collect.1.into_iter().unzip();
    names.into_iter().zip(race(rounds, n, &mut contenders)).collect()
}

fn added(times: &Times) -> HashMap<&'static str, f64> {
    let bare = undisturbed(&times[0].1);
    times.iter().map(|(name, times)| (*name, undisturbed(times) - bare)).collect()
}

fn figures(what: &str, times: &Times) {
    let added = added(times);
    plain(&format!("overhead.{what}.service_alone"), undisturbed(&times[0].1), "ns");
    for (name, _) in &times[1..] {
        plain(&format!("overhead.{what}.added_by_{name}"), added[name], "ns");
    }
    plain(&format!("overhead.{what}.heeler_vs_tower_timeout"), added["heeler"] / added["tower"], "x");
}

fn goal(what: &str, times: &Times, limit: f64) {
    let added = added(times);
    figures(what, times);
    at_most(&format!("overhead.{what}.vs_tower_timeout"), added["heeler"] / added["tower"], limit);
    let together = added["heeler_all"] / added["tower_http_timeout"];
    at_most(&format!("overhead.{what}.all_layers_vs_tower_http_timeout"), together, 1.0);
}

/// Allocations a request, with the layer minus without, over requests of all kinds.
fn allocations(runtime: &Runtime, waker: &Waker) {
    struct Count<'a, M>(&'a Waker, &'a M, HashMap<&'static str, f64>);
    impl<M: Fn() -> Request<Body>> Visit<Answers> for Count<'_, M> {
        fn visit<S: Service<Request<Body>> + 'static>(&mut self, name: &'static str, mut service: S) {
            let mut cx = Context::from_waker(self.0);
            // Rows and what belongs to a thread are made at the first requests.
            let mut requests = Requests::new(self.1);
            drive(&mut service, &mut cx, &mut requests, 1000);
            let before = allocations::made();
            drive(&mut service, &mut cx, &mut requests, 10_000);
            self.2.insert(name, (allocations::made() - before) as f64 / 10_000.0);
        }
    }
    let _guard = runtime.enter();
    let mut worst = 0_f64;
    for (kind, suspensions) in [("ready", 0), ("suspend_once", 1)] {
        let counts = {
            let mut count = Count(waker, &plain_request, HashMap::new());
            services(Answers(suspensions), &mut count);
            count.2
        };
        let hyper = {
            let make = hyper_requests();
            let mut count = Count(waker, &make, HashMap::new());
            services(Answers(suspensions), &mut count);
            count.2
        };
        worst = worst.max(counts["heeler"] - counts["bare"]).max(hyper["heeler"] - hyper["bare"]);
        for name in ["tower", "tower_http_timeout", "tower_http_trace", "tokio_metrics", "tasktrace", "await_tree"] {
            plain(&format!("overhead.allocations_per_request.{kind}.{name}"), hyper[name] - hyper["bare"], "");
        }
    }
    at_most("overhead.allocations_per_request", worst, 0.0);
}

/// One loop, for a profiler.
fn count(arguments: &[String], runtime: &Runtime, waker: &Waker) {
    struct Find<'a>(&'a str, &'a str, u64, &'a Runtime, &'a Waker);
    impl Visit<Answers> for Find<'_> {
        fn visit<S>(&mut self, name: &'static str, mut service: S)
        where
            S: Service<Request<Body>> + Clone + Send + 'static,
            S::Future: Send,
            S::Error: Send,
            S::Response: Send,
        {
            let Self(wanted, kind, n, runtime, waker) = *self;
            if name != wanted {
                return;
            }
            match kind {
                "task" | "oncetask" => in_its_task(runtime, service, plain_request, n),
                _ => {
                    let _guard = runtime.enter();
                    let mut cx = Context::from_waker(waker);
                    match kind {
                        "hyper" => drive(&mut service, &mut cx, &mut Requests::new(hyper_requests()), n),
                        _ => drive(&mut service, &mut cx, &mut Requests::new(plain_request), n),
                    }
                }
            }
        }
    }
    let what = arguments.first().map_or("heeler_ready", String::as_str);
    let n = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (service, kind) = what.rsplit_once('_').unwrap_or((what, "ready"));
    let suspensions = u32::from(kind.starts_with("once"));
    services(Answers(suspensions), &mut Find(service, kind, n, runtime, waker));
}
