//! Real processes that share a directory: many at once, partitions, and deaths in the middle.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use heeler::report::FleetNews;
use heeler::{Fleet, Report, Reports, Sink, SinkError};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::common::{Collected, ms};
use crate::stores::Shaky;
use crate::{PREFIX, counted, firsts, get_stuck, objects, parts, sums_up};

const ROOT: &str = "HEELER_TEST_FLEET";
const NAME: &str = "HEELER_TEST_FLEET_NAME";
const HANGS: &str = "HEELER_TEST_FLEET_HANGS";
const SPOOL: &str = "HEELER_TEST_FLEET_SPOOL";
const TAKE_OVER: &str = "HEELER_TEST_FLEET_TAKE_OVER";

/// What these tests wait for at most: each process reads megabytes of debug information before its first report, and all of
/// them share the machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// Tells people by a file in a directory that all processes share.
struct Messages {
    folder: PathBuf,
    name: String,
    hangs: bool,
}

impl Sink for Messages {
    fn name(&self) -> &str {
        "messages"
    }

    fn deliver(&self, report: &Report) -> Result<(), SinkError> {
        if self.hangs {
            println!("\nabout to tell people");
            loop {
                std::thread::park();
            }
        }
        let fleet = report.fleet.as_ref().expect("people are told on behalf of a fleet");
        let kind = if fleet.news == FleetNews::Began { "message" } else { "news" };
        std::fs::write(self.folder.join(format!("{kind}-{}-{}", self.name, report.id)), report.to_text())?;
        Ok(())
    }

    fn tells_people(&self) -> bool {
        true
    }
}

/// A process of the service.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// Where processes of a test meet.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        ["bucket", "messages"].iter().for_each(|name| std::fs::create_dir(place.path().join(name)).unwrap());
        Self(place)
    }

    fn start(&self, test: &str, name: &str, set: impl FnOnce(&mut Command) -> &mut Command) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(ROOT, self.0.path()).env(NAME, name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = set(&mut command).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new_with_prefix(self.0.path().join("bucket")).unwrap())
    }

    fn messages(&self, kind: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.0.path().join("messages")).unwrap().map(|file| file.unwrap().file_name());
        files.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with(kind)).collect()
    }

    /// Cuts a process off from the store, or connects it again.
    fn part(&self, name: &str, parted: bool) {
        let file = self.0.path().join(format!("parted-{name}"));
        if parted { std::fs::write(file, "").unwrap() } else { std::fs::remove_file(file).unwrap() }
    }
}

impl Process {
    /// Waits for a line.
    #[track_caller]
    fn says(&mut self, what: &str) -> String {
        let line = self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("the process ended before it said {what:?}"))
    }

    /// Has so many jobs get stuck.
    fn get_stuck(&mut self, jobs: u64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{jobs}").unwrap();
    }

    /// Waits until everything is in the store, and for the end. Returns how many pieces of work it has reported.
    fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let line = self.says("made: ");
        assert!(self.child.wait().unwrap().success());
        line.split("made: ").nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "timed out waiting until {what}");
        std::thread::sleep(ms(20));
    }
}

/// Is a process of the service, if this is one. To be called first by each test here, for its processes run it, too.
fn be_a_process() {
    let Some(root) = std::env::var_os(ROOT).map(PathBuf::from) else { return };
    let name = std::env::var(NAME).unwrap();
    let shaky = Shaky::new(Arc::new(LocalFileSystem::new_with_prefix(root.join("bucket")).unwrap()));
    *shaky.partition.lock().unwrap() = Some(root.join(format!("parted-{name}")));
    let mut fleet = Fleet::new(shaky, PREFIX).flush_every(ms(200)).ends_after(Duration::from_secs(3_600));
    if let Ok(millis) = std::env::var(TAKE_OVER) {
        fleet = fleet.take_over_after(ms(millis.parse().unwrap()));
    }
    let sink = Messages { folder: root.join("messages"), name: name.clone(), hangs: std::env::var_os(HANGS).is_some() };
    let builder = Reports::builder().without_log().without_endings().repeat_after(Duration::ZERO).instance(name);
    let builder = match std::env::var_os(SPOOL) {
        Some(spool) => builder.spool(spool),
        None => builder,
    };
    let all = Collected::default();
    let reports = builder.sink(all.clone()).sink(sink).fleet(fleet).build().unwrap();
    println!("\nruns");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        get_stuck([(&reports, &all)], line.parse().unwrap());
        println!("\nreported");
    }
    assert!(reports.blocking_flush(PATIENCE), "{:?}", reports.fleet());
    sums_up(&reports.stats());
    println!("\nmade: {}", firsts(&all));
    std::process::exit(0);
}

/// Guards: twenty processes have one incident at the same time, and people get one message. All reports are counted.
#[test]
fn twenty_processes_one_message() {
    be_a_process();
    let place = Place::new();
    let start = |number| place.start("processes::twenty_processes_one_message", &format!("web{number}"), |set| set);
    let mut processes: Vec<Process> = (0..20).map(start).collect();
    processes.iter_mut().for_each(|process| _ = process.says("runs"));
    processes.iter_mut().for_each(|process| process.get_stuck(3));
    let made: u64 = processes.into_iter().map(Process::end).sum();
    assert_eq!((made, place.messages("message").len()), (60, 1), "{:?}", parts(&place.store()));
    assert_eq!(counted(&place.store()), made);
}

/// Guards: processes that are cut off from the store tell people for themselves. When they are connected again, the counts are
/// exact, and nobody hears of the same incident again.
#[test]
fn counts_are_exact_after_a_partition() {
    be_a_process();
    let place = Place::new();
    let names: Vec<String> = (0..5).map(|number| format!("web{number}")).collect();
    let start = |name: &String| place.start("processes::counts_are_exact_after_a_partition", name, |set| set);
    let mut processes: Vec<Process> = names.iter().map(start).collect();
    processes.iter_mut().for_each(|process| _ = process.says("runs"));
    names[3..].iter().for_each(|name| place.part(name, true));
    processes.iter_mut().for_each(|process| process.get_stuck(2));
    processes.iter_mut().for_each(|process| _ = process.says("reported"));
    until("each side tells people", || place.messages("message").len() == 3);
    until("one side is counted", || counted(&place.store()) == 6);
    names[3..].iter().for_each(|name| place.part(name, false));
    until("all are counted", || counted(&place.store()) == 10);
    processes.iter_mut().for_each(|process| process.get_stuck(1));
    let made: u64 = processes.into_iter().map(Process::end).sum();
    assert_eq!((made, counted(&place.store()), place.messages("message").len()), (15, 15, 3));
}

/// How many reports in the spool people need not be told about any more.
fn taken_by_people(spool: &Path) -> usize {
    let folders = std::fs::read_dir(spool).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let lists = files.filter(|file| file.extension().is_some_and(|kind| kind == "taken"));
    lists.filter(|list| std::fs::read_to_string(list).is_ok_and(|names| names.contains("messages"))).count()
}

/// Guards: what the store did not take before a process was killed is brought there by the next process, and people do not hear
/// of it again.
#[test]
fn a_spool_keeps_reports_for_the_store() {
    be_a_process();
    let (place, spool) = (Place::new(), tempfile::tempdir().unwrap());
    let start = |name: &str| {
        place.start("processes::a_spool_keeps_reports_for_the_store", name, |set| set.env(SPOOL, spool.path()))
    };
    place.part("dies", true);
    let mut first = start("dies");
    first.says("runs");
    first.get_stuck(2);
    first.says("reported");
    until("it tells people for itself", || place.messages("message").len() == 1);
    // A slow machine makes updates of them, too.
    until("the spool says so", || taken_by_people(spool.path()) >= 2);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(objects(&place.store(), "reports").is_empty());

    let mut next = start("next");
    next.says("runs");
    until("the next one brings them to the store", || !objects(&place.store(), "reports").is_empty());
    assert_eq!((next.end(), place.messages("message").len()), (0, 1));
}

/// Guards: a process that is killed after it has claimed an incident and before it has told people is replaced in time.
#[test]
fn another_tells_people_after_a_kill() {
    be_a_process();
    let place = Place::new();
    let test = "processes::another_tells_people_after_a_kill";
    let mut first = place.start(test, "dies", |set| set.env(HANGS, "1").env(TAKE_OVER, "3000"));
    first.says("runs");
    first.get_stuck(1);
    first.says("about to tell people");
    // SIGKILL.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(parts(&place.store()).contains(&"1/claim-1".to_owned()));

    let start = |name: &str| place.start(test, name, |set| set.env(TAKE_OVER, "3000"));
    let mut others = ["web1", "web2"].map(start);
    others.iter_mut().for_each(|process| _ = process.says("runs"));
    others.iter_mut().for_each(|process| process.get_stuck(1));
    others.iter_mut().for_each(|process| _ = process.says("reported"));
    until("another tells people", || !place.messages("message").is_empty());
    until("the store says so", || parts(&place.store()).contains(&"1/told".to_owned()));
    others.into_iter().for_each(|process| assert_eq!(process.end(), 1));
    assert_eq!(place.messages("message").len(), 1);
    let parts = parts(&place.store());
    assert_eq!(parts.iter().filter(|part| part.contains("/claim-")).count(), 2, "{parts:?}");
}
