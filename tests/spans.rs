//! The spans of slow work are in its report, with fields, in the right order, and without secrets.
#![cfg(feature = "spans")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heeler::{Report, Reports, Sink, SpanLayer};
use tracing::{Instrument, info_span};
use tracing_subscriber::prelude::*;

#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Vec<Report>>>);

impl Sink for Collect {
    fn name(&self) -> &str {
        "collect"
    }

    fn deliver(&self, report: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().unwrap().push(report.clone());
        Ok(())
    }
}

impl Collect {
    fn first(&self) -> Report {
        let began = Instant::now();
        loop {
            if let Some(report) = self.0.lock().unwrap().first() {
                return report.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(20), "no report came");
            std::thread::yield_now();
        }
    }
}

fn reports() -> (Reports, Collect) {
    let collect = Collect::default();
    (Reports::builder().log(false).sink(collect.clone()).build().unwrap(), collect)
}

/// What a report says of its spans: `name field=value ..`.
fn spans(report: &Report) -> Vec<String> {
    let field = |(name, value): &(String, String)| format!(" {name}={value}");
    report.spans.iter().map(|span| span.name.clone() + &span.fields.iter().map(field).collect::<String>()).collect()
}

fn install() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(SpanLayer::new()).init());
}

/// Guards: spans of an `await` that does not end, those entered outside of the watched work included, and fields that are
/// recorded later; values of secret-looking fields are not shown.
#[tokio::test]
async fn a_waiting_job_shows_its_spans() {
    install();
    let (reports, collect) = reports();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    // A first watched poll makes this thread known: spans entered before that are not seen.
    heeler::watch("warm up", Duration::from_secs(60), async {}).await;
    let inner = async {
        let span = info_span!("import", user = 7, album = tracing::field::Empty, api_token = "hunter2");
        async {
            tracing::Span::current().record("album", "norway");
            wait.await
        }
        .instrument(span)
        .await
    };
    let job = heeler::watch("job", Duration::from_millis(200), inner).reports(reports);
    let job = tokio::spawn(job.instrument(info_span!("outer", line = "one\ntwo")));
    let report = tokio::task::spawn_blocking(move || collect.first()).await.unwrap();
    done.send(()).unwrap();
    job.await.unwrap().unwrap();
    let expected = ["outer line=one\\ntwo", "import user=7 api_token=[redacted] album=norway"];
    assert_eq!(spans(&report), expected);
    assert!(report.to_text().contains("import user=7"));
}

/// Guards: spans of a thread that blocks, copied in the signal handler.
#[test]
fn a_blocking_job_shows_its_spans() {
    if option_env!("HEELER_PORTABLE").is_some() {
        return;
    }
    install();
    let (reports, collect) = reports();
    let job = async {
        let _entered = info_span!("resize", photo = 41).entered();
        collect.first()
    };
    let job = heeler::watch("job", Duration::from_millis(20), job).reports(reports);
    let report = futures::executor::block_on(job);
    assert_eq!(spans(&report), ["resize photo=41"]);
}
