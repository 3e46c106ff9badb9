//! `examples/symbolize.rs`: reports of a stripped copy of this program, named from the program itself.
#![cfg(feature = "watchdog")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code, reason = "its `main` is not used")]
#[path = "../examples/symbolize.rs"]
mod symbolize;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{PATIENCE, PORTABLE, collect_with, in_process_of, line_of, ms, runtime, short, until};
use heeler::Report;
use heeler::report::{Frame, Stack, StackKind, Verdict};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const TEST: &str = "reports_of_a_stripped_binary_are_named_later";
/// Where the process that this test starts leaves its reports.
const INTO: &str = "HEELER_TEST_REPORTS";

static REPORTED: AtomicBool = AtomicBool::new(false);

async fn waits(reported: oneshot::Receiver<()>) {
    for_a_message(reported).await; // waits
}

async fn for_a_message(reported: oneshot::Receiver<()>) {
    let _ = reported.await; // for a message
}

async fn blocks() {
    spins();
}

#[inline(never)]
fn spins() {
    is_inlined(); // spins
}

#[allow(clippy::missing_spin_loop, reason = "one line, in which no other function is inlined")]
#[inline(always)]
fn is_inlined() {
    while !REPORTED.load(SeqCst) {} // is inlined
}

/// Two jobs that are stuck until they are reported.
fn make_reports(into: &Path) {
    let (seen, reports) = collect_with(|builder| builder.directory(into));
    let watcher = {
        let (send, reported) = oneshot::channel();
        let has = |seen: &common::Collected, job| {
            seen.all().iter().any(|report| report.job.as_deref() == Some(job) && !report.stacks.is_empty())
        };
        let thread = std::thread::spawn(move || {
            until("the first job is reported", || has(&seen, "waits"));
            let _ = send.send(());
            until("the second job is reported", || has(&seen, "blocks"));
            REPORTED.store(true, SeqCst);
        });
        runtime(1).block_on(heeler::watch("waits", ms(300), waits(reported)).reports(reports.clone()));
        thread
    };
    runtime(1).block_on(heeler::watch("blocks", ms(300), blocks()).reports(reports.clone()));
    watcher.join().unwrap();
    assert!(reports.blocking_flush(PATIENCE));
}

/// The reports that a program leaves in `place`: of what waits, and of what blocks.
fn reports_of(program: &Path, place: &Path) -> [PathBuf; 2] {
    let mut command = Command::new(program);
    command.env(INTO, place);
    in_process_of(command, TEST, || unreachable!("the other process makes reports and ends"));
    let files = || fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let of = |job: &str| {
        let is_of = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "json") && json_of(path)["job"] == job
        };
        files().find(is_of).unwrap_or_else(|| panic!("no report about {job}"))
    };
    ["waits", "blocks"].map(of)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn report_of(path: &Path) -> Report {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().expect("binutils");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn current(report: &Report, kind: StackKind) -> &Stack {
    report.stacks.iter().find(|stack| stack.current && stack.kind == kind).unwrap()
}

/// The frames as both ways should name them: the innermost of what blocks are others each time, and source is not quoted later.
fn names(frames: &[Frame]) -> Vec<Frame> {
    let from = frames.iter().position(|frame| short(frame.function.as_deref()) == "is_inlined").unwrap_or(0);
    let mut frames = frames[from..].to_vec();
    assert!(frames.iter().any(|frame| frame.function.is_some()));
    frames.iter_mut().for_each(|frame| frame.source = None);
    // Of what is inlined into one function, wherever the sample was taken in it.
    let place =
        |frame: &Frame| short(frame.function.as_deref()) == "is_inlined" || short(frame.function.as_deref()) == "spins";
    frames.iter_mut().take_while(|frame| place(frame)).for_each(|frame| frame.address.clear());
    frames
}

fn own(frames: &[Frame]) -> Vec<(&str, Option<u32>, bool)> {
    let own = frames.iter().filter(|frame| frame.own);
    own.map(|frame| (short(frame.function.as_deref()), frame.line, frame.inlined)).collect()
}

/// The report as schema 1 has it.
fn schema_1(mut report: Value) -> Value {
    let mut take = |key: &str| report.as_object_mut().unwrap().remove(key).unwrap();
    let (mut table, modules) = (take("frames"), take("modules"));
    for frame in table.as_array_mut().unwrap() {
        let module = frame["module"].as_u64().map_or(json!({}), |module| modules[module as usize].clone());
        frame["module"] = module["name"].clone();
        frame["build_id"] = module["build_id"].clone();
        for flag in ["own", "inlined"] {
            frame[flag] = (frame[flag] == true).into();
        }
    }
    for stack in report["stacks"].as_array_mut().unwrap() {
        for frame in stack["frames"].as_array_mut().unwrap() {
            *frame = table[frame.as_u64().unwrap() as usize].clone();
        }
    }
    report["schema"] = json!(1);
    report
}

/// Guards: with its debug information, a report of a stripped binary says in the end what it would have said. It is not named
/// from another build.
#[test]
fn reports_of_a_stripped_binary_are_named_later() {
    if let Some(into) = std::env::var_os(INTO) {
        return make_reports(into.as_ref());
    }
    if PORTABLE {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // Of the same name: that is what a module is called by.
    let stripped = place.path().join(program.file_name().unwrap());
    run(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(&program));
    let debug = place.path().join("program.debug");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    let (from_whole, from_stripped) = (place.path().join("whole"), place.path().join("stripped"));
    let expected = reports_of(&program, &from_whole).map(|path| report_of(&path));
    let files = reports_of(&stripped, &from_stripped);

    for (at, (file, expected)) in files.iter().zip(&expected).enumerate() {
        let (bare, kind) = (report_of(file), [StackKind::Await, StackKind::Thread][at]);
        assert_eq!(bare.verdict, [Verdict::Waiting, Verdict::Blocking][at]);
        assert_eq!(own(&current(&bare, kind).frames), [], "the names are not in the binary:\n{}", bare.to_text());
        for binary in [&program, &debug] {
            let report = symbolize::named(file, binary).unwrap();
            let (named, known) = (current(&report, kind), current(expected, kind));
            assert_eq!(names(&named.frames), names(&known.frames), "{}", report.to_text());
            let others = |report: &Report| {
                let frames = report.stacks.iter().flat_map(|stack| &stack.frames);
                frames.filter(|frame| frame.build_id != report.process.build_id).cloned().collect::<Vec<_>>()
            };
            assert_eq!(others(&report), others(&bare));
        }
        let report = symbolize::named(file, &debug).unwrap();
        let again: Report = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(again.to_text(), report.to_text());
        // A report that was made by an earlier version.
        let old = place.path().join("old.json");
        fs::write(&old, schema_1(json_of(file)).to_string()).unwrap();
        assert_eq!(symbolize::named(&old, &debug).unwrap().to_json(), report.to_json());
        assert_eq!(
            report.location.as_ref().map(|location| location.line),
            Some(line(["for a message", "is inlined"][at]))
        );
        if at == 0 {
            let frames = own(&current(&report, kind).frames).into_iter().map(|(function, line, _)| (function, line));
            let expected = [("for_a_message", line("for a message")), ("waits", line("waits"))];
            assert_eq!(frames.take(2).collect::<Vec<_>>(), expected);
        } else {
            let frames = own(&current(&report, kind).frames);
            let from = frames.iter().position(|frame| frame.0 == "is_inlined").unwrap();
            let expected = [("is_inlined", line("is inlined"), true), ("spins", line("spins"), false)];
            assert_eq!(frames[from..from + 2], expected);
        }
    }
    refusals(&files[0], &program, &stripped, place.path());
}

fn line(mark: &str) -> Option<u32> {
    Some(line_of(include_str!("symbolize.rs"), mark))
}

fn refusals(report: &Path, program: &Path, stripped: &Path, place: &Path) {
    let refused = |report: &Path, binary: &Path| symbolize::named(report, binary).unwrap_err().to_string();
    assert!(refused(report, stripped).ends_with("has neither debug information nor symbols: is it stripped?"));
    let build_id = report_of(report).process.build_id.unwrap();
    let other = place.join("other.json");
    let zeros = "0".repeat(build_id.len());
    fs::write(&other, fs::read_to_string(report).unwrap().replace(&build_id, &zeros)).unwrap();
    let why = refused(&other, program);
    assert!(
        why.contains(&format!("has the build id {build_id}, but the report is of ")) && why.contains(&zeros),
        "{why}"
    );
    let old = Path::new("tests/data/spool-1/000000000000-8f14e45fceea167a-17.0.json");
    assert!(refused(old, program).ends_with("but the report is of modules without a build id"));
    assert!(refused(report, report).contains("is no binary: "));
    assert!(refused(program, program).contains("expected value"));
    assert!(refused(Path::new("no such file"), program).starts_with("no such file cannot be read: "));
}
