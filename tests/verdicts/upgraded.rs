//! What happens on a connection after its request has switched protocols.

use std::time::Duration;

use heeler::WatchdogLayer;
use heeler::report::{Kind, Verdict};
use http::Request;
use tower::{Layer as _, ServiceExt as _};

use super::common::{Collected, PORTABLE, beside_others, collect};
use super::{Driven, THRESHOLD, ms, service_of};

async fn answer_message() {
    tokio::time::sleep(super::common::FOREVER).await;
}

/// Blocks its thread until that is reported.
#[inline(never)]
fn parse_message(seen: &Collected) {
    if !PORTABLE {
        seen.wait("the poll that blocks", |report| report.kind == Kind::BlockingPoll);
    }
}

/// Guards: the handler's reports say which request it belongs to, though that is over, and go where its would go.
#[test]
fn a_handler_belongs_to_its_request() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(super::common::FOREVER).reports(reports);
    let driven = Driven::new(1);
    let upgrades = service_of(async {
        let handler = heeler::upgrade("chat", THRESHOLD, |message: Duration| async move {
            tokio::time::sleep(message).await;
            answer_message().await;
        });
        tokio::spawn(handler(ms(1)));
    });
    let request = Request::get("/chat/4711?token=hunter2")
        .header("host", "h")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    driven.spawn(layer.layer(upgrades).oneshot(request.body(()).unwrap()));
    let report = seen.first();
    assert_eq!((report.kind, report.verdict, report.job.as_deref()), (Kind::SlowJob, Verdict::Waiting, Some("chat")));
    let text = report.to_text();
    assert!(report.sentence().starts_with("the job \"chat\" of GET /chat/4711?token=[redacted] is waiting"), "{text}");
    assert!(report.location.unwrap().function.unwrap().ends_with("upgraded::answer_message"), "{text}");
    assert_eq!(report.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert!(text.contains("  job         chat\n  request     GET /chat/4711?token=[redacted] HTTP/1.1\n"), "{text}");
    assert_eq!(layer.handle().in_flight(), 0, "the request is over");
}

/// Guards: a handler that runs as long as its client stays is reported if it blocks its thread, and so is what it does with
/// one message.
#[test]
fn one_message_on_a_connection_that_stays_is_reported() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(super::common::FOREVER).blocking_after(ms(100)).reports(reports.clone());
    let driven = Driven::new(1);
    let theirs = seen.clone();
    let upgrades = service_of(async move {
        let handler = heeler::upgrade("chat", Duration::MAX, |()| async move {
            tokio::task::yield_now().await;
            parse_message(&theirs);
            heeler::watch("message", THRESHOLD, answer_message()).reports(reports).await;
        });
        tokio::spawn(handler(()));
    });
    driven.spawn(layer.layer(upgrades).oneshot(super::get("/chat")));
    if !PORTABLE {
        let blocking = seen.wait("the poll that blocks", |report| report.kind == Kind::BlockingPoll);
        assert!(blocking.sentence().contains("the job \"chat\" of GET /chat "), "{}", blocking.sentence());
    }
    let message = seen.wait("the message", |report| report.job.as_deref() == Some("message"));
    assert!(message.sentence().starts_with("the job \"message\" of GET /chat is waiting"), "{}", message.sentence());
    assert_eq!(message.request.unwrap().headers, [("host".to_owned(), "photos.example".to_owned())]);
}

/// Guards: outside of a request it is a job like any other.
#[test]
fn a_handler_without_a_request_is_a_job() {
    let _guard = beside_others();
    let (seen, reports) = collect();
    let driven = Driven::new(1);
    let handler = heeler::upgrade("chat", THRESHOLD, |()| answer_message());
    driven.spawn(handler(()).reports(reports));
    let report = seen.first();
    assert!(report.request.is_none() && report.sentence().starts_with("the job \"chat\" is waiting"), "{report}");
}
