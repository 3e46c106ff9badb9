//! What makes a dump: code, a signal, a panic, a shutdown that takes too long.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use heeler::Reports;
use heeler::report::{Kind, Report};

use super::Service;
use super::common::{collect, ms, until};

/// Says which part of a process that a test starts is run.
const PART: &str = "HEELER_TEST_PART";
const DIRECTORY: &str = "HEELER_TEST_DIRECTORY";

async fn nobody_answers() {
    let (_keep, silent) = tokio::sync::oneshot::channel::<()>();
    let _ = silent.await;
}

/// Guards: a dump is a report like any other: it has a sentence, a text, a page, a picture and a JSON form that can be read
/// again, and none is held back.
#[test]
fn a_dump_is_a_report() {
    let service = Service::new(2);
    let (seen, reports) = collect();
    for number in 0..3 {
        service.request(&format!("/answer/{number}?token=hunter2"), nobody_answers());
    }
    until("all are in flight", || heeler::metrics().in_flight.total() == 3);
    std::thread::sleep(ms(50));
    for _ in 0..2 {
        service.driven.handle.block_on(reports.dump("p99 is above 5 s, token=hunter2"));
    }
    until("both have arrived", || seen.all().len() == 2);
    let report = seen.all().remove(1);
    assert_eq!((report.kind, report.suppressed), (Kind::Dump, 0));
    let sentence = report.sentence();
    assert!(
        sentence.starts_with("a dump (p99 is above 5 s, token=[redacted]): 3 in flight: 3 waiting for "),
        "{sentence}"
    );
    assert!(report.location.as_ref().unwrap().function.as_ref().unwrap().ends_with("reasons::nobody_answers"));
    let (text, html, svg) = (report.to_text(), report.to_html(), report.to_svg());
    for form in [&text, &html, &svg] {
        assert!(form.contains("reasons::nobody_answers") && !form.contains("hunter2"), "{form}");
    }
    assert!(svg.contains("3 of 3, 100.0 %"), "{svg}");
    assert!(html.len() < 100_000 && html.contains("GET /answer/"));
    let again: Report = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!((again.to_json(), again.to_text()), (report.to_json(), text));
}

/// Keeps what it gets.
#[derive(Clone, Default)]
struct Mailbox(std::sync::Arc<std::sync::Mutex<Vec<Report>>>);

impl heeler::AsyncSink for Mailbox {
    fn name(&self) -> &str {
        "mailbox"
    }

    async fn deliver(&self, report: &Report) -> Result<(), heeler::SinkError> {
        self.0.lock().unwrap().push(report.clone());
        Ok(())
    }
}

/// Hangs, like a log that goes to a pipe which nobody reads.
struct Hangs(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl heeler::Sink for Hangs {
    fn name(&self) -> &str {
        "hangs"
    }

    fn deliver(&self, _: &Report) -> Result<(), heeler::SinkError> {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }
}

/// Guards: a dump reaches a sink that goes over the network although nothing was ever reported before, and although another
/// sink hangs.
#[test]
fn a_dump_that_is_the_first_report_reaches_every_sink() {
    let (release, held) = std::sync::mpsc::channel();
    let mailbox = Mailbox::default();
    let builder = Reports::builder().without_log().sink(Hangs(std::sync::Mutex::new(held)));
    let reports = builder.async_sink(mailbox.clone()).build().unwrap();
    let dumping = std::thread::spawn(move || reports.blocking_dump("asked for"));
    until("it has arrived", || mailbox.0.lock().unwrap().len() == 1);
    assert!(!dumping.is_finished());
    drop(release);
    dumping.join().unwrap();
}

/// Guards: a pile-up on a route is one report, long before any of its requests is slow.
#[test]
fn a_pile_up_is_reported_before_anything_is_slow() {
    let (seen, reports) = collect();
    let mut service = Service::new(2);
    service.layer = heeler::WatchdogLayer::new(super::FOREVER).reports(reports).pile_up(20);
    for number in 0..19 {
        service.request(&format!("/answer/{number}"), nobody_answers());
    }
    until("all are in flight", || heeler::metrics().in_flight.total() == 19);
    std::thread::sleep(ms(600));
    assert_eq!(seen.all().len(), 0);
    service.request("/answer/19", nobody_answers());
    until("the pile-up is reported", || seen.all().len() == 1);
    let sentence = seen.all()[0].sentence();
    assert!(
        sentence.starts_with(
            "a dump (a pile-up: 20 requests are on GET /answer/{id} (limit 20)): 20 in flight: 20 waiting"
        ),
        "{sentence}"
    );
    // It goes on, and is no news.
    std::thread::sleep(ms(600));
    assert_eq!(seen.all().len(), 1);
}

fn run(test: &str, part: &str, directory: &std::path::Path) -> Output {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own);
    command.args(["--exact", test, "--nocapture"]).env(PART, part).env(DIRECTORY, directory);
    command.output().unwrap()
}

/// What the process has written.
fn written(directory: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn reports_in_directory() -> Reports {
    Reports::builder().without_log().directory(std::env::var_os(DIRECTORY).unwrap()).build().unwrap()
}

/// Sends a signal to this process.
fn kill(signal: &str) {
    assert!(Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap().success());
}

/// The process that gets signals.
#[test]
fn a_process_that_gets_a_signal() {
    if std::env::var(PART).as_deref() != Ok("signal") {
        return;
    }
    let service = Service::new(1);
    let reports = reports_in_directory();
    assert!(reports.dump_on_signal(libc::SIGTERM).unwrap_err().is_signal());
    assert!(reports.dump_on_signal(libc::SIGSEGV).unwrap_err().is_signal());
    reports.dump_on_signal(libc::SIGUSR1).unwrap();
    assert!(reports.dump_on_signal(libc::SIGUSR1).unwrap_err().is_signal(), "it has a handler");
    service.request("/answer", nobody_answers());
    until("it is in flight", || heeler::metrics().in_flight.total() == 1);
    let directory = std::env::var_os(DIRECTORY).unwrap();
    for number in 1..=2 {
        kill("-USR1");
        until("it is written", || written(directory.as_ref()).len() == number);
    }
    // SIGTERM ends the process, as it did before.
    kill("-TERM");
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn a_signal_makes_a_dump() {
    let place = tempfile::tempdir().unwrap();
    let output = run("reasons::a_process_that_gets_a_signal", "signal", place.path());
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{output:?}");
    for text in written(place.path()) {
        assert!(text.starts_with(&format!("a dump (signal {}): 1 in flight", libc::SIGUSR1)), "{text}");
    }
}

/// The process that shuts down, which takes longer than it may.
#[test]
fn a_process_that_shuts_down() {
    if std::env::var(PART).as_deref() != Ok("shutdown") {
        return;
    }
    let service = Service::new(1);
    let reports = reports_in_directory();
    service.request("/answer", nobody_answers());
    until("it is in flight", || heeler::metrics().in_flight.total() == 1);
    let signal = async { 7 };
    let shutdown = heeler::shutdown(signal, ms(200)).reports(reports);
    assert_eq!(service.driven.handle.block_on(shutdown), 7);
    let directory = std::env::var_os(DIRECTORY).unwrap();
    until("it is written", || written(directory.as_ref()).len() == 1);
}

#[test]
fn a_shutdown_that_takes_too_long_makes_a_dump() {
    let place = tempfile::tempdir().unwrap();
    let output = run("reasons::a_process_that_shuts_down", "shutdown", place.path());
    assert!(output.status.success(), "{output:?}");
    let text = written(place.path()).remove(0);
    let sentence = "a dump (the shutdown takes longer than 200 ms: this is what it waits for): 1 in flight";
    assert!(text.starts_with(sentence) && text.contains("reasons::nobody_answers"), "{text}");
}
