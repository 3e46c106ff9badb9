//! Rules and what they leave behind, on the console.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heeler::report::Report;
use heeler::{ProfileLayer, Reports, Rule, WatchdogLayer, authorize};
use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::app::{App, SECRET};
use crate::common::{Driven, collect_with, ms, until};

const MINUTE: Duration = Duration::from_secs(60);

/// A service with a watchdog that has a name, a rule, and a profiler. Requests end when the gate opens.
fn start(reports: &Reports, gate: &Arc<Semaphore>) -> impl Fn(&Driven, &str) -> JoinHandle<()> {
    let watchdog = WatchdogLayer::new(ms(20)).reports(reports.clone()).name("front <door>");
    let profile = ProfileLayer::new(authorize::bearer(SECRET).unwrap());
    let gate = Arc::clone(gate);
    let service = watchdog.layer(profile.layer(service_fn(move |_: Request<String>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }
    })));
    move |driven, uri| {
        let request = Request::get(uri).body(String::new()).unwrap();
        let answered = service.clone().oneshot(request);
        driven.spawn(async move { drop(answered.await) })
    }
}

/// Guards: work that began after somebody has looked at all work can be looked at, and is not said to be over.
#[test]
fn work_that_has_just_begun_is_in_flight() {
    let app = App::start();
    assert_eq!(app.get("?form=json").status, 200);
    let gate = app.open.clone();
    let begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&begun);
    app.request("/new/7", async move {
        begins.store(true, Ordering::Release);
        drop(gate.acquire().await);
    });
    until("it has begun", || begun.load(Ordering::Acquire));
    let id = || {
        let table: serde_json::Value = serde_json::from_str(&app.get("?form=table").body).unwrap();
        table["work"].as_array().unwrap().iter().find(|work| work["name"] == "GET /new/7")?["id"]
            .as_str()
            .map(str::to_owned)
    };
    until("it is in flight", || id().is_some());
    assert_eq!(app.get(&format!("?work={}", id().unwrap())).status, 200);
    assert_eq!(app.get("?work=0000000000000000").status, 404);
    app.open.add_permits(1);
}

#[test]
fn a_rule_leaves_a_profile_in_the_history_and_has_a_switch() {
    let (collected, reports) =
        collect_with(|builder| builder.repeat_after(MINUTE).rule(Rule::slow(2, MINUTE).profile_next().at_most(5)));
    let app = App::start_with(reports);
    let send = start(&app.reports, &app.open);
    let says = |report: &Report, what: &str| report.notes.iter().any(|note| note.contains(what));
    let one = send(&app.driven, "/rates?token=hunter2");
    let other = send(&app.driven, "/rates?token=hunter2");
    collected.wait("the rule fires", |report| report.update == 0 && says(report, "time 1 of 5"));
    collected.wait("its updates say it, too", |report| report.update == 1 && says(report, "time 1 of 5"));
    let next = send(&app.driven, "/rates?token=hunter2&x=%3Cb%3E");
    app.open.add_permits(3);
    [one, other, next].into_iter().for_each(|sent| futures::executor::block_on(sent).unwrap());
    let has_profile = || app.get("?view=history").body.contains("?profile=");
    until("the profile is in the history", has_profile);
    let page = app.get("?view=history").body;
    assert!(page.contains("2 requests on GET /rates were slow within"), "{page}");
    assert!(!page.contains("hunter2"), "{page}");
    let id = page.split("?profile=").nth(1).unwrap().split('"').next().unwrap();
    let picture = app.get(&format!("?profile={id}"));
    assert!(picture.head.contains("content-type: image/svg+xml") && picture.head.contains("content-security-policy: "));
    assert!(picture.body.starts_with("<?xml") || picture.body.starts_with("<svg"), "{}", picture.body);
    let profile: serde_json::Value = serde_json::from_str(&app.get(&format!("?profile={id}&form=json")).body).unwrap();
    assert_eq!((&profile["id"], &profile["outcome"]), (&id.into(), &"finished".into()));
    assert!(!profile.to_string().contains("hunter2"));
    assert_eq!(app.get(&format!("?profile={id}&form=text")).status, 404);
    assert_eq!(app.get("?profile=00000000000000000000000000000000").status, 404);
    assert_eq!(app.get("?profile=../x").status, 404);

    // The budget.
    let page = app.get("?view=switches").body;
    assert!(page.contains("2 slow requests on one route within 1 min 00 s: profile the next"), "{page}");
    assert!(page.contains("at most 5 an hour; 1 in the last hour"), "{page}");
    assert!(page.contains("watchdog front &lt;door&gt;"), "{page}");
    let post = |query: &str| {
        let head = "host: localhost\r\ncontent-length: 0\r\norigin: http://localhost";
        app.ask(&format!("POST /{query} HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\n{head}\r\n")).status
    };
    assert_eq!(post("?rule=0&to=off&minutes=10"), 303);
    assert_eq!(post("?rule=1&to=off&minutes=10"), 404);
    assert!(app.get("?view=switches").body.contains("then at most 5 an hour"));
    let before = collected.all().len();
    let more = [0; 3].map(|_| send(&app.driven, "/rates"));
    until("they are slow", || app.reports.stats().made >= before as u64 + 3);
    app.open.add_permits(3);
    more.into_iter().for_each(|sent| futures::executor::block_on(sent).unwrap());
    assert!(!collected.all().iter().any(|report| says(report, "time 2 of")));
    assert_eq!(post("?rule=0&to=normal"), 303);
    assert!(!app.get("?view=switches").body.contains("changed by"));
}

/// Guards: somebody who looks at work that is in flight can have the next of its kind profiled, and no other page can.
#[test]
fn the_next_like_it_is_profiled_on_demand() {
    let app = App::start();
    let profile = ProfileLayer::new(authorize::bearer(SECRET).unwrap());
    let service = profile.layer(service_fn(async |_: Request<String>| {
        tokio::time::sleep(ms(20)).await;
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let gate = app.open.clone();
    app.request("/on-demand/7", async move { drop(gate.acquire().await) });
    let gate = app.open.clone();
    app.driven.spawn(heeler::watch("import <b>", MINUTE, async move { drop(gate.acquire().await) }));
    let ids = || {
        let page = app.get("?form=table").body;
        let table: serde_json::Value = serde_json::from_str(&page).unwrap();
        let work = table["work"].as_array().unwrap().clone();
        work.into_iter()
            .map(|work| (work["name"].as_str().unwrap().to_owned(), work["id"].as_str().unwrap().to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let names = ["GET /on-demand/7", "import <b>"];
    until("both are in flight", || names.iter().all(|name| ids().contains_key(*name)));
    let ids = ids();
    let page = app.get(&format!("?work={}", ids["GET /on-demand/7"])).body;
    assert!(page.contains("Profile the next request on this route"), "{page}");
    let post = |id: &str, origin: &str| {
        let head = format!("host: localhost\r\ncontent-length: 0\r\norigin: {origin}");
        app.ask(&format!("POST /?order={id} HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\n{head}\r\n")).status
    };
    assert_eq!(post(&ids["GET /on-demand/7"], "http://evil.example"), 403);
    assert_eq!(post("0000000000000000", "http://localhost"), 404);
    assert_eq!(post(&ids["GET /on-demand/7"], "http://localhost"), 303);
    assert_eq!(post(&ids["import <b>"], "http://localhost"), 303);
    let request = Request::get("/on-demand/8").body(String::new()).unwrap();
    assert!(futures::executor::block_on(app.driven.spawn(service.oneshot(request))).unwrap().is_ok());
    let job = profile.clone();
    let done = app.driven.spawn(async move { job.job_when_asked("import <b>", async { 7 }).await });
    assert_eq!(futures::executor::block_on(done).unwrap(), 7);
    let history = || app.get("?view=history").body;
    until("both are in the history", || history().matches("asked for on the console by somebody").count() == 2);
    assert!(history().contains("GET /on-demand/8") && history().contains("job import &lt;b&gt;"), "{}", history());
    app.open.add_permits(10);
}
