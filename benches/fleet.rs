//! What hundreds of instances cost that share a bucket, and what people hear of them.
//!
//! - `fleet.simulation`: 300 instances and one store that takes 50 ms for each request and fails one of a hundred, in a virtual
//!   time: an incident hits all of them at once; another one ten seconds before the store is down for ten minutes; a third while it
//!   is down; a fourth when it is back. Messages to people, reports that are lost without a count, and requests.
//! - `fleet.batch`: how many bytes a real report takes in the store, alone and with nineteen like it.
//! - `fleet.page`: the console's page about 100,000 reports of 300 processes, by a process that has never asked for it: from a
//!   directory, and from a store that takes 50 ms for each request. Neither this day nor the one before has been put together, which is
//!   the most that there can be to read.
//!
//! ```text
//! cargo bench -p benches --bench fleet               # about two minutes
//! cargo bench -p benches --bench fleet -- --quick    # with a tenth of the reports
//! ```

#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::pick;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use heeler::report::FleetNews;
use heeler::report::fleet::simulation::SimulatedInstance;
use heeler::{AsyncSink, Fleet, Report, Reports, SinkError, authorize};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt as _;

const INSTANCES: usize = 300;
const LATENCY: Duration = Duration::from_millis(50);
const SECRET: &str = "a-secret-of-this-benchmark";
/// A time of the virtual store's clock.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

fn main() {
    match common::after("--part") {
        None => {
            let place = tempfile::tempdir().expect("a directory");
            common::again(&["--part", "simulation"]);
            common::again(&["--part", "batch"]);
            generate(place.path());
            let path = place.path().to_str().expect("text");
            common::again(&["--part", "page", path]);
            common::again(&["--part", "remote", path]);
        }
        Some(part) => match (part[0].as_str(), part.get(1)) {
            ("page", Some(path)) => page("fleet.page", FilePath::new(path), Duration::ZERO),
            ("remote", Some(path)) => page("fleet.page.remote", FilePath::new(path), LATENCY),
            ("batch", _) => [1, 20].into_iter().for_each(batch),
            _ => simulate(),
        },
    }
}

/// A figure.
fn plain(name: &str, figure: impl fmt::Display) {
    println!("{name}: {figure}");
}

/// A figure with the limit it should stay below.
fn at_most(name: &str, figure: impl fmt::Display, goal: u64) {
    println!("{name}: {figure} (goal <= {goal})");
}

/// A store with a latency, errors and an outage, whose clock is that of the runtime.
#[derive(Debug)]
struct Cloud {
    inner: Arc<dyn ObjectStore>,
    latency: Duration,
    /// Of a hundred requests, so many fail.
    errors: u64,
    /// The seconds of the virtual time at which nothing works.
    outage: std::ops::Range<u64>,
    began: Instant,
    random: Mutex<fastrand::Rng>,
    modified: Mutex<HashMap<Path, Duration>>,
    /// How many requests there were in each second.
    puts: Mutex<BTreeMap<u64, u64>>,
    others: AtomicU64,
    bytes: AtomicU64,
}

impl Cloud {
    fn new(inner: Arc<dyn ObjectStore>, latency: Duration, errors: u64, outage: std::ops::Range<u64>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            latency,
            errors,
            outage,
            began: Instant::now(),
            random: Mutex::new(fastrand::Rng::with_seed(7)),
            modified: Mutex::default(),
            puts: Mutex::default(),
            others: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    async fn request(&self) -> Result<()> {
        sleep(self.latency).await;
        self.fails().map_or(Ok(()), Err)
    }

    /// Returns how a request fails, if it does.
    fn fails(&self) -> Option<Error> {
        let fails = self.random.lock().expect("a lock").u64(..100) < self.errors;
        let fails = fails || self.outage.contains(&self.began.elapsed().as_secs());
        fails.then(|| Error::Generic { store: "cloud", source: "503".into() })
    }

    /// Gives an object the time at which it was written, by the virtual clock.
    fn timed(&self, meta: ObjectMeta) -> ObjectMeta {
        match self.modified.lock().expect("a lock").get(&meta.location) {
            Some(time) => ObjectMeta { last_modified: (UNIX_EPOCH + EPOCH + *time).into(), ..meta },
            None => meta,
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cloud")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Cloud {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        *self.puts.lock().expect("a lock").entry(self.began.elapsed().as_secs()).or_default() += 1;
        self.request().await?;
        let bytes = payload.content_length() as u64;
        let put = self.inner.put_opts(path, payload, options).await?;
        self.bytes.fetch_add(bytes, Relaxed);
        self.modified.lock().expect("a lock").insert(path.clone(), self.began.elapsed());
        Ok(put)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.others.fetch_add(1, Relaxed);
        self.request().await?;
        let found = self.inner.get_opts(path, options).await?;
        let meta = self.timed(found.meta.clone());
        Ok(GetResult { meta, ..found })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fails() {
            Some(error) => futures::stream::once(async { Err(error) }).boxed(),
            None => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.others.fetch_add(1, Relaxed);
        if let Some(error) = self.fails() {
            return futures::stream::once(async { Err(error) }).boxed();
        }
        // Collected at once: nothing else runs meanwhile.
        let found = futures::executor::block_on(self.inner.list(folder).collect::<Vec<_>>());
        let found: Vec<_> = found.into_iter().map(|meta| meta.map(|meta| self.timed(meta))).collect();
        let latency = self.latency;
        let late = futures::stream::once(async move {
            sleep(latency).await;
            futures::stream::iter(found)
        });
        late.flatten().boxed()
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.others.fetch_add(1, Relaxed);
        self.request().await?;
        self.inner.list_with_delimiter(folder).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What people get: for each incident the messages that it has begun, and all others. And how long each takes.
#[derive(Clone, Default)]
struct People(Arc<Mutex<BTreeMap<String, (u64, u64)>>>, Duration);

impl AsyncSink for People {
    fn name(&self) -> &str {
        "people"
    }

    async fn deliver(&self, report: &Report) -> std::result::Result<(), SinkError> {
        sleep(self.1).await;
        let began = report.fleet.as_ref().is_some_and(|fleet| fleet.news == FleetNews::Began);
        let mut all = self.0.lock().expect("a lock");
        let counts = all.entry(report.job.clone().unwrap_or_default()).or_default();
        if began {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        Ok(())
    }

    fn tells_people(&self) -> bool {
        true
    }
}

/// A report of a job, as another process would have written it.
fn report(number: u64, job: &str, at: SystemTime, millis: u64) -> Report {
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(job, &mut hash);
    let fingerprint = format!("{:016x}", std::hash::Hasher::finish(&hash));
    let at = humantime::format_rfc3339_millis(at).to_string();
    let frame = |line: u64| {
        serde_json::json!({
            "function": "app::invoices::load_invoice", "file": "src/invoices.rs", "line": line, "module": "app",
            "build_id": "a2497d1107dda49dada203040a5f1d1007ab56df", "address": "0x1f00", "own": true, "inlined": false
        })
    };
    let stack = serde_json::json!({
        "kind": "await", "current": true, "truncated": false, "reconstructed": false, "branch": 0, "child": null,
        "thread": null, "work": null, "frames": (0..20).map(frame).collect::<Vec<_>>()
    });
    let json = serde_json::json!({
        "schema": 1, "id": format!("{number:016x}"), "update": 0, "kind": "slow_request", "verdict": "waiting",
        "captured_at": at, "started_at": at, "elapsed_ms": millis as f64, "threshold_ms": 1000.0, "request": null,
        "job": job, "process": {
            "hostname": "web1", "pid": 4242, "executable": "/opt/app", "build_id": null, "service": null, "version": null
        },
        "thread": null, "polls": 2, "busy_ms": 1.0, "waiting_ms": 2.0, "unobserved_ms": 0.0, "longest_poll_ms": 1.0,
        "location": null, "stacks": [stack], "timeline": [], "spans": [], "notes": [], "fingerprint": fingerprint,
        "suppressed": 0
    });
    serde_json::from_value(json).expect("a report")
}

/// Which incidents hit all instances, at which second, and for how many minutes.
const INCIDENTS: [(&str, u64, u64); 4] = [
    ("all at once", 60, 5),
    ("just before the outage", 1_790, 5),
    ("in the outage", 2_100, 5),
    ("after the outage", 3_600, 5),
];
const OUTAGE: std::ops::Range<u64> = 1_800..2_400;
const END: u64 = 5_400;
/// How many reports of each instance are held back in a minute.
const HELD_BACK: u64 = 20;

fn simulate() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let began = std::time::Instant::now();
        let cloud = Cloud::new(Arc::new(InMemory::new()), LATENCY, 1, OUTAGE);
        let start = Instant::now();
        let people = People(Arc::default(), Duration::from_millis(300));
        let fleet = Fleet::new(cloud.clone(), "photos");
        let instances: Vec<_> = (0..INSTANCES)
            .map(|number| Arc::new(SimulatedInstance::start(&format!("web{number}"), &fleet, people.clone())))
            .collect();
        for (at, instance) in instances.iter().enumerate() {
            let instance = Arc::clone(instance);
            tokio::spawn(async move {
                for (which, (job, second, minutes)) in INCIDENTS.iter().enumerate() {
                    for minute in 0..*minutes {
                        // All of them within a second.
                        let spread = Duration::from_millis(at as u64 * 1_000 / INSTANCES as u64);
                        sleep_until(start + Duration::from_secs(second + minute * 60) + spread).await;
                        let number = (which * 1_000_000 + at * 1_000) as u64 + minute;
                        instance.report(&report(number, job, SystemTime::now(), 2_000 + minute), HELD_BACK);
                    }
                }
            });
        }
        sleep_until(start + Duration::from_secs(END)).await;

        for (job, ..) in INCIDENTS {
            let (messages, news) = people.0.lock().expect("a lock").get(job).copied().unwrap_or_default();
            let name = format!("fleet.simulation: messages that an incident has begun, {job}");
            if job == "in the outage" {
                plain(&format!("{name} (each tells for itself)"), messages);
            } else {
                at_most(&name, messages, 3);
            }
            plain(&format!("fleet.simulation: news of it, {job}"), news);
        }
        let (mut made, mut queued, mut undelivered, mut uncounted, mut unwritten, mut failed) = (0, 0, 0, 0, 0, 0);
        let mut unequal = 0;
        for instance in &instances {
            let (stats, fleet) = instance.stats();
            made += stats.made;
            queued += stats.queued;
            undelivered += stats.undelivered;
            uncounted += fleet.uncounted;
            unwritten += fleet.unwritten;
            failed += fleet.failed_requests;
            unequal += u64::from(stats.made != stats.delivered + stats.undelivered + stats.suppressed + stats.queued);
        }
        let news: u64 = people.0.lock().expect("a lock").values().map(|(_, news)| news).sum();
        let counted = counted(&cloud.inner).await;
        plain("fleet.simulation: pieces of work reported", made - news);
        plain("fleet.simulation: counted in the store", counted);
        at_most("fleet.simulation: lost without a count", made - news - counted - uncounted - unwritten, 0);
        at_most("fleet.simulation: instances whose statistics do not add up", unequal, 0);
        plain("fleet.simulation: on their way, given up, not counted", format!("{queued}, {undelivered}, {uncounted}"));
        let puts = cloud.puts.lock().expect("a lock");
        let all: u64 = puts.values().sum();
        plain("fleet.simulation: puts in an hour and a half", all);
        plain("fleet.simulation: puts a second, on average", format!("{:.1}", all as f64 / END as f64));
        plain("fleet.simulation: puts in the busiest second", puts.values().max().copied().unwrap_or_default());
        plain("fleet.simulation: gets and lists", cloud.others.load(Relaxed));
        plain("fleet.simulation: requests that failed", failed);
        plain("fleet.simulation: bytes written", cloud.bytes.load(Relaxed));
        plain("fleet.simulation: took", format!("{:.1?}", began.elapsed()));
    });
}

/// The reports that the store counts.
async fn counted(store: &Arc<dyn ObjectStore>) -> u64 {
    use object_store::ObjectStoreExt as _;

    let mut reports = 0;
    let objects: Vec<_> = store.list(Some(&Path::from("photos/incidents"))).collect().await;
    for object in objects.into_iter().flatten().filter(|object| object.location.as_ref().contains("/total-")) {
        let bytes = store.get(&object.location).await.expect("an object").bytes().await.expect("bytes");
        reports += serde_json::from_slice::<serde_json::Value>(&bytes).expect("JSON")["reports"].as_u64().unwrap_or(0);
    }
    reports
}

/// Real reports of a job that waits, so many at once.
fn batch(reports: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let hour = Duration::from_secs(3_600);
        let fleet = Fleet::new(Arc::clone(&store), "photos").flush_every(hour).ends_after(2 * hour);
        let builder = Reports::builder().without_log().without_endings().repeat_after(Duration::ZERO);
        let sinks = builder.fleet(fleet).build().expect("reports");
        let threshold = Duration::from_millis(500);
        let job = |_| heeler::watch("import", threshold, sleep(threshold * 9 / 5)).reports(sinks.clone());
        futures::future::join_all((0..reports).map(job)).await;
        assert!(sinks.flush(Duration::from_secs(60)).await, "memory takes everything");
        let objects: Vec<_> = store.list(Some(&Path::from("photos/reports"))).collect().await;
        let bytes: u64 = objects.into_iter().flatten().map(|object| object.size).sum();
        plain(&format!("fleet.batch: bytes for each of {reports} reports"), bytes / sinks.stats().made.max(1));
    });
}

/// Writes a week's reports of all instances.
fn generate(place: &FilePath) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(LocalFileSystem::new_with_prefix(place).expect("a store"));
        let fleet = Fleet::new(store, "photos").flush_every(Duration::from_secs(86_400));
        let each = pick(100_000, 10_000) / INSTANCES as u64 + 1;
        let mut last = None;
        for instance in 0..INSTANCES as u64 {
            let simulated = SimulatedInstance::start(&format!("web{instance}"), &fleet, People::default());
            for number in 0..each {
                let ago = Duration::from_secs(7 * 86_400 - 3_600) * (each - number) as u32 / each as u32;
                let job = format!("job {}", (instance + number * 7) % 60);
                let report = report(instance * 1_000_000 + number, &job, SystemTime::now() - ago, 1_000 + number);
                simulated.report(&report, 0);
            }
            assert!(simulated.flush().await, "a directory takes everything");
            last = Some(simulated);
        }
        if let Some(last) = last {
            // The most that the page ever has to read: as much as just before the day before is put together.
            let midnight = SystemTime::now() - Duration::from_secs(now_of_day());
            assert!(last.compact(midnight).await, "a directory takes everything");
        }
        plain("fleet.page: reports in the store", each * INSTANCES as u64);
    });
}

/// Returns how many seconds of this day are over, in UTC.
fn now_of_day() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400
}

/// Asks for the page once.
fn page(name: &str, place: &FilePath, latency: Duration) {
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(place).expect("a store"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Cloud::new(local, latency, 0, 0..0);
        let reports =
            Reports::builder().without_log().fleet(Fleet::new(store.clone(), "photos")).build().expect("reports");
        let console = heeler::console(reports, authorize::bearer(SECRET).expect("a secret"));
        let request = http::Request::get("/?view=fleet").header("authorization", format!("Bearer {SECRET}"));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
        let began = std::time::Instant::now();
        let response = console.oneshot(request).await.expect("an answer");
        let took = began.elapsed();
        assert_eq!(response.status(), 200);
        at_most(&format!("{name}: seconds until the page is there"), format!("{:.2}", took.as_secs_f64()), 1);
        plain(&format!("{name}: requests"), store.others.load(Relaxed));
    });
}
