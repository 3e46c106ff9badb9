//! How true a profile is: a handler that knows what it did, and busy production traffic beside it.
//!
//! `HEELER_ACCURACY=20 cargo test --release --all-features --test profile_accuracy` runs it twenty times and holds each share
//! to two percentage points; by default it runs once, and only what is wrong fails.
#![cfg(feature = "profile")]
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heeler::ProfileLayer;
use heeler::profile::{Profile, State};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use common::{PORTABLE, ms};

/// What the handler knows of itself: how long it was in each of its parts, and altogether.
type Truth = Arc<Mutex<HashMap<&'static str, Duration>>>;

fn note(truth: &Truth, part: &'static str, began: Instant) {
    *truth.lock().unwrap().entry(part).or_default() += began.elapsed();
}

#[inline(never)]
fn compute_a(truth: &Truth) {
    let began = Instant::now();
    while began.elapsed() < ms(300) {
        std::hint::black_box(&began);
    }
    note(truth, "compute_a", began);
}

#[inline(never)]
fn compute_b(truth: &Truth) {
    let began = Instant::now();
    while began.elapsed() < ms(200) {
        std::hint::black_box(&began);
    }
    note(truth, "compute_b", began);
}

/// Blocked at a lock that somebody else has.
#[inline(never)]
fn wait_for_the_lock(truth: &Truth, file: &File) {
    let began = Instant::now();
    file.lock().unwrap();
    note(truth, "wait_for_the_lock", began);
    file.unlock().unwrap();
}

async fn first_point(truth: &Truth) {
    let began = Instant::now();
    tokio::time::sleep(ms(250)).await;
    note(truth, "first_point", began);
}

async fn second_point(truth: Truth) {
    let began = Instant::now();
    tokio::time::sleep(ms(150)).await;
    note(&truth, "second_point", began);
}

async fn forever() {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

/// 30 % in `compute_a` on a blocking thread, 20 % in `compute_b`, 10 % at the lock, 25 % at the first point within a `join!`,
/// 15 % at the second, in a child task within a `select!`.
async fn handler(truth: Truth, path: std::path::PathBuf) -> Result<Response<String>, Infallible> {
    let all = Instant::now();
    let its = Arc::clone(&truth);
    heeler::spawn_blocking(move || compute_a(&its)).await.unwrap();
    compute_b(&truth);
    let (file, others) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    let (locked, is_locked) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        others.lock().unwrap();
        locked.send(()).unwrap();
        std::thread::sleep(ms(100));
        others.unlock().unwrap();
    });
    is_locked.recv().unwrap();
    wait_for_the_lock(&truth, &file);
    holder.join().unwrap();
    tokio::join!(first_point(&truth), tokio::task::yield_now());
    tokio::select! {
        done = heeler::spawn(second_point(Arc::clone(&truth))) => done.unwrap(),
        () = forever() => unreachable!("an hour is long enough"),
    }
    note(&truth, "all", all);
    Ok(Response::new("done".to_owned()))
}

/// Traffic that keeps the processor half busy, until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    _runtime: tokio::runtime::Runtime,
}

impl Traffic {
    fn start() -> Self {
        let runtime = common::runtime(2);
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..4 {
            let stop = Arc::clone(&stop);
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_micros(300) {
                        std::hint::spin_loop();
                    }
                    tokio::time::sleep(ms(1)).await;
                }
            });
        }
        Self { stop, _runtime: runtime }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The share of the time, in per cent, whose stacks go through a function of that name.
fn share(profile: &Profile, function: &str) -> f64 {
    let is_it = |name: &str| {
        name.split("::").any(|part| part.trim_matches(|c: char| !c.is_alphanumeric() && c != '_') == function)
    };
    let through = |mut at: Option<u32>| {
        while let Some(node) = at.map(|at| profile.nodes[at as usize]) {
            if profile.frames[node.frame as usize].function.as_deref().is_some_and(is_it) {
                return true;
            }
            at = node.parent;
        }
        false
    };
    let nanos: u64 = profile.slices.iter().filter(|slice| through(Some(slice.stack))).map(|slice| slice.nanos).sum();
    nanos as f64 * 100.0 / profile.wall_nanos as f64
}

fn state(profile: &Profile, state: State) -> f64 {
    let nanos: u64 = profile.slices.iter().filter(|slice| slice.state == state).map(|slice| slice.nanos).sum();
    nanos as f64 * 100.0 / profile.wall_nanos as f64
}

/// Guards: each part of the request has the share of its time that it really took, and the shares sum to the whole.
#[test]
fn shares_match_the_time_really_spent() {
    if PORTABLE {
        return eprintln!("skipped: threads cannot be sampled in this build");
    }
    let rounds = std::env::var("HEELER_ACCURACY").ok().and_then(|rounds| rounds.parse().ok());
    let tolerance = if rounds.is_some() { 2.0 } else { 25.0 };
    let lock = tempfile::NamedTempFile::new().unwrap();
    let _traffic = Traffic::start();
    let runtime = common::runtime(2);
    for round in 0..rounds.unwrap_or(1) {
        let truth = Truth::default();
        let (its, path) = (Arc::clone(&truth), lock.path().to_owned());
        let service = tower::service_fn(move |_: Request<String>| handler(Arc::clone(&its), path.clone()));
        let service = ProfileLayer::new(|_: &http::request::Parts| true).layer(service);
        let request = Request::get("/?__geordi__=json").body(String::new()).unwrap();
        let body = runtime.block_on(async { service.oneshot(request).await.unwrap().into_body().collect().await });
        let profile: Profile = serde_json::from_slice(&body.unwrap().to_bytes()).unwrap();
        let truth = truth.lock().unwrap();
        let all = truth["all"].as_secs_f64();
        let wall = profile.wall_nanos as f64 / 1e9;
        let sum: u64 = profile.slices.iter().map(|slice| slice.nanos).sum();
        assert_eq!(sum, profile.wall_nanos);
        let states = [State::OnCpu, State::Blocked, State::NoCpu, State::Waiting, State::Runnable]
            .map(|one| state(&profile, one));
        let mut line = format!("round {round}: {wall:.3} s of {all:.3} s, states {states:.1?}");
        let mut worst = 0_f64;
        for part in ["compute_a", "compute_b", "wait_for_the_lock", "first_point", "second_point"] {
            let (seen, expected) = (share(&profile, part), truth[part].as_secs_f64() * 100.0 / wall);
            worst = worst.max((seen - expected).abs());
            line += &format!(", {part} {seen:.2} of {expected:.2} %");
        }
        eprintln!("{line}; unattributed {:.2} %, {:?}", share(&profile, "unattributed"), profile.quality);
        assert!(worst <= tolerance, "{line}");
        if rounds.is_some() {
            assert!((wall - all).abs() <= 0.005 * all, "{line}");
        }
    }
}
