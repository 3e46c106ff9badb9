//! Stores and objects that are not as they should be.

use object_store::local::LocalFileSystem;

use super::*;
use crate::report::fleet::member::Conditions;

const DAY: Duration = Duration::from_secs(86_400);

fn member(store: Arc<dyn ObjectStore>, name: &str) -> Arc<Member> {
    let process = ProcessInfo { instance: Some(name.to_owned()), ..ProcessInfo::default() };
    let member = Member::on(Handle::current(), &Fleet::new(store, "photos").keep_for(10 * DAY), process);
    *lock_std(&member.kept_house) = upkeep_day(std::time::SystemTime::now());
    member
}

async fn write(member: &Member, path: &Path, text: &str) {
    member.store.put(path, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
}

async fn names(member: &Member, folder: &str) -> Vec<String> {
    let objects = member.store.list(&member.layout.folder(folder)).await.unwrap();
    let names = objects.iter().map(|object| object.path.to_string());
    names.map(|name| name.split('/').skip(2).collect::<Vec<_>>().join("/")).collect()
}

/// Guards: in a directory, the folders of what was removed stay. An incident that comes again has one message.
#[tokio::test]
async fn an_incident_that_was_removed_from_a_directory_has_one_message() {
    let place = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(place.path()).unwrap());
    let old = member(Arc::clone(&store), "web0");
    let key = super::super::key::key_of(&of(1));
    for number in [1, 2] {
        write(&old, &old.layout.part(&key, number, &Part::Told), "{}").await;
    }
    let now = old.now().await.unwrap();
    old.sweep(now + 11 * DAY).await.unwrap();
    assert!(names(&old, "incidents").await.is_empty());
    let people = People::new();
    let fleet = Fleet::new(store, "photos");
    for at in 0..3 {
        let instance = SimulatedInstance::start(&format!("web{at}"), &fleet, people.clone());
        instance.report(&of(1), 0);
        while instance.stats().0.queued > 1 || people.messages() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(instance.flush().await);
        assert_eq!((people.messages(), instance.stats().1.messages_alone), (1, 0), "instance {at}");
    }
    assert_eq!(old.listing(&key).await.unwrap().last().map(|(number, _)| number), Some(2));
}

/// Guards: a store that fails each request with a condition is one without conditions, and is asked again later.
#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_at_conditions_is_found_out() {
    let store = Virtual::new();
    store.breaks.store(true, SeqCst);
    let member = member(store.clone(), "web1");
    member.note(&mut of(1), true);
    member.flush().await.unwrap();
    assert_eq!((member.conditions(), member.stats().unwritten), (Conditions::Ignored, 0));
    store.breaks.store(false, SeqCst);
    for (minutes, expected) in [(9, Conditions::Ignored), (2, Conditions::Heeded)] {
        sleep(minutes * MINUTE).await;
        member.flush().await.unwrap();
        sleep(MINUTE).await;
        assert_eq!(member.conditions(), expected);
    }
}

/// Guards: a store that is down is not one without conditions, and everything is written although nobody knows yet.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_not_one_without_conditions() {
    let store = Virtual::new();
    store.down.store(true, SeqCst);
    let member = member(store.clone(), "web1");
    member.note(&mut of(1), true);
    assert!(member.flush().await.is_err());
    assert_eq!((member.conditions(), member.stats().unwritten), (Conditions::Unknown, 1));
    store.down.store(false, SeqCst);
    member.flush().await.unwrap();
    assert_eq!((member.conditions(), member.stats().unwritten), (Conditions::Heeded, 0));
}

/// Guards: people hear of news although the store's answer was lost: the next attempt finds the object of the first.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_silences_no_news() {
    let store = Virtual::new();
    *store.loses.lock().unwrap() = Some("/news-");
    let people = People::new();
    let fleet = Fleet::new(store, "photos");
    let instance = SimulatedInstance::start("web1", &fleet, people.clone());
    for _ in 0..8 {
        instance.report(&of(1), 5);
        sleep(MINUTE).await;
    }
    sleep(30 * MINUTE).await;
    let news: Vec<FleetNews> = people.told.lock().unwrap().iter().map(|told| told.news.clone()).collect();
    assert_eq!(news, [FleetNews::Began, FleetNews::Doubled, FleetNews::Ended { quiet_seconds: 900 }]);
}

/// Guards: an object that this process created earlier is not taken for one that was created just now.
#[tokio::test]
async fn an_object_of_this_instance_is_not_created_twice() {
    let member = member(Arc::new(InMemory::new()), "web1");
    let path = member.layout.part("5cf400b2380cbd97", 1, &Part::Claim(1));
    assert!(member.create(&path, &member.a_claim()).await.unwrap());
    assert!(!member.create(&path, &member.a_claim()).await.unwrap());
}

/// Guards: an instance whose reports were all held back can tell people news, too.
#[tokio::test(start_paused = true)]
async fn an_instance_with_reports_held_back_tells_news() {
    let people = People::new();
    let fleet = Fleet::new(Virtual::new(), "photos");
    let first = SimulatedInstance::start("web1", &fleet, people.clone());
    let second = SimulatedInstance::start("web2", &fleet, people.clone());
    first.report(&of(1), 0);
    sleep(10 * Duration::from_secs(1)).await;
    drop(first);
    for _ in 0..12 {
        second.hold_back(&of(1), 5);
        sleep(MINUTE).await;
    }
    let news: Vec<FleetNews> = people.told.lock().unwrap().iter().map(|told| told.news.clone()).collect();
    assert_eq!(news, [FleetNews::Began, FleetNews::Doubled]);
}

/// Guards: the message about a report that an earlier process left behind says whose it is, and that there is one.
#[tokio::test(start_paused = true)]
async fn a_report_left_behind_counts_for_its_message() {
    let people = People::new();
    let instance = SimulatedInstance::start("web2", &Fleet::new(Virtual::new(), "photos"), people.clone());
    let mut report = of(1);
    report.process.instance = Some("web1".to_owned());
    instance.take_over(report);
    sleep(MINUTE).await;
    let told = people.told.lock().unwrap()[0].clone();
    let names: Vec<_> = told.instances.iter().map(|affected| (&*affected.name, affected.reports)).collect();
    assert_eq!((told.reports, names), (1, vec![("web1", 1)]));
}

/// Guards: routes that were hit from the beginning are no news, however many there are.
#[tokio::test(start_paused = true)]
async fn many_routes_from_the_beginning_are_no_news() {
    let people = People::new();
    let instances = instances(3, &people);
    let on = |route: String| {
        let mut report = Report { incident: "5cf400b2380cbd97".to_owned(), ..of(1) };
        report.location = Some(Location::new(Some("app::import".to_owned()), None, None));
        report.request.as_mut().unwrap().route = Some(route);
        report
    };
    for _ in 0..20 {
        for (at, instance) in instances.iter().enumerate() {
            (0..30).for_each(|route| instance.hold_back(&on(format!("/{at}/{route}")), 1));
            instance.report(&on(format!("/{at}/0")), 0);
        }
        sleep(MINUTE).await;
    }
    let told = people.told.lock().unwrap();
    assert!(told[0].instances.len() == 3 && told[0].routes.len() == 90, "{:?}", told[0]);
    assert!(!told.iter().any(|told| matches!(told.news, FleetNews::Spread { .. })), "{told:?}");
}

/// Guards: objects that are no records, and records of a later version, keep nobody from claiming, telling and counting.
#[tokio::test(start_paused = true)]
async fn garbage_and_later_versions_are_survived() {
    let people = People::new();
    let store = Virtual::new();
    let other = member(store.clone(), "web9");
    let key = super::super::key::key_of(&of(1));
    let count = |id: &str| other.layout.part(&key, 1, &Part::Count(id.to_owned()));
    write(
        &other,
        &count("later"),
        r#"{"reports": 7, "instance": {"name": "web8", "id": "later", "pod": 1}, "new": {}}"#,
    )
    .await;
    write(&other, &count("half"), r#"{"reports": 7, "inst"#).await;
    write(&other, &count("other"), r#"{"reports": "seven"}"#).await;
    for name in ["claim-x", "claim-4294967296", "notes", "news"] {
        write(&other, &other.layout.incident(&key).join("1").join(name), "\u{0}").await;
    }
    write(&other, &other.layout.incident(&key).join("latest").join("told"), "{}").await;
    let instance = SimulatedInstance::start("web1", &Fleet::new(store, "photos"), people.clone());
    for _ in 0..8 {
        instance.report(&of(1), 4);
        sleep(MINUTE).await;
    }
    let told = people.told.lock().unwrap().clone();
    let names: Vec<_> = told[0].instances.iter().map(|affected| (&*affected.name, affected.reports)).collect();
    assert_eq!(names, [("web8", 7), ("web1", 5)]);
    assert_eq!(told[1].news, FleetNews::Doubled);
    assert_eq!(people.messages(), 1);
}

/// Guards: instances whose clocks are days apart have one incident, with one message and all reports counted.
#[tokio::test(start_paused = true)]
async fn clocks_that_differ_change_nothing() {
    let people = People::new();
    let store = Virtual::new();
    let fleet = Fleet::new(store.clone(), "photos");
    let now = std::time::SystemTime::now();
    let mut instances = Vec::new();
    for (at, captured_at) in [now - 2 * DAY, now, now + 2 * DAY].into_iter().enumerate() {
        let instance = SimulatedInstance::start(&format!("web{at}"), &fleet, people.clone());
        instance.report(&Report { captured_at, ..of(1) }, 3);
        instances.push(instance);
    }
    sleep(MINUTE).await;
    for instance in &instances {
        assert!(instance.flush().await);
    }
    assert_eq!((people.messages(), people.told.lock().unwrap()[0].reports), (1, 12));
    let days: std::collections::BTreeSet<_> = names(&member(store, "web9"), "index").await.into_iter().collect();
    assert_eq!(days.len(), 3, "each in the day that it believes in: {days:?}");
}

/// Guards: beyond a thousand incidents, the quietest are given up, and how many reports of them is known.
#[tokio::test(start_paused = true)]
async fn incidents_beyond_a_thousand_are_given_up_and_counted() {
    let store = Virtual::new();
    store.down.store(true, SeqCst);
    let member = member(store.clone(), "web1");
    for incident in 0..1_005 {
        (0..2).for_each(|_| member.note(&mut of(incident), false));
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((member.stats().unwritten, member.stats().uncounted), (2_000, 10));
    store.down.store(false, SeqCst);
    member.flush().await.unwrap();
    assert_eq!((member.stats().unwritten, member.stats().uncounted), (0, 10));
    let kept = member.keys();
    assert!((0..5).all(|incident| !kept.contains(&super::super::key::key_of(&of(incident)))), "the first five");
}

/// Guards: a folder that cannot be listed, and objects that cannot be removed, do not keep the rest from being removed.
#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_after_a_failure() {
    let store = Virtual::new();
    let member = member(store.clone(), "web1");
    let old = ["reports/1970-01-01/a", "reports/1970-01-02/b", "index/1970-01-01/c", "incidents/k/1/told"];
    for path in old {
        write(&member, &Path::from(format!("photos/{path}")), "{}").await;
    }
    let now = member.now().await.unwrap() + 20 * DAY;
    *store.broken.lock().unwrap() = Some("reports/1970-01-01");
    assert!(member.sweep(now).await.is_err());
    assert_eq!(names(&member, "").await.len(), 0);
    let left = async || {
        let objects = member.store.list(&Path::from("photos")).await.unwrap();
        objects.into_iter().map(|object| object.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left().await, ["photos/reports/1970-01-01/a"]);
    store.down.store(true, SeqCst);
    assert!(member.sweep(now).await.is_err());
    store.down.store(false, SeqCst);
    *store.broken.lock().unwrap() = None;
    member.sweep(now).await.unwrap();
    assert!(left().await.is_empty());
}

/// Guards: a listing of hundreds of pages, each of which comes in time, is not given up because of all of them together.
#[tokio::test(start_paused = true)]
async fn a_long_listing_is_swept() {
    let store = Virtual::new();
    let member = member(store.clone(), "web1");
    for process in 0..400 {
        write(&member, &member.layout.instance(&format!("{process:03}")), "{}").await;
    }
    *store.slow.lock().unwrap() = Duration::from_millis(250);
    member.sweep(member.now().await.unwrap() + 11 * DAY).await.unwrap();
    assert!(names(&member, "instances").await.is_empty());
}

/// Guards: a day is removed once all of it is old. Until then it is not even listed.
#[tokio::test(start_paused = true)]
async fn a_day_is_removed_when_all_of_it_is_old() {
    let store = Virtual::new();
    let member = member(store.clone(), "web1");
    let now = member.now().await.unwrap();
    write(&member, &member.layout.batch(&day_of(now), "a"), "{}").await;
    sleep(DAY / 8).await;
    let lists = async |now| {
        let before = member.stats().lists;
        member.sweep(now).await.unwrap();
        (member.stats().lists - before, names(&member, "reports").await.len())
    };
    let (before, left) = lists(now + 10 * DAY + DAY / 16).await;
    assert_eq!(left, 1);
    assert_eq!(lists(now + 11 * DAY).await, (before + 1, 0), "one more listing");
}

/// Guards: however many people open the page at once, the indexes are read once.
#[cfg(feature = "console")]
#[tokio::test(flavor = "multi_thread")]
async fn pages_at_the_same_time_are_read_once() {
    let member = member(Arc::new(InMemory::new()), "web1");
    for report in 0..4 {
        member.note(&mut Report { captured_at: std::time::SystemTime::now(), ..of(report) }, true);
    }
    member.flush().await.unwrap();
    write(&member, &member.layout.index(&day_of(std::time::SystemTime::now()), "garbage"), "[]").await;
    let before = member.stats().gets;
    let view = || {
        let member = Arc::clone(&member);
        tokio::task::spawn_blocking(move || member.view().unwrap())
    };
    for view in futures::future::join_all((0..16).map(|_| view())).await {
        let view = view.unwrap();
        assert_eq!((view.incidents.len(), view.reports, view.instances, view.unreadable), (4, 4, 1, 1));
    }
    // A machine may be so slow that what was read is old in between.
    assert!(member.stats().gets - before <= 8, "{}", member.stats().gets - before);
}
