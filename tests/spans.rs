//! The spans of slow work are in its report, with fields, in the right order, and without secrets.
#![cfg(feature = "spans")]

mod common;

use std::time::Duration;

use common::{PORTABLE, collect};
use heeler::{Report, SpanLayer};
use tracing::{Instrument, info_span};
use tracing_subscriber::prelude::*;

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
    let (seen, reports) = collect();
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
    let report = tokio::task::spawn_blocking(move || seen.first()).await.unwrap();
    done.send(()).unwrap();
    job.await.unwrap().unwrap();
    let expected = ["outer line=one\\ntwo", "import user=7 api_token=[redacted] album=norway"];
    assert_eq!(spans(&report), expected);
    assert!(report.to_text().contains("import user=7"));
}

/// Guards: spans of a thread that blocks, copied in the signal handler.
#[test]
fn a_blocking_job_shows_its_spans() {
    if PORTABLE {
        return;
    }
    install();
    let (seen, reports) = collect();
    let job = async {
        let _entered = info_span!("resize", photo = 41).entered();
        seen.first()
    };
    let job = heeler::watch("job", Duration::from_millis(20), job).reports(reports);
    let report = futures::executor::block_on(job);
    assert_eq!(spans(&report), ["resize photo=41"]);
}
