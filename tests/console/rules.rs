//! Rules and what they leave behind, on the console.

use std::time::Duration;

use heeler::report::Report;
use heeler::{ProfileLayer, Reports, Rule, WatchdogLayer, authorize};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::app::{App, SECRET};
use crate::common::{Driven, collect_with, ms, until};

const MINUTE: Duration = Duration::from_secs(60);

/// A service with a watchdog that has a name, a rule, and a profiler.
fn start(reports: &Reports) -> impl Fn(&Driven, &str) {
    let watchdog = WatchdogLayer::new(ms(20)).reports(reports.clone()).name("front <door>");
    let profile = ProfileLayer::new(authorize::bearer(SECRET).unwrap());
    let service = watchdog.layer(profile.layer(service_fn(async |_: Request<String>| {
        tokio::time::sleep(ms(60)).await;
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    })));
    move |driven, uri| {
        let request = Request::get(uri).body(String::new()).unwrap();
        let answered = driven.spawn(service.clone().oneshot(request));
        assert!(futures::executor::block_on(answered).unwrap().is_ok());
    }
}

#[test]
fn a_rule_leaves_a_profile_in_the_history_and_has_a_switch() {
    let (collected, reports) =
        collect_with(|builder| builder.repeat_after(MINUTE).rule(Rule::slow(2, MINUTE).profile_next().at_most(5)));
    let app = App::start_with(reports);
    let send = start(&app.reports);
    let says = |report: &Report, what: &str| report.notes.iter().any(|note| note.contains(what));
    send(&app.driven, "/rates?token=hunter2");
    send(&app.driven, "/rates?token=hunter2");
    collected.wait("the rule fires", |report| report.update == 0 && says(report, "time 1 of 5"));
    collected.wait("its updates say it, too", |report| report.update == 1 && says(report, "time 1 of 5"));
    send(&app.driven, "/rates?token=hunter2&x=%3Cb%3E");
    let has_profile = || app.get("?view=history").body.contains("?profile=");
    until("the profile is in the history", has_profile);
    let page = app.get("?view=history").body;
    assert!(page.contains("by a rule: ") && page.contains("2 requests on GET /rates were slow within"), "{page}");
    assert!(!page.contains("hunter2") && !page.contains("<b>x"), "{page}");
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
    let before = app.reports.stats().made;
    for _ in 0..3 {
        send(&app.driven, "/rates");
    }
    until("they are reported", || app.reports.stats().made >= before + 3);
    assert!(!collected.all().iter().any(|report| says(report, "time 2 of")));
    assert_eq!(post("?rule=0&to=normal"), 303);
    assert!(!app.get("?view=switches").body.contains("changed by"));
}
