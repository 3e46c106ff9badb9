//! Rules: many slow requests on a route have the next one profiled, in production.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use heeler::report::{Kind, Report};
use heeler::{Interrupted, ProfileLayer, ReportsBuilder, Rule, TimeboxExt as _, WatchdogLayer};

use super::common::{Collected, PORTABLE, collect_with, in_own_process, ms, until};
use super::{Server, layer};

const MINUTE: Duration = Duration::from_secs(60);

/// A request is slow after this time.
const THRESHOLD: Duration = Duration::from_millis(100);

/// How a request goes on.
#[derive(Clone, Default)]
struct Way {
    /// At once, instead of after some time.
    fast: Arc<AtomicBool>,
    /// It panics in the end.
    panics: Arc<AtomicBool>,
    /// It never ends.
    hangs: Arc<AtomicBool>,
    /// How many have begun.
    begun: Arc<AtomicUsize>,
}

async fn fetch_rates() {
    tokio::time::sleep(3 * THRESHOLD).await;
}

fn sum_up() -> u64 {
    let began = std::time::Instant::now();
    let mut sum = 0_u64;
    while began.elapsed() < ms(60) {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    sum
}

async fn checkout(State(way): State<Way>, Path(cart): Path<u64>) -> String {
    way.begun.fetch_add(1, Ordering::Relaxed);
    if way.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    if !way.fast.load(Ordering::Relaxed) {
        fetch_rates().await;
        std::hint::black_box(sum_up());
    }
    assert!(!way.panics.load(Ordering::Relaxed), "as the test has it");
    format!("cart {cart} is paid")
}

/// Says whether its limit was kept.
async fn limited(State(way): State<Way>) -> String {
    if way.fast.load(Ordering::Relaxed) {
        let within: Result<(), Interrupted> = fetch_rates().timebox(ms(30)).await;
        return format!("in time: {}", within.is_ok());
    }
    fetch_rates().await;
    String::new()
}

struct Shop {
    server: Server,
    reports: Collected,
    way: Way,
    /// What all of its paths begin with, for all services of a process have the same orders.
    name: String,
}

static SHOPS: AtomicU8 = AtomicU8::new(b'a');

impl Shop {
    /// `outside`: the profiler is outside of the watchdog.
    fn new(outside: bool, rule: impl FnOnce(ReportsBuilder) -> ReportsBuilder) -> Self {
        Self::with(layer(), outside, rule)
    }

    fn with(layer: ProfileLayer, outside: bool, rule: impl FnOnce(ReportsBuilder) -> ReportsBuilder) -> Self {
        let name = format!("shop-{}", char::from(SHOPS.fetch_add(1, Ordering::Relaxed)));
        let (collected, reports) = collect_with(|builder| rule(builder.repeat_after(MINUTE)));
        let way = Way::default();
        let watchdog = WatchdogLayer::new(THRESHOLD).reports(reports);
        let shop = Router::new().route("/carts/{cart}/checkout", get(checkout)).route("/limited", get(limited));
        let shop = Router::new().nest(&format!("/{name}"), shop.with_state(way.clone()));
        let shop = if outside { shop.layer(watchdog).layer(layer) } else { shop.layer(layer).layer(watchdog) };
        Self { server: Server::start(shop), reports: collected, way, name }
    }

    /// Sends a request as a customer does.
    fn buy(&self, cart: u64) -> String {
        let answer = self.server.send(self.checkout(cart));
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    }

    fn checkout(&self, cart: u64) -> reqwest::RequestBuilder {
        self.server.http.get(format!("http://{}/{}/carts/{cart}/checkout", self.server.address, self.name))
    }

    /// What somebody else who may profile sees of the profiles that rules wanted.
    fn profiles(&self) -> Vec<serde_json::Value> {
        let index = self.server.send(self.server.request_of("bob", reqwest::Method::GET, "/?__geordi__=index"));
        let all: Vec<serde_json::Value> = serde_json::from_value(index.json()).unwrap();
        all.into_iter().filter(|profile| profile.get("reason").is_some()).collect()
    }

    /// The first of them, once it is there.
    fn profile(&self) -> serde_json::Value {
        until("there is a profile", || !self.profiles().is_empty());
        let id = self.profiles()[0]["id"].as_str().unwrap().to_owned();
        self.server.get(&format!("/?__geordi__={id}.json")).json()
    }

    fn fired(&self) -> Report {
        let says = |report: &Report| report.notes.iter().any(|note| note.starts_with("a rule has fired"));
        self.reports.wait("a report that says which rule has fired", says)
    }
}

fn names(profile: &serde_json::Value) -> Vec<&str> {
    let frames = profile["frames"].as_array().unwrap();
    frames.iter().filter_map(|frame| frame["function"].as_str()).collect()
}

fn profile_after(requests: usize) -> impl FnOnce(ReportsBuilder) -> ReportsBuilder {
    move |builder| builder.rule(Rule::slow(requests, MINUTE).profile_next())
}

fn is_profiled_where(outside: bool) {
    let shop = Shop::new(outside, profile_after(3));
    for cart in 1..=3 {
        assert_eq!(shop.buy(cart), format!("cart {cart} is paid"));
    }
    let route = format!("/{}/carts/{{cart}}/checkout", shop.name);
    let reason = format!("3 requests on GET {route} were slow within 1 min 00 s (time 1 of 6 in an hour)");
    let fired = shop.fired();
    assert_eq!(fired.kind, Kind::SlowRequest);
    let note = format!(
        "a rule has fired, because {reason}: the next request on this route is profiled, if it comes within ten minutes"
    );
    assert!(fired.notes.contains(&note), "{:?}", fired.notes);
    assert_eq!(shop.profiles().len(), 0);
    assert_eq!(shop.buy(4), "cart 4 is paid", "its client notices nothing");
    let profile = shop.profile();
    assert_eq!(profile["reason"], reason);
    assert_eq!((&profile["outcome"], &profile["response"]["status"]), (&"finished".into(), &200.into()));
    assert_eq!(profile["request"]["uri"], format!("/{}/carts/4/checkout", shop.name));
    assert_eq!(profile["response"]["body"], "");
    let names = names(&profile);
    assert!(names.iter().any(|name| name.contains("tail::fetch_rates")), "{names:?}");
    let page = shop.server.browse(&format!("/?__geordi__={}", profile["id"].as_str().unwrap()));
    assert!(page.text().contains("Why there is this profile: <bdi>3 requests on GET"));
    // One request was ordered.
    shop.buy(5);
    shop.way.fast.store(true, Ordering::Relaxed);
    shop.buy(6);
    // Longer than the first took to be stored.
    std::thread::sleep(ms(500));
    assert_eq!(shop.profiles().len(), 1);
}

#[test]
fn the_next_request_is_profiled_within_the_watchdog() {
    is_profiled_where(false);
}

#[test]
fn the_next_request_is_profiled_around_the_watchdog() {
    is_profiled_where(true);
}

/// Guards: where threads can be sampled, the profile has what the request computed.
#[test]
fn what_it_computes_is_sampled() {
    for outside in [false, true] {
        let shop = Shop::new(outside, profile_after(1));
        shop.buy(1);
        shop.fired();
        shop.buy(2);
        let profile = shop.profile();
        let sampled = profile["quality"]["taken"].as_u64().unwrap();
        let names = names(&profile);
        assert!(
            PORTABLE || sampled > 0 && names.iter().any(|name| name.contains("sum_up")),
            "{outside} {sampled} {names:?}"
        );
    }
}

/// Guards: a request in production keeps its limits while it is profiled, and its watchdog.
#[test]
fn limits_and_thresholds_apply() {
    for outside in [false, true] {
        let shop = Shop::new(outside, profile_after(1));
        let limited = || {
            let url = format!("http://{}/{}/limited", shop.server.address, shop.name);
            let request = shop.server.http.get(url);
            shop.server.send(request).text().to_owned()
        };
        limited();
        shop.fired();
        shop.way.fast.store(true, Ordering::Relaxed);
        assert_eq!(limited(), "in time: false");
        assert_eq!(shop.profile()["outcome"], "finished");
    }
    let shop =
        Shop::new(false, |builder| builder.repeat_after(Duration::ZERO).rule(Rule::slow(1, MINUTE).profile_next()));
    shop.buy(1);
    shop.fired();
    shop.buy(2);
    shop.profile();
    let slow = shop.reports.wait("a report of the profiled request", |report| {
        report.request.as_ref().is_some_and(|request| request.uri.ends_with("/carts/2/checkout"))
    });
    assert!(super::common::place(&slow).contains("fetch_rates"), "{}", slow.to_text());
}

/// Guards: whatever becomes of the request, there is a profile that says so.
#[test]
fn a_request_that_ends_early_has_a_profile() {
    let shop = Shop::new(false, profile_after(1));
    shop.buy(1);
    shop.fired();
    let left = shop.server.send_later(shop.checkout(2));
    until("it has begun", || shop.way.begun.load(Ordering::Relaxed) == 2);
    left.abort();
    assert_eq!(shop.profile()["outcome"], "cancelled");
    drop(shop);
    let shop = Shop::new(false, profile_after(1));
    shop.buy(1);
    shop.fired();
    shop.way.panics.store(true, Ordering::Relaxed);
    let broken = shop.checkout(2);
    assert!(super::block_on(shop.server.client.spawn(async { broken.send().await })).is_err());
    assert!(shop.profile()["outcome"]["panicked"].is_string());
}

/// Guards: a rule may ask for a dump, which says why it was taken. Beyond its budget nothing follows.
#[test]
fn a_rule_takes_a_dump_within_its_budget() {
    let shop = Shop::new(false, |builder| builder.rule(Rule::slow(1, MINUTE).dump().at_most(1)));
    shop.buy(1);
    let fired = shop.fired();
    assert!(fired.notes.iter().any(|note| note.ends_with("(time 1 of 1 in an hour): a dump follows")), "{fired:?}");
    let dump = shop.reports.wait("a dump", |report| report.kind == Kind::Dump);
    let route = format!("/{}/carts/{{cart}}/checkout", shop.name);
    let reason = format!("a rule: a request on GET {route} was slow (time 1 of 1 in an hour)");
    assert_eq!(dump.notes, [reason]);
    shop.buy(2);
    shop.buy(3);
    std::thread::sleep(ms(500));
    let all = shop.reports.all();
    assert_eq!(all.iter().filter(|report| report.kind == Kind::Dump).count(), 1);
}

/// Guards: work that is no request has a profile under its name. It may borrow, and its output is its own.
#[test]
fn a_job_is_profiled_under_its_name() {
    let shop = Shop::new(false, |builder| builder);
    let layer = layer();
    let router = Router::new().route("/", get(async || "")).layer(layer.clone());
    let server = Server::start(router);
    let words = "rates of today".to_owned();
    let fetched = shop.server.runtime().block_on(layer.job("nightly import with token=hunter2", async {
        fetch_rates().await;
        words.len()
    }));
    assert_eq!(fetched, 14);
    // On an executor that knows nothing of tokio. A process that ends after that has lost nothing.
    assert!(futures::executor::block_on(layer.flush(MINUTE)));
    let index = || server.get("/?__geordi__=index").json();
    assert_eq!(index().as_array().unwrap().len(), 1);
    let summary = &index()[0];
    assert_eq!((&summary["method"], &summary["outcome"]), (&"job".into(), &"finished".into()));
    assert_eq!(summary["uri"], "nightly import with token=[redacted]");
    let profile = server.get(&format!("/?__geordi__={}.json", summary["id"].as_str().unwrap())).json();
    assert!(names(&profile).iter().any(|name| name.contains("tail::fetch_rates")), "{profile}");
    // Nobody has asked for this one.
    assert_eq!(shop.server.runtime().block_on(layer.job_when_asked("nightly import", async { 7 })), 7);
    std::thread::sleep(ms(500));
    assert_eq!(index().as_array().unwrap().len(), 1);
}

/// Guards: a profile shows no more of somebody else's request than a report does.
#[test]
fn what_reports_hide_is_hidden() {
    let shop = Shop::new(false, |builder| profile_after(1)(builder.secret_params(["patient"])));
    shop.buy(1);
    shop.fired();
    let url = format!("http://{}/{}/carts/2/checkout?patient=jane-doe", shop.server.address, shop.name);
    shop.server.send(shop.server.http.get(url).header("x-user-email", "jane@example.com"));
    let profile = shop.profile();
    assert!(profile["request"]["uri"].as_str().unwrap().ends_with("?patient=[redacted]"), "{}", profile["request"]);
    assert_eq!(profile["request"]["headers"][0][0], "host");
    assert!(!profile.to_string().contains("jane"), "{}", profile["request"]);
}

/// Guards: a request that hangs has a profile when its time is up, and does not keep later ones from having one.
#[test]
fn work_that_hangs_makes_room() {
    const LIMIT: Duration = Duration::from_secs(6);

    in_own_process("tail::work_that_hangs_makes_room", || {
        let shops: [Shop; 5] = std::array::from_fn(|_| Shop::with(layer().timeout(LIMIT), false, profile_after(3)));
        for shop in &shops {
            (1..=3).for_each(|cart| drop(shop.buy(cart)));
            shop.fired();
        }
        let (hang, last) = (&shops[..4], &shops[4]);
        let began = Instant::now();
        for shop in hang {
            shop.way.hangs.store(true, Ordering::Relaxed);
            shop.server.runtime().spawn(shop.checkout(4).send());
            // Of two that come at the same moment, one may take no order.
            until("it hangs", || shop.way.begun.load(Ordering::Relaxed) == 4);
        }
        last.buy(4);
        // Its profile would be kept when nothing of it is left on the way.
        std::thread::sleep(ms(500));
        let profiles = last.profiles().len();
        assert!(profiles == 0 || began.elapsed() >= LIMIT, "four are recorded, and one more");
        for shop in hang {
            assert_eq!(shop.profile()["outcome"], "too_long");
        }
        last.buy(5);
        assert_eq!(last.profile()["request"]["route"], format!("/{}/carts/{{cart}}/checkout", last.name));
    });
}

/// Guards: jobs that the application profiles take no request's place, however many there are.
#[test]
fn jobs_leave_requests_their_places() {
    let shop = Shop::new(false, profile_after(3));
    let jobs = layer();
    let running = [(); 5].map(|()| {
        let jobs = jobs.clone();
        shop.server.runtime().spawn(async move { jobs.job("message", std::future::pending::<()>()).await })
    });
    (1..=4).for_each(|cart| drop(shop.buy(cart)));
    shop.profile();
    running.iter().for_each(tokio::task::JoinHandle::abort);
}
