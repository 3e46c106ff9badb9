//! Flamegraphs in a browser: they open, zoom and search without a script error, also at 1,000 stacks.
//!
//! Needs Chromium: the one that `CHROMIUM` names, or `chromium`, `chromium-browser` or `google-chrome` on `PATH`. Without
//! one these tests say so and pass.
#![cfg(feature = "watchdog")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use heeler::Report;
use heeler::report::Activity;
use serde_json::{Value, json};

use common::chromium::Chromium;
use common::{Driven, FOREVER, collect, ms};

/// A browser's first start on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Put before everything else in the picture: sees what goes wrong in it.
const FIRST: &str = r#"<script type="text/ecmascript"><![CDATA[
var problems = [];
window.addEventListener("error", function(e) { problems.push(String(e.message)); });
window.alert = function(text) { problems.push("alert: " + text); };
]]></script>"#;

/// Put after everything else: clicks what a reader would click, and sends what came of it. `TARGET` is in the label of
/// the box to zoom into, and is searched for.
const LAST: &str = r##"<script type="text/ecmascript"><![CDATA[
var results = {};
function boxes() { return Array.from(document.querySelectorAll("#frames > g")); }
function label(box) { return box.querySelector("title").textContent; }
function width(box) { return box.querySelector("rect").getBoundingClientRect().width; }
function shown() { return boxes().filter(function(box) { return getComputedStyle(box).display !== "none"; }).length; }
function purple() { return boxes().filter(function(box) { return box.querySelector("rect").getAttribute("fill") === "rgb(230,0,230)"; }).length; }
function click(element) { element.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true })); }
function look(target) { return { width: width(target), shown: shown(), purple: purple(), matched: document.getElementById("matched").textContent }; }
function run() {
    boxes()[0].getBoundingClientRect();
    results.ready_ms = performance.now();
    results.boxes = boxes().length;
    results.whole = document.getElementById("frames").getBoundingClientRect().width;
    results.title = document.getElementById("title").textContent;
    results.labels = boxes().map(label).slice(0, 50);
    var target = boxes().find(function(box) { return label(box).includes("TARGET"); });
    results.text = target.querySelector("text").textContent;
    results.before = look(target);
    click(target.querySelector("rect"));
    results.zoomed = look(target);
    click(document.getElementById("unzoom"));
    results.reset = look(target);
    window.prompt = function() { return "TARGET"; };
    click(document.getElementById("search"));
    results.found = look(target);
    click(document.getElementById("search"));
    results.forgotten = look(target);
}
window.addEventListener("load", function() {
    // After what the picture itself does once it is loaded.
    setTimeout(function() {
        try { run(); } catch (e) { problems.push("while it was used: " + e); }
        results.problems = problems;
        fetch("/results", { method: "POST", body: JSON.stringify(results) });
    }, 0);
});
]]></script>"##;

/// One browser at a time: the time that it takes is measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Opens a picture, uses it, and returns what came of that; `None` without a browser.
fn used(svg: &str, target: &str) -> Option<Value> {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (head, body) = svg.split_once("<!--").expect("inferno's output begins with a comment");
    let body = body.strip_suffix("</svg>").expect("an element");
    let page = format!("{head}{FIRST}<!--{body}{}</svg>", LAST.replace("TARGET", target));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let url = format!("http://{}/picture.svg", listener.local_addr().unwrap());
    let browser = Chromium::start(profile.path(), (1200, 800), &url)?;
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "the browser did not use the picture");
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(results) = answer(&stream, &page) {
                    drop(browser);
                    return Some(results);
                }
            }
            Err(_) => std::thread::sleep(ms(2)),
        }
    }
}

/// Answers one request of the browser's; returns what it sends.
fn answer(mut stream: &TcpStream, page: &str) -> Option<Value> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // A connection that the browser opened to be prepared is of no use here.
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    if head.starts_with("post /results") {
        let length = head.split_once("content-length: ").unwrap().1.split_once('\r').unwrap().0;
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return Some(serde_json::from_slice(&body).unwrap());
    }
    let (status, page) = if head.starts_with("get /picture.svg") { ("200 OK", page) } else { ("404 Not Found", "") };
    let kind = "Content-Type: image/svg+xml\r\nConnection: close";
    let _ = write!(stream, "HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    None
}

/// What a browser must make of each picture.
#[track_caller]
fn assert_usable(results: &Value) {
    let number = |pointer: &str| results.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!(results["problems"], json!([]), "{results:#}");
    let whole = number("/whole");
    assert!(whole > 1_000.0 && number("/before/width") < 0.99 * whole, "{results:#}");
    // Zoomed, it is as wide as the whole, and what is not of it is gone.
    assert!((number("/zoomed/width") - whole).abs() < 1.0, "{results:#}");
    assert!(number("/zoomed/shown") < number("/before/shown"), "{results:#}");
    assert_eq!(results["reset"], results["before"]);
    // A search paints what it finds, and says how much of the time that is.
    assert!(number("/found/purple") > 0.0 && number("/before/purple") == 0.0, "{results:#}");
    let matched = results["found"]["matched"].as_str().unwrap();
    assert!(matched.starts_with("Matched: ") && matched.ends_with('%'), "{matched}");
    assert_eq!(number("/forgotten/purple"), 0.0, "{results:#}");
}

async fn first_of_three() {
    tokio::time::sleep(FOREVER).await;
}

async fn second_of_three() {
    std::future::pending::<()>().await;
}

async fn third_of_three(lock: &tokio::sync::Mutex<()>) {
    let _guard = lock.lock().await;
}

async fn asks_three_at_once() {
    let lock = tokio::sync::Mutex::new(());
    let _held = lock.lock().await;
    // Well past an eighth of the threshold, from which on polls are traced.
    tokio::time::sleep(ms(500)).await;
    std::thread::sleep(ms(60));
    tokio::join!(first_of_three(), second_of_three(), third_of_three(&lock));
}

const HOSTILE: &str = "</text><script>alert('1')</script>]]>\"';&lt;{}";

/// A real report of a job that waits for several things at once.
fn caught() -> Report {
    let (seen, reports) = collect();
    let driven = Driven::new(1);
    driven.spawn(heeler::watch(HOSTILE, ms(1_500), asks_three_at_once()).reports(reports));
    seen.first()
}

/// Guards: the picture that an engineer opens works, whatever a name contains.
#[test]
fn a_real_flamegraph_works_in_a_browser() {
    let report = caught();
    let Some(results) = used(&report.to_svg(), "waiting: ") else { return };
    assert_usable(&results);
    assert_eq!(results["title"].as_str().unwrap().split_once(": ").unwrap().0, format!("the job \"{HOSTILE}\""));
    let labels = results["labels"].as_array().unwrap();
    let has = |text: &str| labels.iter().any(|label| label.as_str().unwrap().contains(text));
    assert!(has("all: ") && has("inside polls: ") && has("asks_three_at_once"), "{labels:#?}");
    assert!(has("branch 1 of ") && has("first_of_three") && has("third_of_three"), "{labels:#?}");
    assert!(!has("second_of_three"), "nothing can wake the second branch: {labels:#?}");
    assert!(results["text"].as_str().unwrap().starts_with("waiting: "), "{results:#}");
}

/// The report with so many different stacks in its timeline.
fn with_stacks(report: &Report, many: u32) -> Report {
    let mut report = report.clone();
    let mut template = report.stacks[0].clone();
    (template.current, template.branch) = (false, 0);
    let stack = |number: u32| {
        let mut stack = template.clone();
        for frame in stack.frames.iter_mut().filter(|frame| frame.own) {
            frame.function = Some(format!("app::handlers::place_{number:04}"));
            frame.line = Some(number + 1);
        }
        stack
    };
    report.stacks = (0..many).map(stack).collect();
    let mut share = report.timeline[0].clone();
    (share.activity, share.waits, share.time) = (Activity::Waiting, 1, ms(2));
    let share_of = |number: u32| {
        let mut share = share.clone();
        share.stack = Some(number as usize);
        share
    };
    report.timeline = (0..many).map(share_of).collect();
    report.elapsed = ms(2) * many;
    report
}

/// Guards: a large report opens in a moment: half a second to one on an idle machine, and never in a time that grows with the
/// square of its stacks. The time is that of the browser, from its request to where it can be clicked.
#[test]
fn a_thousand_stacks_do_not_lock_up_the_browser() {
    let report = with_stacks(&caught(), 1_000);
    let began = Instant::now();
    let svg = report.to_svg();
    println!("1,000 stacks: {} bytes, drawn in {:?}", svg.len(), began.elapsed());
    for number in 0..1_000 {
        assert!(svg.contains(&format!("place_{number:04} ")));
    }
    let mut best = f64::INFINITY;
    // On a machine that does something else meanwhile, not each time is telling.
    for _ in 0..8 {
        let Some(results) = used(&svg, "place_0500") else { return };
        assert_usable(&results);
        best = best.min(results["ready_ms"].as_f64().unwrap());
        println!("{} boxes, ready after {best:.0} ms", results["boxes"]);
        if best < 4_000.0 {
            return;
        }
    }
    panic!("ready after {best:.0} ms at best");
}
