//! How reported work has ended: the last update of its report.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use heeler::report::{Ended, Ending, Kind, Report};
use heeler::{TimeboxLayer, WatchdogLayer};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tower::{Layer as _, Service, ServiceExt as _};

use super::common::{Collected, FOREVER, PATIENCE, beside_others, collect_with_endings, place};
use super::{Driven, get, ms, nothing_in, service_of};

const THRESHOLD: Duration = ms(100);

/// The last update, and the report that it belongs to.
#[track_caller]
fn ending(seen: &Collected) -> (Report, Ending) {
    let last = seen.wait("the end", |report| report.ending.is_some());
    let all = seen.all();
    let before: Vec<_> = all.iter().filter(|report| report.id == last.id && report.ending.is_none()).collect();
    let latest = before.iter().map(|report| report.update).max().expect("a report before");
    assert_eq!(all.iter().filter(|report| report.ending.is_some() && report.id == last.id).count(), 1, "once");
    assert_eq!(last.update, latest + 1);
    assert!(last.stacks.is_empty() && last.timeline.is_empty(), "{}", last.to_text());
    let ending = last.ending.clone().unwrap();
    assert!(ending.after >= last.elapsed, "{ending:?} of {}", last.to_text());
    (last, ending)
}

/// Sends a request to a service that answers once it is told to, and tells it when there is a report.
fn answered<R: Send + 'static>(
    layer: WatchdogLayer,
    seen: &Collected,
    answer: impl FnOnce() -> Result<Response<String>, R> + Send + 'static,
) -> (Report, Ending) {
    let (tell, told) = oneshot::channel();
    let work = std::sync::Mutex::new(Some((told, answer)));
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let (told, answer) = work.lock().unwrap().take().expect("one request");
        async move {
            let () = told.await.unwrap();
            answer()
        }
    }));
    let driven = Driven::new(1);
    let running =
        driven.spawn(async move { AssertUnwindSafe(service.oneshot(get("/slow"))).catch_unwind().await.is_ok() });
    seen.first();
    tell.send(()).unwrap();
    let _ = futures::executor::block_on(running).unwrap();
    ending(seen)
}

fn layer() -> (Collected, heeler::Reports, WatchdogLayer) {
    let (seen, reports) = collect_with_endings(|builder| builder);
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    (seen, reports, layer)
}

/// Guards: the morning after, the report says that the request came back, when, and with which status.
#[test]
fn a_response_is_an_ending_with_its_status() {
    let _guard = beside_others();
    for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
        let (seen, _reports, layer) = layer();
        let answer = move || Ok::<_, Infallible>(Response::builder().status(status).body(String::new()).unwrap());
        let (last, ending) = answered(layer, &seen, answer);
        assert_eq!((ending.how, ending.status), (Ended::Finished, Some(status.as_u16())));
        assert!(ending.after >= THRESHOLD - ms(1) && ending.after < FOREVER);
        let sentence = last.sentence();
        let with_status = format!(" with {}: after ", status.as_u16());
        assert!(sentence.starts_with("GET /slow finished after ") && sentence.contains(&with_status), "{sentence}");
        assert_eq!((last.location.clone(), last.kind), (seen.first().location, Kind::SlowRequest));
        assert!(last.to_text().contains("  ended       finished after "), "{}", last.to_text());
    }
}

#[test]
fn an_error_and_a_panic_are_endings() {
    let _guard = beside_others();
    let (seen, _reports, failing) = layer();
    let (_, ending) = answered(failing, &seen, || Err("on purpose"));
    assert_eq!((ending.how, ending.status), (Ended::Failed, None));
    let (seen, _reports, panicking) = layer();
    let (last, ending) = answered(panicking, &seen, || -> Result<_, Infallible> { panic!("on purpose") });
    assert_eq!((ending.how, ending.status), (Ended::Panicked, None));
    assert!(last.sentence().contains(" panicked after "), "{last}");
}

/// Guards: a request that is dropped has no answer, and nobody knows why. It isn't reported as abandoned as well.
#[test]
fn a_dropped_request_is_an_ending() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let driven = Driven::new(1);
    let running = driven.spawn(layer.layer(service_of(std::future::pending())).oneshot(get("/left")));
    seen.first();
    running.abort();
    let (last, ending) = ending(&seen);
    assert_eq!((ending.how, ending.status), (Ended::Dropped, None));
    assert!(last.sentence().contains(", before it had an answer: "), "{last}");
    assert!(reports.blocking_flush(PATIENCE));
    assert!(seen.all().iter().all(|report| report.kind == Kind::SlowRequest));
}

/// Guards: a timebox that ends a reported request is told from a client that leaves, whichever of the two layers is
/// outside.
#[test]
fn a_timebox_is_an_ending() {
    async fn run<S>(service: S)
    where
        S: Service<Request<()>, Error = Infallible>,
    {
        assert!(service.oneshot(get("/slow")).await.is_ok());
    }
    let _guard = beside_others();
    let limit = || TimeboxLayer::new(ms(1_500)).reports(heeler::Reports::builder().without_log().build().unwrap());
    let full = |response: Response<String>| response.map(http_body_util::Full::<bytes::Bytes>::from);
    let service = || service_of(std::future::pending()).map_response(full);

    let (seen, _reports, inside) = layer();
    super::common::runtime(1).block_on(run(limit().layer(inside.layer(service()))));
    let (last, end) = ending(&seen);
    assert_eq!((end.how, end.status), (Ended::Interrupted, None), "{last}");

    let (seen, _reports, outside) = layer();
    super::common::runtime(1).block_on(run(outside.layer(limit().layer(service()))));
    let (last, end) = ending(&seen);
    assert_eq!((end.how, end.status), (Ended::Interrupted, Some(503)), "{last}");
    assert!(last.sentence().contains(" was ended by its timebox after "), "{last}");
}

#[test]
fn jobs_have_endings() {
    let _guard = beside_others();
    let driven = Driven::new(1);
    for is_dropped in [false, true] {
        let (seen, reports) = collect_with_endings(|builder| builder);
        let (tell, told) = oneshot::channel::<()>();
        let job = driven.spawn(heeler::watch("import", THRESHOLD, told).reports(reports));
        seen.first();
        if is_dropped {
            job.abort()
        } else {
            tell.send(()).unwrap()
        }
        let (last, ending) = ending(&seen);
        assert_eq!(ending.how, if is_dropped { Ended::Dropped } else { Ended::Finished });
        assert_eq!((ending.status, last.job.as_deref()), (None, Some("import")));
    }
}

/// Guards: the head and the body of a response are two reports, and each has its own end.
#[test]
fn a_stalled_body_goes_on() {
    let _guard = beside_others();
    let (seen, _reports, layer) = layer();
    let (tell, told) = oneshot::channel::<()>();
    let body = futures::stream::once(async move {
        let _ = told.await;
        Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from_static(b"x")))
    });
    let body = std::sync::Mutex::new(Some(body));
    let service = layer.watch_bodies().layer(tower::service_fn(move |_: Request<()>| {
        let body = Box::pin(http_body_util::StreamBody::new(body.lock().unwrap().take().unwrap()));
        async move { Ok::<_, Infallible>(Response::new(body)) }
    }));
    let driven = Driven::new(1);
    let running =
        driven.spawn(async move { service.oneshot(get("/")).await.unwrap().into_body().collect().await.is_ok() });
    seen.wait("the body", |report| report.kind == Kind::SlowBody);
    tell.send(()).unwrap();
    assert!(futures::executor::block_on(running).unwrap());
    let (last, ending) = ending(&seen);
    assert_eq!((last.kind, ending.how, ending.status), (Kind::SlowBody, Ended::Finished, None));
    assert!(last.sentence().starts_with("the body of GET / went on after "), "{last}");
}

/// Guards: the throttle decides about a report, and the ending follows it. None is held back, and none is added.
#[test]
fn an_ending_goes_where_its_report_went() {
    let _guard = beside_others();
    let (seen, reports) = collect_with_endings(|builder| builder.repeat_after(FOREVER));
    let layer = WatchdogLayer::new(THRESHOLD).without_blocking_reports().reports(reports.clone());
    let driven = Driven::new(1);
    let (tell, told) = tokio::sync::watch::channel(());
    for _ in 0..3 {
        let mut told = told.clone();
        let work = async move { drop(told.changed().await) };
        driven.spawn(layer.layer(service_of(work)).oneshot(get("/same")));
    }
    super::until("all are reported", || reports.stats().suppressed >= 2);
    tell.send(()).unwrap();
    ending(&seen);
    super::until("all have ended", || layer.handle().in_flight() == 0);
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!(seen.all().iter().filter(|report| report.ending.is_some()).count(), 1);
    let stats = reports.stats();
    assert_eq!(stats.made, stats.delivered + stats.suppressed, "{stats:?}");
}

/// Guards: work that ends in time has no ending, and nothing else has one without a report.
#[test]
fn what_was_not_reported_has_no_ending() {
    let _guard = beside_others();
    let (seen, reports, layer) = layer();
    let driven = Driven::new(1);
    let quick = driven.spawn(layer.layer(service_of(async {})).oneshot(get("/quick")));
    assert!(futures::executor::block_on(quick).unwrap().is_ok());
    nothing_in(&seen, &reports);

    let (seen, reports) = collect_with_endings(|builder| builder.without_endings());
    let (tell, told) = oneshot::channel::<()>();
    let job = driven.spawn(heeler::watch("import", THRESHOLD, told).reports(reports.clone()));
    seen.first();
    tell.send(()).unwrap();
    futures::executor::block_on(job).unwrap().unwrap();
    assert!(reports.blocking_flush(PATIENCE));
    assert!(seen.all().iter().all(|report| report.ending.is_none()));
}

async fn waits_for(told: oneshot::Receiver<()>) {
    told.await.unwrap();
}

/// Guards: the files of a report keep its stacks, and say how it ended.
#[test]
fn the_files_of_a_report_get_its_ending() {
    let _guard = beside_others();
    let directory = tempfile::tempdir().unwrap();
    let (seen, reports) = collect_with_endings(|builder| builder.directory(directory.path()));
    let (tell, told) = oneshot::channel::<()>();
    let driven = Driven::new(1);
    driven.spawn(heeler::watch("import", THRESHOLD, waits_for(told)).reports(reports.clone()));
    seen.first();
    tell.send(()).unwrap();
    let (last, _) = ending(&seen);
    assert!(reports.blocking_flush(PATIENCE));
    let read = |extension: &str| {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        let named = files.filter(|file| file.extension().is_some_and(|found| found == extension));
        let texts: Vec<_> = named.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts.len(), 1, "the same files");
        texts.into_iter().next().unwrap()
    };
    let kept: Report = serde_json::from_str(&read("json")).unwrap();
    assert_eq!((&kept.ending, kept.update, kept.sentence()), (&last.ending, last.update, last.sentence()));
    assert_eq!(place(&kept), "waits_for");
    let text = read("txt");
    assert!(text.starts_with("the job \"import\" finished after ") && text.contains("=> "), "{text}");
    assert!(text.contains("Where it waits") && text.contains("Where the time went"), "{text}");
    assert!(read("svg").contains("waits_for"));
}

/// Guards: a mail about an ending is a reply, and only if it was asked for. No other mail is sent for it.
#[cfg(feature = "email")]
#[test]
fn endings_are_mailed_only_if_asked_for() {
    let _guard = beside_others();
    for asked in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let email = heeler::Email::files(directory.path());
        let email = if asked { email.endings() } else { email };
        let (seen, reports) = collect_with_endings(|builder| builder.email(email));
        let (tell, told) = oneshot::channel::<()>();
        let driven = Driven::new(1);
        driven.spawn(heeler::watch("import", THRESHOLD, waits_for(told)).reports(reports.clone()));
        seen.first();
        assert!(reports.blocking_flush(PATIENCE), "the report is mailed");
        tell.send(()).unwrap();
        ending(&seen);
        assert!(reports.blocking_flush(PATIENCE));
        let mails = std::fs::read_dir(directory.path()).unwrap().map(|mail| mail.unwrap().path());
        let mails: Vec<_> = mails.map(|mail| std::fs::read_to_string(mail).unwrap()).collect();
        let replies: Vec<_> = mails.iter().filter(|mail| mail.contains("finished after")).collect();
        assert_eq!(replies.len(), usize::from(asked), "{mails:?}");
        assert!(replies.iter().all(|mail| mail.contains("In-Reply-To: <") && !mail.contains("timeline.svg")));
        let stats = reports.stats();
        assert_eq!((stats.made, stats.undelivered), (stats.delivered, 0));
    }
}
