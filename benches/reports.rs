//! What a report costs once its stacks are taken: to be written for a reader, to be delivered, to wait.
//!
//! - `reports.small`, `reports.thousand_stacks`, `reports.thousand_branches`: a report as text, JSON, HTML and SVG, a second.
//!   The small one is a real report of a request that waits, ten async levels deep; the others are the same with a thousand
//!   distinct stacks, of as many waits one after the other, or of one wait. Text and HTML show the first sixteen. Beside
//!   it, of the same report: `{:#?}`, the only text that Rust writes by itself;
//!   `serde_json` for a `Value` that is there already; `inferno` for folded lines that are there already, with a box a frame
//!   (heeler's picture is made from the report, and folds other people's frames).
//! - `reports.delivery`: from captured stacks to a sink that takes everything, on the reporter's thread: unwound, named,
//!   put together, throttled and handed over. The sink holds up the first report until the stacks of all others wait; then
//!   time runs. Goals are what captures are limited to, 500 a second. Beside it `files_by_hand`, before and after: the same
//!   files, with bytes that are there already.
//!   - `sink_alone`: without anything else.
//!   - `directory`: with the directory besides, three files a report, which are not synced. `full_directory`: each new
//!     report costs the removal of an old one. For some minutes after many files were removed, by this benchmark for
//!     example, ext4 takes several times as long to make new ones (`recently_deleted` in a profile).
//!   - `spool`: with a spool besides. *Each report is synced to disk*, and so is its directory, before the first attempt:
//!     the disk decides, and there is no goal.
//! - `reports.queued`: memory of 10,000 reports that wait for a sink which takes none; what the allocator has given out.
//!   With a spool, what is beyond the queue's bound waits there alone: `beyond_the_bound` is what is kept of such a one in
//!   memory. (This spool lies in `/dev/shm` where there is one, for not every disk takes 450 reports a second.)
//!
//! Each part runs in a process of its own.
//!
//! ```text
//! cargo bench -p benches --bench reports               # two minutes
//! cargo bench -p benches --bench reports -- --quick    # half a minute; 1,000 are queued instead of 10,000
//! cargo bench -p benches --bench reports -- --part render      # for a profiler: this process alone
//! ```

#![allow(unsafe_code, reason = "the allocator that counts")]

#[path = "common/collected.rs"]
mod collected;
#[path = "common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use collected::Collected;
use common::{Contender, at_least, at_most, nanos_on_cpu, pick, plain, race, resident, thread, undisturbed};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use heeler::report::Activity;
use heeler::{Report, Reports, ReportsBuilder, Sink, WatchdogLayer};
use http::{Request, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

/// Bytes that are given out at the moment, on all threads: a report is made on one and dropped on another.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

fn add(bytes: usize, sign: i64) {
    if COUNTS.load(Relaxed) {
        BYTES.fetch_add(sign * bytes as i64, Relaxed);
    }
}

// SAFETY: everything is the system allocator's; the counters are plain atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(layout.size(), -1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(layout.size(), -1);
        add(size, 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the monitor takes a second, whatever there is to capture.
const CAPTURES: f64 = 500.0;
/// Jobs begin at this rate, which leaves some of that.
const JOBS_A_SECOND: u32 = 450;
const THRESHOLD: Duration = Duration::from_millis(200);
/// Long enough to be captured, and not so long as to be captured again.
const JOB: Duration = Duration::from_millis(300);

fn main() {
    let arguments = common::after("--part").unwrap_or_default();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["render", ..] => render(),
        ["delivery", what, ..] => delivery(what),
        ["queued", what, ..] => queued(what),
        _ => {
            common::again(&["--part", "render"]);
            ["sink_alone", "directory", "full_directory", "spool"]
                .iter()
                .for_each(|what| common::again(&["--part", "delivery", what]));
            ["in_memory", "spool"].iter().for_each(|what| common::again(&["--part", "queued", what]));
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Boxed, so that each level has a frame of its own.
fn nested(depth: u32) -> BoxFuture<'static, ()> {
    async move { if depth > 1 { nested(depth - 1).await } else { tokio::time::sleep(JOB).await } }.boxed()
}

/// Waits for something that another thread does.
fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(300), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

// Rendering

/// A report's own.
const FORMS: [&str; 4] = ["text", "json", "html", "svg"];

fn render() {
    let small = real();
    contest("small", &small, true, pick(400, 100), 4);
    for (name, how) in [("thousand_stacks", Grown::Waits), ("thousand_branches", Grown::Branches)] {
        let micros = contest(name, &grown(&small, 1_000, how), how == Grown::Waits, pick(30, 5), 1);
        for (form, micros) in FORMS.into_iter().zip(micros) {
            // The reporter does nothing else meanwhile.
            at_most(&format!("reports.{name}.{form}_ms"), micros / 1e3, 100.0);
        }
    }
}

/// A request that waits, as it is reported.
fn real() -> Report {
    let collected = Collected::default();
    let reports = collected.reports();
    let request = Request::get("/photos/2024?album=summer&page=3").header("host", "photos.example.com");
    let request = request.header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)").body(()).expect("a request");
    let answer = |_: Request<()>| async {
        nested(10).await;
        Ok::<_, Infallible>(Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
    };
    let layer = WatchdogLayer::new(THRESHOLD).reports(reports.clone());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(answer));
    let _ = runtime().block_on(service.oneshot(request));
    collected.take(&reports).pop().expect("a report").0
}

/// What many stacks are.
#[derive(Clone, Copy, PartialEq)]
enum Grown {
    /// Waits one after the other, a share of the time each.
    Waits,
    /// Branches of one wait, as of a `join_all`.
    Branches,
}

/// The report with its first stack in so many variations: a tree that branches in four at each of the application's frames.
fn grown(report: &Report, stacks: usize, how: Grown) -> Report {
    let mut report = report.clone();
    let pattern = report.stacks[0].clone();
    let variation = |number: usize| {
        let mut stack = pattern.clone();
        for (depth, frame) in stack.frames.iter_mut().filter(|frame| frame.own).enumerate() {
            let function = frame.function.as_deref().unwrap_or_default();
            frame.function = Some(format!("{function}::of_{}", number >> (2 * depth).min(63)));
        }
        stack.current = how == Grown::Branches || number == 0;
        stack.branch = if how == Grown::Branches { number as u32 } else { 0 };
        stack
    };
    report.stacks = (0..stacks).map(variation).collect();
    let shares = if how == Grown::Waits { stacks } else { 1 };
    let mut share = report.timeline[0].clone();
    (share.activity, share.waits, share.time) = (Activity::Waiting, 1, report.elapsed / shares as u32);
    let share_of = |number: usize| {
        let mut share = share.clone();
        share.stack = Some(number);
        share
    };
    report.timeline = (0..shares).map(share_of).collect();
    report
}

/// One line a stack, root first, with microseconds.
fn folded(report: &Report) -> Vec<String> {
    let line = |interval: &heeler::report::Interval| {
        let stack = &report.stacks[interval.stack?];
        let frames = stack.frames.iter().rev().map(|frame| frame.function.as_ref().unwrap_or(&frame.address));
        let path = frames.map(|name| name.replace(';', ",")).collect::<Vec<_>>().join(";");
        Some(format!("{path} {}", interval.time.as_micros()))
    };
    report.timeline.iter().filter_map(line).collect()
}

fn inferno(lines: &[String]) -> String {
    let mut options = inferno::flamegraph::Options::default();
    options.min_width = 0.0;
    options.flame_chart = true;
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).expect("a picture");
    String::from_utf8(svg).expect("text")
}

/// Prints the figures of all forms, and of their peers unless these have another task, and returns microseconds.
fn contest(what: &str, report: &Report, peers: bool, rounds: usize, n: u64) -> Vec<f64> {
    let value: Value = serde_json::to_value(report).expect("JSON");
    let lines = folded(report);
    let debug = || format!("{report:#?}");
    let json = || serde_json::to_string_pretty(&value).expect("JSON");
    let picture = || inferno(&lines);
    let all: [(&str, &dyn Fn() -> String); 7] = [
        (FORMS[0], &|| report.to_text()),
        (FORMS[1], &|| report.to_json()),
        (FORMS[2], &|| report.to_html()),
        (FORMS[3], &|| report.to_svg()),
        ("debug", &debug),
        ("serde_json_value", &json),
        ("inferno", &picture),
    ];
    let forms = if peers { &all[..] } else { &all[..FORMS.len()] };
    let contender = |form: &dyn Fn() -> String, n: u64| (0..n).for_each(|_| drop(black_box(form())));
    let mut contenders: Vec<Contender<'_>> =
        forms.iter().map(|(_, form)| Box::new(move |n| contender(form, n)) as Contender<'_>).collect();
    let micros: Vec<f64> = race(rounds, n, &mut contenders).iter().map(|times| undisturbed(times) / 1e3).collect();
    let frames: usize = report.stacks.iter().map(|stack| stack.frames.len()).sum();
    plain(&format!("reports.{what}.frames"), frames as f64, "");
    for ((name, form), micros) in forms.iter().zip(&micros) {
        plain(&format!("reports.{what}.{name}"), 1e6 / micros, "a second");
        plain(&format!("reports.{what}.{name}.size"), form().len() as f64 / 1e3, "kB");
    }
    if let [text, json, html, svg, debug, value, inferno] = micros[..] {
        plain(&format!("reports.{what}.text_vs_debug"), text / debug, "x");
        plain(&format!("reports.{what}.json_vs_serde_json_value"), json / value, "x");
        plain(&format!("reports.{what}.html_vs_text"), html / text, "x");
        plain(&format!("reports.{what}.svg_vs_inferno"), svg / inferno, "x");
    }
    micros
}

// Delivery

/// Takes everything, but nothing before it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar, AtomicUsize)>);

impl Sink for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        let (open, opened, taken) = &*self.0;
        drop(opened.wait_while(lock(open), |open| !*open).unwrap_or_else(PoisonError::into_inner));
        black_box(report);
        taken.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Runs so many jobs that are slow, one after the other begun and all of them ended.
fn run_jobs(runtime: &Runtime, reports: &Reports, jobs: u32) {
    runtime.block_on(async {
        let begun = tokio::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..jobs {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / JOBS_A_SECOND).await;
            tasks.spawn(heeler::watch("import", THRESHOLD, nested(10)).reports(reports.clone()));
        }
        tasks.join_all().await;
    });
}

fn builder() -> ReportsBuilder {
    Reports::builder().without_log().repeat_after(Duration::ZERO).without_endings()
}

/// On the disk that this was built on: temporary directories may be in memory.
fn place() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn delivery(what: &str) {
    let (gate, place, jobs) = (Gate::default(), place(), pick(1_800, 600));
    let builder = match what {
        "directory" => builder().directory(place.path()).directory_limits(u64::MAX, usize::MAX),
        "full_directory" => builder().directory(place.path()).directory_limits(u64::MAX, 100),
        "spool" => builder().spool(place.path()),
        _ => builder(),
    };
    let reports = builder.sink(gate.clone()).build().expect("reports");
    // Before the gate keeps the reporter.
    let report = real();
    run_jobs(&runtime(), &reports, jobs);
    let (open, opened, taken) = &*gate.0;
    until("the first report is made", || reports.stats().made == 1);
    let files = match what {
        "spool" => vec![serde_json::to_vec(&report).expect("JSON")],
        _ => [report.to_text(), report.to_json(), report.to_svg()].map(String::into_bytes).to_vec(),
    };
    // Before and after: a disk is not always as fast.
    let by_hand = || by_hand(place.path(), &files, what == "spool");
    let nanos_by_hand = if what == "sink_alone" { 0.0 } else { by_hand() };
    let thread = thread("heeler-reporter").expect("the reporter's thread");
    let (before, start) = (nanos_on_cpu(&thread), Instant::now());
    *lock(open) = true;
    opened.notify_all();
    assert!(reports.blocking_flush(Duration::from_secs(300)), "all reports arrive");
    let (took, on_cpu, taken) = (start.elapsed().as_secs_f64(), nanos_on_cpu(&thread) - before, taken.load(Relaxed));
    let name = format!("reports.delivery.{what}");
    plain(&format!("{name}.delivered"), taken as f64, &format!("of {jobs} jobs, {} dropped", reports.stats().dropped));
    plain(&format!("{name}.on_cpu"), on_cpu as f64 / 1e3 / taken as f64, "us a report");
    let a_second = taken as f64 / took;
    if what != "sink_alone" {
        for by_hand in [nanos_by_hand, by_hand()] {
            plain(&format!("{name}.files_by_hand"), 1e9 / by_hand, "a second");
        }
    }
    match what {
        "sink_alone" | "directory" => at_least(&format!("{name}.a_second"), a_second, CAPTURES),
        _ => plain(&format!("{name}.a_second"), a_second, if what == "spool" { "each synced" } else { "" }),
    }
}

/// Nanoseconds to write files with these contents under another name and rename them; or `synced`, their directory too, and
/// removed.
fn by_hand(place: &Path, contents: &[Vec<u8>], synced: bool) -> f64 {
    let directory = File::open(place).expect("a directory");
    let (times, start) = (pick(300, 100), Instant::now());
    for number in 0..times {
        for (kind, content) in contents.iter().enumerate() {
            let (new, path) = (place.join("new"), place.join(format!("{number}.{kind}")));
            let mut file = File::create(&new).expect("a file");
            file.write_all(content).expect("room");
            if synced {
                file.sync_data().expect("a disk");
            }
            fs::rename(&new, &path).expect("a file");
            if synced {
                directory.sync_all().and_then(|()| fs::remove_file(&path)).expect("a disk");
            }
        }
    }
    common::nanos(start.elapsed()) / f64::from(times)
}

// Waiting

/// Takes nothing.
struct Down;

impl Sink for Down {
    fn name(&self) -> &str {
        "down"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        Err("down".into())
    }
}

fn queued(what: &str) {
    COUNTS.store(true, Relaxed);
    let (runtime, place) = (runtime(), tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| place()));
    // The rows, the names of the frames, and all else that is there once.
    let others = Collected::default();
    let theirs = others.reports();
    run_jobs(&runtime, &theirs, JOBS_A_SECOND);
    drop(others.take(&theirs));
    // The first thousand, or hundred, and the rest.
    let (first, all) = pick((1_000, 10_000), (100, 1_000));
    let builder = match what {
        "spool" => builder().spool(place.path()).max_queued(first as usize),
        _ => builder().max_queued(all as usize),
    };
    let reports = builder.sink(Down).build().expect("reports");
    let (bytes, rss) = (BYTES.load(Relaxed), resident());
    let wait = |jobs: u32, total: u32| {
        run_jobs(&runtime, &reports, jobs);
        until("all are queued, or known to be missing", || {
            let stats = reports.stats();
            stats.made + stats.dropped + stats.not_captured >= u64::from(total)
                && stats.queued + stats.undelivered >= stats.made
        });
        (reports.stats().queued as f64, (BYTES.load(Relaxed) - bytes) as f64)
    };
    let (some, some_bytes) = wait(first, first);
    let (queued, all_bytes) = wait(all - first, all);
    let name = format!("reports.queued.{what}");
    plain(&format!("{name}.reports"), queued, "");
    plain(&format!("{name}.resident"), resident().saturating_sub(rss) as f64 / 1e6, "MB");
    plain(&format!("{name}.allocated"), all_bytes / 1e6, "MB");
    let (each, beyond) = (some_bytes / some, (all_bytes - some_bytes) / (queued - some));
    match what {
        "spool" => {
            let files = fs::read_dir(place.path()).into_iter().flatten().flatten();
            let files = files.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
            let sizes: u64 = files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum();
            plain(&format!("{name}.on_disk"), sizes as f64 / queued, "bytes a report");
            plain(&format!("{name}.in_memory"), each, "bytes a report");
            at_most(&format!("{name}.beyond_the_bound_bytes"), beyond, 2_000.0);
        }
        _ => at_most(&format!("{name}.bytes_each"), all_bytes / queued, 30_000.0),
    }
}
