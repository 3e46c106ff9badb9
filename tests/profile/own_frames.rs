//! A profile is about the application: heeler, which polls all of it, is in none.

use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use heeler::{TimeboxLayer, WatchdogLayer};

use super::common::{FOREVER, PORTABLE, collect, ms};
use super::{Server, layer};

#[inline(never)]
fn works(time: Duration) -> u64 {
    let began = Instant::now();
    let mut sum = 0_u64;
    while began.elapsed() < time {
        sum = black_box(sum.wrapping_add(1));
    }
    sum
}

/// Polls that are over at once: much of the time is what is around them.
async fn yields() {
    for _ in 0..5_000 {
        tokio::task::yield_now().await;
    }
}

async fn page() -> &'static str {
    let limited = heeler::timebox(FOREVER, async {
        tokio::time::sleep(ms(20)).await;
        black_box(works(ms(30)));
        yields().await;
    });
    limited.await.unwrap();
    let (_seen, reports) = collect();
    let watched = async {
        tokio::time::sleep(ms(10)).await;
        black_box(works(ms(30)));
    };
    heeler::watch("within", FOREVER, watched).reports(reports).await;
    heeler::spawn(async {
        tokio::time::sleep(ms(10)).await;
        black_box(works(ms(20)));
    })
    .await
    .unwrap();
    let limited = || heeler::timebox::blocking(FOREVER, || Ok::<_, heeler::Interrupted>(black_box(works(ms(20)))));
    heeler::spawn_blocking(limited).await.unwrap().unwrap();
    let branch = heeler::watch_child(async {
        tokio::time::sleep(ms(10)).await;
        black_box(works(ms(10)));
    });
    tokio::join!(branch, heeler::timebox(FOREVER, tokio::time::sleep(ms(5)))).1.unwrap();
    "done"
}

/// The forms of a profile that name functions.
const FORMS: [&str; 8] = ["json", "folded", "speedscope", "firefox", "pprof", "dot", "svg", "html"];

/// Guards: no form has a function of heeler in it, however the application uses heeler: around the request, in a handler, for
/// spawned work. The application's own functions are all there.
#[test]
fn no_form_of_a_profile_has_frames_of_heeler() {
    let (_seen, reports) = collect();
    let router = Router::new()
        .route("/", get(page))
        .layer(TimeboxLayer::new(FOREVER).reports(reports.clone()))
        .layer(WatchdogLayer::new(FOREVER).reports(reports))
        .layer(layer());
    let server = Server::start(router);
    let id = server.start_job("/?__geordi__");
    let profile = server.profile(&id);
    assert_eq!(profile["outcome"], "finished");
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
    for frame in profile["frames"].as_array().unwrap() {
        let file = frame["file"].as_str().unwrap_or_default();
        // What the compiler has added to a function of the standard library has no line, and the file of the crate that it is
        // compiled in. Out of a registry, that tells that it is heeler's.
        let added = frame["line"].is_null();
        assert!(added || !file.starts_with(sources) && !file.starts_with("src/"), "{frame}");
    }
    let optional = [
        ("firefox", cfg!(feature = "firefox")),
        ("pprof", cfg!(feature = "pprof")),
        ("dot", cfg!(feature = "callgraph")),
    ];
    for form in FORMS.into_iter().filter(|form| optional.iter().all(|(name, is_there)| name != form || *is_there)) {
        let answer = server.get(&format!("/?__geordi__={id}.{form}"));
        let mut body = answer.body.unwrap();
        if form == "pprof" {
            let packed = std::mem::take(&mut body);
            flate2::read::GzDecoder::new(&*packed).read_to_end(&mut body).unwrap();
        }
        let text = String::from_utf8_lossy(&body);
        let first = text.find("heeler::").map(|at| text[at..].chars().take(200).collect::<String>());
        assert_eq!(first, None, "{form}");
        // Without copied stacks nobody knows what a thread computes.
        let functions = ["own_frames::page", "own_frames::works"];
        for function in &functions[..if PORTABLE { 1 } else { 2 }] {
            assert!(text.contains(function), "{form} has no {function}");
        }
    }
}
