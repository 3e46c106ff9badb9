use std::time::Duration;

use serde_json::{Value, json};

use super::short::{INNER, MAX_STACKS, OUTER};
use super::write::{FIELDS, LATER_FIELDS, Schema1, Short};
use crate::capture::Frame;
use crate::report::assemble::location::{arrange, locate};
use crate::report::testing::{await_stack, culprit, library, own, report, thread_stack, traced};
use crate::report::{Activity, Denied, DeniedBy, Ended, Ending, Interval, Repeats, Report, SCHEMA, Stack};
use crate::report::{BlockingPool, BusyThreads, Contended, Finding, Holder, OtherPlace, Others};
use crate::report::{FleetIncident, FleetInstance, FleetNews};

fn value(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).unwrap()
}

fn short(report: &Report) -> Value {
    value(&Short(report))
}

fn read(value: Value) -> Result<Report, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A report with a bit of everything.
fn rich() -> Report {
    let mut report = traced();
    report.trace_url = Some("https://t.example/4bf9".to_owned());
    let after = Duration::from_millis(2_600);
    report.ending = Some(Ending { how: Ended::Finished, status: Some(200), after });
    let mut frame = own("photos::resize", 7);
    (frame.build_id, frame.inlined) = (Some("abc".to_owned()), true);
    let unknown = Frame { address: "0x77".to_owned(), ..Frame::default() };
    let mut earlier = await_stack(&[library("tokio::time::sleep::Sleep::poll"), own("photos::nap", 3)]);
    earlier.current = false;
    earlier.child = Some("spawn".to_owned());
    report.stacks.extend([
        thread_stack(&[frame, unknown]),
        culprit(&[own("photos::tags", 1)]),
        earlier,
        await_stack(&[]),
    ]);
    report.timeline.push(Interval {
        activity: Activity::Waiting,
        stack: Some(3),
        waits: 4,
        time: Duration::from_micros(100),
    });
    report.notes.push("a note".to_owned());
    report.repeats = Some(Repeats { waits: 4, time: Duration::from_micros(100) });
    let (time, of) = (Duration::from_millis(800), Duration::from_millis(1_200));
    report.denied = Some(Denied { time, of, by: DeniedBy::Quota });
    report.awaiting = Some("a lock".to_owned());
    report.incident = "00c0ffee00c0ffee".to_owned();
    let place = crate::report::Location::new(Some("photos::fetch".to_owned()), Some("src/app.rs".to_owned()), Some(7));
    let mut others = Others { in_flight: 3, at_same_place: 1, ..Others::default() };
    others.resource = Some(Contended {
        name: "ledger".to_owned(),
        finding: Finding::Deadlock,
        certain: true,
        usage: Some(crate::Usage::new(3, 3)),
        holding: 1,
        queue: 2,
        asked_at: Some(place.clone()),
    });
    let held = Some(Duration::from_millis(34_000));
    let (work, taken_at) = ("GET /export".to_owned(), Some(place.clone()));
    others.holders.push(Holder { work, held, taken_at, path: vec![place.clone()], ..Holder::default() });
    let (longest, activity) = (Duration::from_millis(5), Activity::Running);
    others.places.push(OtherPlace { count: 2, longest, activity, work: vec!["a job".to_owned()], location: None });
    let busy = BusyThreads { count: 2, location: Some(place), calls: Some("std::fs::File::sync_all".to_owned()) };
    others.blocking_pool = Some(BlockingPool { threads: 3, idle: 1, busy: vec![busy], ..BlockingPool::default() });
    report.others = Some(others);
    report
}

/// Guards: a round trip through either schema loses nothing, and the result is of this version.
#[test]
fn both_schemas_are_read() {
    let report = rich();
    let debug = format!("{report:#?}");
    for written in [value(&report), value(&Schema1(&report))] {
        let read = read(written).unwrap();
        assert_eq!(read.schema, SCHEMA);
        assert_eq!(format!("{read:#?}"), debug);
    }
    let read: Report = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(format!("{read:#?}"), debug);
}

/// Guards: what a report says of its fleet is in each form, and only there where it says something.
#[test]
fn a_fleet_is_read_as_it_was_written() {
    let instance = FleetInstance { name: "web1".to_owned(), version: Some("1.0".to_owned()), reports: 3 };
    let news = FleetNews::Spread { route: "GET /a".to_owned() };
    let fleet = FleetIncident { key: "k".to_owned(), number: 2, news, reports: 3, ..FleetIncident::default() };
    let mut report = report();
    report.fleet = Some(Box::new(FleetIncident { instances: vec![instance], more_instances: 1, ..fleet }));
    let fleet = value(&report)["fleet"].clone();
    assert_eq!(fleet["news"], json!({"spread": {"route": "GET /a"}}));
    for written in [value(&report), value(&Schema1(&report)), short(&report)] {
        assert_eq!(written["fleet"], fleet);
        assert_eq!(read(written).unwrap().fleet, report.fleet);
    }
    report.fleet = None;
    assert_eq!(value(&report).get("fleet"), None);
}

/// Guards: schema 1 says so, and has what it always had. Formats that count fields beforehand get the right number.
#[test]
fn each_schema_has_its_own_fields() {
    let report = rich();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (first, second, short) = (value(&Schema1(&report)), value(&report), short(&report));
    assert_eq!((&first["schema"], &second["schema"], &short["schema"]), (&json!(1), &json!(2), &json!(2)));
    assert_eq!(first["stacks"][1]["frames"][0]["module"], "photos");
    assert_eq!(first["stacks"][1]["frames"][0]["build_id"], "abc");
    let new = |value: &Value| keys(value).into_iter().filter(|key| first.get(key).is_none()).collect::<Vec<_>>();
    assert_eq!(keys(&first).len(), FIELDS + LATER_FIELDS);
    let plain = crate::report::testing::report();
    assert_eq!(keys(&value(&Schema1(&plain))).len(), FIELDS, "later fields are there only with a value");
    assert_eq!(keys(&value(&plain)).len(), keys(&second).len());
    assert_eq!(new(&second), ["frames", "modules", "sentence"]);
    assert_eq!(new(&short), ["frames", "modules", "omitted", "sentence"]);
    assert!(keys(&first).iter().all(|key| second.get(key).is_some() && short.get(key).is_some()));
}

/// Guards: rows are in the order in which the stacks use them, each once, so that the same report is the same text.
#[test]
fn tables_follow_the_order_of_the_stacks() {
    let mut report = report();
    let other = Frame { build_id: Some("other".to_owned()), ..own("b", 1) };
    let frames = [own("a", 1), other, own("a", 1), own("a", 2)];
    report.stacks = vec![await_stack(&frames), await_stack(&[own("c", 1), own("a", 2)])];
    let written = value(&report);
    let functions: Vec<_> = written["frames"].as_array().unwrap().iter().map(|frame| &frame["function"]).collect();
    assert_eq!(functions, ["a", "b", "a", "c"]);
    assert_eq!(
        [&written["stacks"][0]["frames"], &written["stacks"][1]["frames"]],
        [&json!([0, 1, 0, 2]), &json!([3, 2])]
    );
    assert_eq!(
        written["modules"],
        json!([{"name": "photos", "build_id": null}, {"name": "photos", "build_id": "other"}])
    );
    let modules: Vec<_> = written["frames"].as_array().unwrap().iter().map(|frame| &frame["module"]).collect();
    assert_eq!(modules, [0, 1, 0, 0]);
    assert_eq!((0..20).map(|_| report.clone().to_json()).find(|json| *json != report.to_json()), None);
}

/// Guards: damaged tables are errors, not half a report. A small file cannot ask for all the memory.
#[test]
fn damaged_tables_are_refused() {
    let damaged = |pointer: &str, to: Value| {
        let mut written = value(&rich());
        *written.pointer_mut(pointer).unwrap() = to;
        read(written).unwrap_err()
    };
    assert!(damaged("/stacks/0/frames/0", json!(999)).contains("a stack has frame 999"));
    assert!(damaged("/frames/0/module", json!(9)).contains("a frame is of module 9"));
    assert!(damaged("/stacks/0/frames/0", json!(-1)).contains("FrameOrNumber"));
    assert!(damaged("/frames", json!(7)).contains("invalid type"));
    let mut written = value(&rich());
    written["frames"][0]["function"] = "x".repeat(1 << 20).into();
    written["stacks"][0]["frames"] = vec![0; 300].into();
    assert!(read(written).unwrap_err().contains("larger than any report"));
    let mut written = value(&rich());
    written["modules"][0]["name"] = "x".repeat(1 << 20).into();
    written["frames"] = vec![json!({"module": 0, "address": "0x1"}); 300].into();
    written["stacks"] = json!([]);
    assert!(read(written).unwrap_err().contains("larger than any report"));
    let mut written = value(&rich());
    written.as_object_mut().unwrap().remove("stacks");
    assert!(read(written).unwrap_err().contains("missing field `stacks`"));
}

/// Guards: fields and words that a later version adds are ignored, and nothing else is lost.
#[test]
fn later_additions_are_ignored() {
    let mut written = value(&rich());
    written["schema"] = json!(3);
    for pointer in ["", "/frames/0", "/modules/0", "/stacks/0"] {
        written.pointer_mut(pointer).unwrap()["added"] = json!({"more": [1]});
    }
    written["stacks"][1]["kind"] = json!("kernel");
    written["ending"]["how"] = json!("hibernated");
    let read = read(written).unwrap();
    assert_eq!(read.ending.as_ref().unwrap().how, Ended::Unknown);
    assert_eq!((read.schema, read.stacks.len(), read.to_text().len()), (3, 5, read.to_text().len()));
}

/// The names and paths that a service on axum with a database has on its stacks, from the inside out.
const LIBRARIES: [(&str, &str); 12] = [
    (
        "<tokio::sync::batch_semaphore::Acquire as core::future::future::Future>::poll",
        "tokio-1.54.1/src/sync/batch_semaphore.rs",
    ),
    ("tokio::runtime::io::scheduled_io::ScheduledIo::poll_readiness", "tokio-1.54.1/src/runtime/io/scheduled_io.rs"),
    (
        "<sqlx_core::net::socket::Read<B> as core::future::future::Future>::poll",
        "sqlx-core-0.9.0/src/net/socket/mod.rs",
    ),
    ("sqlx_postgres::connection::stream::PgStream::recv_unchecked", "sqlx-postgres-0.9.0/src/connection/stream.rs"),
    (
        "<futures_util::stream::try_stream::try_collect::TryCollect<St, C> as core::future::future::Future>::poll",
        "futures-util-0.3.31/src/stream/try_stream/try_collect.rs",
    ),
    ("<core::pin::Pin<P> as core::future::future::Future>::poll", "core"),
    (
        "<axum::handler::service::HandlerService<H, T, S> as tower_service::Service<http::request::Request<B>>>::call",
        "axum-0.8.6/src/handler/service.rs",
    ),
    (
        "<tower::util::oneshot::Oneshot<S, Req> as core::future::future::Future>::poll",
        "tower-0.5.2/src/util/oneshot.rs",
    ),
    (
        "<tower_http::trace::future::ResponseFuture<..> as core::future::future::Future>::poll",
        "tower-http-0.7.0/src/trace/future.rs",
    ),
    (
        "<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll",
        "tracing-0.1.41/src/instrument.rs",
    ),
    ("hyper::proto::h1::dispatch::Dispatcher<D, Bs, I, T>::poll_loop", "hyper-1.8.1/src/proto/h1/dispatch.rs"),
    (
        "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
        "tokio-1.54.1/src/runtime/scheduler/multi_thread/worker.rs",
    ),
];

/// A frame of one of the libraries, a different one for each number.
fn numbered(number: u32) -> Frame {
    let (function, file) = LIBRARIES[number as usize % LIBRARIES.len()];
    let file = match file {
        "core" => "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/future/future.rs".to_owned(),
        file => format!("/home/builder/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/{file}"),
    };
    real(function, file, number)
}

fn real(function: &str, file: String, number: u32) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: Some(file),
        line: Some(100 + number % 900),
        module: Some("photos-server".to_owned()),
        build_id: Some("a2497d1107dda49dada203040a5f1d1007ab56df".to_owned()),
        address: format!("{:#x}", 0x001a_2f00 + 37 * number),
        inlined: !number.is_multiple_of(3),
        ..Frame::default()
    }
}

/// 29 stacks of 85 frames. In each, `of_its_own` frames are not shared, including three of the application's.
fn large(of_its_own: u32) -> Report {
    let stack = |branch: u32| {
        let app = (0..3).map(|depth| {
            let function = format!("photos_server::albums::thumbnails::render_page_{branch}::with_{depth}_retries");
            let number = 100_000 + 100 * branch + depth;
            let mut frame = real(&function, "photos-server/src/albums/thumbnails.rs".to_owned(), number);
            (frame.own, frame.inlined) = (true, false);
            frame.source = Some("let album = self.store.album(id).await?;".to_owned());
            frame
        });
        let leaf = (0..20).map(numbered);
        let others = (3..of_its_own).map(|depth| numbered(10_000 + 100 * branch + depth));
        let frames: Vec<Frame> = leaf.chain(app).chain(others).chain((20..).map(numbered)).take(85).collect();
        Stack { branch, ..await_stack(&frames) }
    };
    let mut report = report();
    report.stacks = (0..29).map(stack).collect();
    arrange(&mut report);
    report.location = locate(&report);
    report
}

/// Guards: a report with many branches fits into a mail, a log shipper's limit, a queue's message. In real reports
/// nearly all frames are shared, from where the branches part inwards and from the handler outwards. Where few are
/// shared, the names themselves take up the space.
#[test]
fn a_large_report_is_small() {
    for (of_its_own, most, at_most_of_schema_1) in [(3, 60_000, 0.05), (6, 100_000, 0.1), (62, 600_000, 0.6)] {
        let report = large(of_its_own);
        assert!(report.stacks.len() == 29 && report.stacks.iter().all(|stack| stack.frames.len() == 85));
        let json = report.to_json().len();
        let one_line = value(&report).to_string().len();
        let schema_1 = serde_json::to_string_pretty(&Schema1(&report)).unwrap().len();
        let short = short(&report).to_string().len();
        println!(
            "29 stacks of 85 frames, {of_its_own} of its own each: {json} bytes ({one_line} on one line), {short} short, \
             {schema_1} as schema 1"
        );
        assert!(json <= most && one_line < json && short < 12_000, "{of_its_own}: {json} {one_line} {short}");
        assert!((json as f64) < at_most_of_schema_1 * schema_1 as f64, "{of_its_own}: {json} of {schema_1}");
    }
}

/// Guards: the short form has what matters: the application's own frames, what they wait for, and how much of the time
/// each took.
#[test]
fn the_short_form_keeps_the_essentials() {
    let mut report = report();
    let whole = report.stacks[0].frames.len();
    let mut earlier = await_stack(&[library("tokio::x"), own("photos::then", 3)]);
    earlier.current = false;
    let mut before = earlier.clone();
    before.frames[1].line = Some(4);
    report.stacks.extend([report.stacks[0].clone(), earlier, before]);
    report.timeline = [(3, 2_000), (0, 500), (2, 1)]
        .map(|(stack, ms)| (stack, Duration::from_millis(ms)))
        .map(|(stack, time)| Interval { activity: Activity::Waiting, stack: Some(stack), waits: 1, time })
        .into();
    let written = short(&report);
    assert_eq!(written["omitted"], json!({"stacks": 1, "frames": 2 * whole - 4}));
    assert_eq!(written["stacks"][0]["omitted_frames"], whole - 4);
    let short = read(written).unwrap();
    let functions: Vec<_> = short.stacks[0].frames.iter().map(|frame| frame.function.as_deref().unwrap()).collect();
    let acquire = "<tokio::sync::batch_semaphore::Acquire as core::future::future::Future>::poll";
    assert_eq!(
        functions,
        [acquire, "tokio::sync::mutex::Mutex<T>::lock", "photos::wait_for_import", "photos::lock_page"]
    );
    assert_eq!(short.stacks[0].frames[2], report.stacks[0].frames[3], "with its line and source");
    let lines: Vec<_> = short.timeline.iter().map(|share| short.stacks[share.stack.unwrap()].frames.last()).collect();
    let expected = [3, 0, 2].map(|stack: usize| report.stacks[stack].frames.iter().rfind(|frame| frame.own));
    assert_eq!(lines, expected, "the timeline refers to the same stacks");
    assert_eq!((short.sentence(), short.polls, short.notes), (report.sentence(), report.polls, report.notes.clone()));
}

/// Guards: the short form is short whatever the report contains, and says something even if there is little.
#[test]
fn the_short_form_is_bounded() {
    let mut report = report();
    report.stacks = (0..100).map(|line| await_stack(&vec![own("app::again", line); 1_000])).collect();
    let share =
        |stack| Interval { activity: Activity::Waiting, stack: Some(stack), waits: 1, time: Duration::from_millis(1) };
    report.timeline = (50..60).chain([9_999]).map(share).collect();
    let written = short(&report);
    assert_eq!(written["stacks"].as_array().unwrap().len(), MAX_STACKS);
    assert_eq!(written["stacks"][0]["frames"].as_array().unwrap().len(), INNER + OUTER);
    assert_eq!(written["omitted"], json!({"stacks": 94, "frames": 100_000 - MAX_STACKS * (INNER + OUTER)}));
    assert_eq!(written["timeline"][10]["stack"], Value::Null);
    read(written).unwrap();
    // Two culprits at one place.
    report.stacks =
        ["GET /a", "GET /b"].map(|work| Stack { work: Some(work.to_owned()), ..culprit(&[own("a", 1)]) }).into();
    assert_eq!(short(&report)["stacks"].as_array().unwrap().len(), 2);
    // A stack of no capture and in no timeline.
    report.timeline.clear();
    report.stacks = vec![Stack { current: false, ..await_stack(&[library("tokio::x")]) }];
    assert_eq!(short(&report)["frames"][0]["function"], "tokio::x");
    report.stacks.clear();
    assert_eq!(short(&report)["omitted"], json!({"stacks": 0, "frames": 0}));
}
