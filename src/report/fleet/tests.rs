//! Instances in a virtual time, with a store whose clock is virtual, too.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

#[cfg(test)]
mod faults;

use super::Fleet;
use super::incident::Incident;
use super::layout::Part;
use super::member::{Member, day_of};
use super::records::{Index, MAX_OBJECT, Stored, decode};
use super::simulation::SimulatedInstance;
use super::store::MAX_LISTED;
use super::upkeep::upkeep_day;
use crate::report::testing::report;
use crate::report::{AsyncSink, FleetIncident, FleetNews, Location, ProcessInfo, Report, SinkError};
use crate::sync::lock_std;

const MINUTE: Duration = Duration::from_secs(60);
const LATENCY: Duration = Duration::from_millis(50);

/// A store that takes its time, by the runtime's clock. Its own clock is decades behind this machine's: it must not matter.
#[derive(Debug)]
struct Virtual {
    inner: InMemory,
    began: Instant,
    modified: Mutex<HashMap<Path, Duration>>,
    /// Nothing works.
    down: AtomicBool,
    /// Each request with a condition fails.
    breaks: AtomicBool,
    /// Objects with this in their paths are created, and the answer is lost.
    loses: Mutex<Option<&'static str>>,
    /// Folders with this in their paths cannot be listed, and objects not be removed.
    broken: Mutex<Option<&'static str>>,
    /// How long a listing takes for each object.
    slow: Mutex<Duration>,
}

impl Virtual {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            began: Instant::now(),
            modified: Mutex::default(),
            down: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            loses: Mutex::default(),
            broken: Mutex::default(),
            slow: Mutex::default(),
        })
    }

    async fn begin(&self) -> Result<()> {
        sleep(LATENCY).await;
        if self.down.load(SeqCst) { Err(failure()) } else { Ok(()) }
    }

    fn is_broken(&self, path: &Path) -> bool {
        self.down.load(SeqCst) || self.broken.lock().unwrap().is_some_and(|part| path.as_ref().contains(part))
    }

    fn timed(&self, meta: ObjectMeta) -> ObjectMeta {
        let time = self.modified.lock().unwrap()[&meta.location];
        ObjectMeta { last_modified: (UNIX_EPOCH + Duration::from_secs(1_000_000) + time).into(), ..meta }
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "virtual", source: "on purpose".into() }
}

impl fmt::Display for Virtual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("virtual")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Virtual {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.begin().await?;
        let has_condition = options.mode != PutMode::Overwrite;
        if has_condition && self.breaks.load(SeqCst) {
            return Err(failure());
        }
        let put = self.inner.put_opts(path, payload, options).await?;
        self.modified.lock().unwrap().insert(path.clone(), self.began.elapsed());
        let is_lost = has_condition && self.loses.lock().unwrap().is_some_and(|part| path.as_ref().contains(part));
        if is_lost { Err(failure()) } else { Ok(put) }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unimplemented!("nothing is that large")
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.begin().await?;
        let found = self.inner.get_opts(path, options).await?;
        let meta = self.timed(found.meta.clone());
        Ok(GetResult { meta, ..found })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let broken = *self.broken.lock().unwrap();
        if self.down.load(SeqCst) {
            return futures::stream::once(async { Err(failure()) }).boxed();
        }
        let is_broken = move |path: &Path| broken.is_some_and(|part| path.as_ref().contains(part));
        let paths =
            paths.map(move |path| path.and_then(|path| if is_broken(&path) { Err(failure()) } else { Ok(path) }));
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if folder.is_some_and(|folder| self.is_broken(folder)) {
            return futures::stream::once(async { Err(failure()) }).boxed();
        }
        let found = futures::executor::block_on(self.inner.list(folder).collect::<Vec<_>>());
        let found: Vec<_> = found.into_iter().map(|meta| meta.map(|meta| self.timed(meta))).collect();
        let slow = *self.slow.lock().unwrap();
        let late = async move {
            sleep(LATENCY).await;
            futures::stream::iter(found).then(move |meta| async move {
                sleep(slow).await;
                meta
            })
        };
        futures::stream::once(late).flatten().boxed()
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.begin().await?;
        if folder.is_some_and(|folder| self.is_broken(folder)) {
            return Err(failure());
        }
        self.inner.list_with_delimiter(folder).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unimplemented!("nothing is copied")
    }
}

/// People, and the mail server on the way to them.
#[derive(Clone)]
struct People {
    messages: Arc<AtomicU64>,
    /// What each message says of the fleet.
    told: Arc<Mutex<Vec<FleetIncident>>>,
    /// From when on mail can be sent.
    works_from: Instant,
    /// Whether an attempt ends at all.
    hangs: bool,
    /// How many messages are still to be refused for good.
    refuses: Arc<AtomicU64>,
}

impl People {
    fn new() -> Self {
        Self {
            messages: Arc::default(),
            told: Arc::default(),
            works_from: Instant::now(),
            hangs: false,
            refuses: Arc::default(),
        }
    }

    fn messages(&self) -> u64 {
        self.messages.load(SeqCst)
    }
}

impl AsyncSink for People {
    fn name(&self) -> &str {
        "people"
    }

    async fn deliver(&self, report: &Report) -> std::result::Result<(), SinkError> {
        sleep(Duration::from_millis(300)).await;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if Instant::now() < self.works_from {
            return Err("no mail can be sent".into());
        }
        if self.refuses.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(SinkError::permanent("refused"));
        }
        let fleet = report.fleet.as_ref().expect("on behalf of the fleet");
        self.messages.fetch_add(u64::from(!fleet.is_update()), SeqCst);
        self.told.lock().unwrap().push((**fleet).clone());
        Ok(())
    }

    fn tells_people(&self) -> bool {
        true
    }
}

fn instances(number: usize, people: &People) -> Vec<SimulatedInstance> {
    let fleet = Fleet::new(Virtual::new(), "photos");
    (0..number).map(|at| SimulatedInstance::start(&format!("web{at}"), &fleet, people.clone())).collect()
}

fn of(incident: u64) -> Report {
    Report { fingerprint: format!("{incident:016x}"), id: format!("{incident}-1"), ..report() }
}

/// Guards: incidents that begin at the same moment, before it is known whether the store heeds conditions, are not mistaken for
/// proof that it does not.
#[tokio::test(start_paused = true)]
async fn many_incidents_at_the_start_are_shared() {
    let people = People::new();
    let instances = instances(3, &people);
    for instance in &instances {
        (0..100).for_each(|incident| instance.report(&of(incident), 0));
    }
    sleep(2 * MINUTE).await;
    let stats: Vec<_> = instances.iter().map(|instance| instance.stats().1).collect();
    assert!(stats.iter().all(|stats| stats.heeds_conditions == Some(true) && stats.messages_alone == 0), "{stats:?}");
    assert_eq!(people.messages(), 100);
}

/// Guards: reports that wait for the store take bounded memory. Beyond that, an instance tells people for itself.
#[tokio::test(start_paused = true)]
async fn reports_that_wait_for_the_store_take_bounded_memory() {
    let people = People::new();
    let instance = instances(1, &people).remove(0);
    for incident in 0..3 {
        instance.report(&Report { notes: vec!["x".repeat(6 << 20)], ..of(incident) }, 0);
    }
    sleep(MINUTE).await;
    let stats = instance.stats().1;
    assert_eq!((people.messages(), stats.messages, stats.messages_alone), (3, 2, 1));
}

/// Guards: people hear at once who is affected, later that there are many more, then that another route is hit, and that it ended.
#[tokio::test(start_paused = true)]
async fn people_hear_how_an_incident_goes_on() {
    let on = |route: &str| {
        let mut report = Report { incident: "5cf400b2380cbd97".to_owned(), ..of(1) };
        report.location = Some(Location::new(Some("app::import".to_owned()), None, None));
        report.request.as_mut().unwrap().route = Some(route.to_owned());
        report
    };
    let people = People::new();
    let instances = instances(25, &people);
    instances.iter().for_each(|instance| instance.report(&on("/a"), 1));
    sleep(MINUTE).await;
    let first = people.told.lock().unwrap()[0].clone();
    assert_eq!((first.reports, first.instances.len(), first.more_instances), (50, 20, 5));

    for _ in 0..6 {
        instances.iter().for_each(|instance| instance.report(&on("/a"), 0));
        sleep(MINUTE).await;
    }
    for _ in 0..12 {
        instances[7].report(&on("/b"), 0);
        sleep(MINUTE).await;
    }
    sleep(30 * MINUTE).await;
    let told = people.told.lock().unwrap();
    let news: Vec<FleetNews> = told.iter().map(|told| told.news.clone()).collect();
    let spread = FleetNews::Spread { route: "GET /b".to_owned() };
    assert_eq!(news, [FleetNews::Began, FleetNews::Doubled, spread, FleetNews::Ended { quiet_seconds: 900 }]);
    assert_eq!(told.last().unwrap().reports, 50 + 6 * 25 + 12);
}

/// Guards: of an incident that goes on for longer than anything is kept, people are not told once more.
#[tokio::test(start_paused = true)]
async fn an_incident_is_removed_when_all_of_it_is_old() {
    const DAY: Duration = Duration::from_secs(86_400);

    let fleet = Fleet::new(Virtual::new(), "photos").keep_for(10 * DAY);
    let member = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    let folder = member.layout.incident("5cf400b2380cbd97");
    let write = async |part| {
        let path = member.layout.part("5cf400b2380cbd97", 1, &part);
        member.store.put(&path, Bytes::from_static(b"{}")).await.unwrap();
    };
    let left_by_sweep = async || {
        member.sweep(member.now().await.unwrap()).await.unwrap();
        member.store.list(&folder).await.unwrap().len()
    };
    write(Part::Told).await;
    sleep(6 * DAY).await;
    write(Part::Count("web1".to_owned())).await;
    sleep(6 * DAY).await;
    assert_eq!(left_by_sweep().await, 2);
    sleep(6 * DAY).await;
    assert_eq!(left_by_sweep().await, 0);
}

/// Guards: however many processes have counted an incident, it is known who has claimed it and whether people have been told, and it
/// is not removed while it goes on.
#[tokio::test]
async fn many_processes_hide_nothing() {
    let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
    let member = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    let write = async |part| {
        let path = member.layout.part("5cf400b2380cbd97", 1, &part);
        member.store.put(&path, Bytes::from_static(b"{}")).await.unwrap();
    };
    for process in 0..MAX_LISTED {
        write(Part::Count(format!("{process:016x}"))).await;
    }
    for part in [Part::Claim(1), Part::Told, Part::Update("doubled-1".to_owned())] {
        write(part).await;
    }
    sleep(Duration::from_millis(5)).await;
    let oldest = std::time::SystemTime::now();
    write(Part::Count("ffffffffffffffff".to_owned())).await;
    member.sweep(oldest + fleet.times.keep_for).await.unwrap();
    let listing = member.listing("5cf400b2380cbd97").await.unwrap();
    let standing = listing.number(1).unwrap();
    assert!(standing.told.is_some() && standing.updates.contains_key("doubled-1"));
    assert!(standing.counts.len() > MAX_LISTED - 10);
}

/// Guards: while somebody waits for a flush, it is tried until the store is back, and does not wait for the next one that is due.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_for_the_store_to_come_back() {
    let store = Virtual::new();
    let fleet = Fleet::new(store.clone(), "photos").flush_every(Duration::from_secs(3_600));
    let people = People::new();
    let instance = SimulatedInstance::start("web1", &fleet, people.clone());
    store.down.store(true, SeqCst);
    (1..4).for_each(|incident| instance.report(&of(incident), 0));
    while people.messages() < 3 {
        sleep(Duration::from_millis(10)).await;
    }
    let before = instance.stats().1.failed_requests;
    let began = std::time::Instant::now();
    let waits = instance.waits_for_flush(move || Duration::from_secs(20).saturating_sub(began.elapsed()));
    // One flush has not so many.
    while instance.stats().1.failed_requests < before + 60 && !waits.is_finished() {
        sleep(Duration::from_millis(10)).await;
    }
    store.down.store(false, SeqCst);
    assert!(waits.await.unwrap(), "{:?}", instance.stats());
    assert_eq!(instance.stats().1.unwritten, 0);
}

/// Guards: a report that is counted while the index is on its way to the store is in the next one. A report that comes days later
/// does not replace the index of its day by one that has nothing else.
#[tokio::test]
async fn no_report_is_lost_from_an_index() {
    let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
    let member = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    // The day is left to this test.
    *lock_std(&member.kept_house) = upkeep_day(std::time::SystemTime::now());
    let day = "2025-01-01";
    let captured_at = UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let of = |incident| Report { captured_at, ..of(incident) };
    member.note(&mut of(1), true);
    assert_eq!(member.index(day).map(|index| index.lines.len()), Some(1));
    assert!(member.index(day).is_none(), "it is on its way");
    member.note(&mut of(2), true);
    member.flush().await.unwrap();
    let stored = async || {
        let bytes = member.store.get(&member.layout.index(day, &member.id), MAX_OBJECT).await.unwrap().unwrap();
        decode::<Index>(&bytes).unwrap().lines.len()
    };
    assert_eq!(stored().await, 2);

    let at = Stored { day: day.to_owned(), batch: "late".to_owned(), id: "1-1".to_owned(), elapsed: MINUTE };
    member.stored(&of(1), &at);
    member.note(&mut of(3), true);
    member.flush().await.unwrap();
    assert_eq!((stored().await, member.stats().uncounted), (2, 1));
}

/// Guards: a day with very many processes hides no other day on the console's page.
#[cfg(feature = "console")]
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_day_hides_no_other() {
    let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
    let member = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    let now = std::time::SystemTime::now();
    // The days are left to this test.
    *lock_std(&member.kept_house) = upkeep_day(now);
    member.note(&mut Report { captured_at: now, ..of(1) }, true);
    member.flush().await.unwrap();
    let busy = day_of(now - Duration::from_secs(3 * 86_400));
    for process in 0..MAX_LISTED {
        let path = member.layout.index(&busy, &format!("{process:016x}"));
        member.store.put(&path, Bytes::from_static(b"{}")).await.unwrap();
    }
    let view = tokio::task::spawn_blocking(move || member.view()).await.unwrap().unwrap();
    assert_eq!(view.reports, 1);
}

/// Guards: the store's time is asked for again when it may be wrong, and only then.
#[tokio::test]
async fn the_time_is_asked_for_again_after_a_sleep() {
    let fleet = Fleet::new(Arc::new(InMemory::new()), "photos");
    let member = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    let puts = async || {
        member.now().await.unwrap();
        member.stats().puts
    };
    assert_eq!((puts().await, puts().await), (1, 1));
    // As if this machine had been asleep for an hour.
    member.clock.lock().await.as_mut().unwrap().wall -= 60 * MINUTE;
    assert_eq!((puts().await, puts().await), (2, 2));
}

/// Guards: an instance that hangs while it tells people is replaced after a minute, and not before.
#[tokio::test(start_paused = true)]
async fn another_takes_over_after_a_minute() {
    let fleet = Fleet::new(Virtual::new(), "photos");
    let (people, hanging) = (People::new(), People { hangs: true, ..People::new() });
    let first = SimulatedInstance::start("web1", &fleet, hanging);
    let second = SimulatedInstance::start("web2", &fleet, people.clone());
    first.report(&of(1), 0);
    sleep(Duration::from_secs(10)).await;
    second.report(&of(1), 0);
    sleep(Duration::from_secs(45)).await;
    assert_eq!(people.messages(), 0);
    sleep(MINUTE).await;
    assert_eq!(people.messages(), 1);
    sleep(10 * MINUTE).await;
    assert_eq!((people.messages(), second.stats().1.messages), (1, 1));
}

/// Guards: an incident whose message is given up is not silenced. The next report has a message.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_for_good_does_not_silence_the_incident() {
    let people = People { refuses: Arc::new(AtomicU64::new(1)), ..People::new() };
    let instances = instances(2, &people);
    instances[0].report(&of(1), 0);
    sleep(2 * MINUTE).await;
    assert_eq!((people.messages(), people.refuses.load(SeqCst)), (0, 0));
    instances[0].report(&of(1), 0);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(people.messages(), 1);
    instances.iter().for_each(|instance| instance.report(&of(1), 0));
    sleep(MINUTE).await;
    assert_eq!(people.messages(), 1);
}

/// Guards: the same if the sink refuses what an instance tells people for itself.
#[tokio::test(start_paused = true)]
async fn a_message_for_itself_that_is_refused_does_not_silence_the_incident() {
    let store = Virtual::new();
    store.down.store(true, SeqCst);
    let people = People { refuses: Arc::new(AtomicU64::new(1)), ..People::new() };
    let instance = SimulatedInstance::start("web1", &Fleet::new(store, "photos"), people.clone());
    for messages in [0, 1, 1] {
        instance.report(&of(1), 0);
        sleep(MINUTE).await;
        assert_eq!(people.messages(), messages);
    }
}

/// Guards: if the instance that was to tell people has died, one that did not wait for it, because of a flush, takes over.
#[tokio::test(start_paused = true)]
async fn a_flush_does_not_silence_the_incident() {
    let fleet = Fleet::new(Virtual::new(), "photos");
    let (people, hanging) = (People::new(), People { hangs: true, ..People::new() });
    let first = SimulatedInstance::start("web1", &fleet, hanging);
    let second = SimulatedInstance::start("web2", &fleet, people.clone());
    first.report(&of(1), 0);
    sleep(Duration::from_secs(10)).await;
    second.report(&of(1), 0);
    sleep(Duration::from_secs(1)).await;
    assert!(second.flush().await);
    sleep(3 * MINUTE).await;
    assert_eq!(people.messages(), 0, "nothing to tell of");
    second.report(&of(1), 0);
    sleep(MINUTE).await;
    assert_eq!(people.messages(), 1);
}

/// Guards: the end of an incident is noted by an instance that can tell people of it.
#[tokio::test(start_paused = true)]
async fn an_instance_without_a_report_to_show_does_not_note_the_end() {
    let fleet = Fleet::new(Virtual::new(), "photos");
    let people = People::new();
    let first = SimulatedInstance::start("web1", &fleet, people.clone());
    first.report(&of(1), 0);
    sleep(Duration::from_secs(10)).await;
    let second = Member::on(Handle::current(), &fleet, ProcessInfo::default());
    // As after a message about a report that an earlier process has left behind.
    let key = super::key::key_of(&of(1));
    let mut incident = Incident::new(Instant::now());
    incident.assign(&key, 1, None);
    lock_std(&second.state).incidents.insert(key.clone(), incident);
    for _ in 0..1_000 {
        sleep(Duration::from_secs(1)).await;
        if lock_std(&second.state).incidents.contains_key(&key) {
            second.look_on(&key, 1).await.unwrap();
        }
    }
    let news: Vec<FleetNews> = people.told.lock().unwrap().iter().map(|told| told.news.clone()).collect();
    assert_eq!(news, [FleetNews::Began, FleetNews::Ended { quiet_seconds: 900 }]);
}

/// Guards: what an instance has told people while the store was down is no news after the outage.
#[tokio::test(start_paused = true)]
async fn what_an_instance_told_for_itself_is_no_news_after_an_outage() {
    let store = Virtual::new();
    let fleet = Fleet::new(store.clone(), "photos");
    let people = People::new();
    let instance = SimulatedInstance::start("web1", &fleet, people.clone());
    store.down.store(true, SeqCst);
    instance.report(&of(1), 30);
    sleep(MINUTE).await;
    assert_eq!((people.messages(), instance.stats().1.messages_alone), (1, 1));
    store.down.store(false, SeqCst);
    for _ in 0..10 {
        sleep(MINUTE).await;
        instance.report(&of(1), 0);
    }
    let news: Vec<FleetNews> = people.told.lock().unwrap().iter().map(|told| told.news.clone()).collect();
    assert_eq!(news, [FleetNews::Began]);
}

/// Guards: while no mail can be sent, few instances try, and people get one message when it can.
#[tokio::test(start_paused = true)]
async fn one_message_after_mail_was_down() {
    let people = People { works_from: Instant::now() + 12 * MINUTE, ..People::new() };
    let instances = instances(50, &people);
    for _ in 0..16 {
        instances.iter().for_each(|instance| instance.report(&of(1), 0));
        sleep(MINUTE).await;
    }
    sleep(8 * MINUTE).await;
    let tried = instances.iter().filter(|instance| instance.stats().1.messages > 0).count();
    assert!((1..=5).contains(&tried), "{tried} tried");
    assert!((1..=3).contains(&people.messages()), "{} messages", people.messages());
}
