//! One message for all, and what comes after it.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use heeler::report::FleetNews;
use heeler::{Fleet, Report, Reports};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::common::{Collected, PATIENCE, ms, until};
use crate::{Instance, PREFIX, counted, firsts, get_stuck, get_stuck_as, instances, messages, objects, parts, sums_up};

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn all(instances: &[Instance]) -> Vec<(&Reports, &Collected)> {
    instances.iter().map(Instance::sinks).collect()
}

fn flush(instances: &[Instance]) {
    for instance in instances {
        assert!(instance.reports.blocking_flush(PATIENCE), "{:?}", instance.reports.fleet());
    }
}

/// Guards: people are told once, every other sink has the reports of its own instance, and the store counts all of them.
#[test]
fn one_message_for_all_instances() {
    let store = memory();
    let instances = instances(5, &store, |fleet| fleet);
    get_stuck(all(&instances), 3);
    until("people are told", || messages(&instances) > 0);
    flush(&instances);
    assert_eq!(messages(&instances), 1);
    let told = instances.iter().find(|instance| !instance.messages().is_empty()).unwrap();
    let message = told.messages().remove(0);
    let fleet = message.fleet.as_ref().unwrap();
    assert_eq!((fleet.number, fleet.alone, fleet.key.len()), (1, false, 16));
    assert!(fleet.reports >= 1 && !fleet.instances.is_empty(), "{fleet:?}");
    assert!(message.to_text().contains("incident    one message for all instances: "), "{}", message.to_text());
    for instance in &instances {
        assert_eq!(firsts(&instance.all), 3);
        assert!(instance.all.all().iter().all(|report| report.fleet.is_none()));
        let (stats, fleet) = (instance.reports.stats(), instance.reports.fleet().unwrap());
        sums_up(&stats);
        assert_eq!((stats.delivered, stats.queued), (stats.made, 0));
        assert_eq!(fleet.messages + fleet.left_to_others, stats.made, "{fleet:?}");
        assert_eq!((fleet.unwritten, fleet.uncounted, fleet.heeds_conditions), (0, 0, Some(true)));
    }
    assert_eq!(counted(&store), 15);
    let parts = parts(&store);
    assert_eq!(parts.iter().filter(|part| part.contains("/claim-")).count(), 1, "{parts:?}");
    assert!(parts.contains(&"1/told".to_owned()), "{parts:?}");
}

/// Guards: every report that is sent is in the store once, in batches, readable by other programs, and nothing else is.
#[test]
fn all_reports_are_in_the_store() {
    let id = |report: &Report| (report.id.clone(), report.update);
    let store = memory();
    let hour = Duration::from_secs(3_600);
    let instances = instances(2, &store, |fleet| fleet.flush_every(hour).ends_after(2 * hour));
    get_stuck(all(&instances), 4);
    assert!(objects(&store, "reports").is_empty(), "they wait for others");
    flush(&instances);
    let batches = objects(&store, "reports");
    assert_eq!(batches.len(), 2, "one for each instance");
    let mut stored: Vec<(String, u32)> = Vec::new();
    for (name, bytes) in batches {
        assert!(name.starts_with("photos/reports/20") && name.ends_with(".jsonl.gz"), "{name}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        stored.extend(text.lines().map(|line| id(&serde_json::from_str::<Report>(line).unwrap())));
    }
    let made = instances.iter().flat_map(|instance| instance.all.all());
    let mut made: Vec<(String, u32)> = made.map(|report| id(&report)).collect();
    stored.sort();
    made.sort();
    assert_eq!(stored, made);
    let folders: std::collections::BTreeSet<String> =
        objects(&store, "").into_iter().map(|(name, _)| name.split('/').nth(1).unwrap().to_owned()).collect();
    let known = ["incidents", "index", "instances", "reports", "upkeep"];
    assert_eq!(folders.into_iter().collect::<Vec<_>>(), known, "the layout in the documentation");
}

/// Guards: no secret reaches the bucket, in whichever object.
#[test]
fn no_secret_is_in_the_store() {
    let store = memory();
    let instances = instances(1, &store, |fleet| fleet);
    get_stuck_as("export password=hunter2", all(&instances), 1);
    until("people are told", || messages(&instances) == 1);
    flush(&instances);
    let objects = objects(&store, "");
    assert!(objects.len() >= 7, "{objects:?}");
    for (name, bytes) in objects {
        let mut text = String::new();
        let is_gzip = flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).is_ok();
        let text = if is_gzip { text } else { String::from_utf8(bytes).unwrap() };
        assert!(!text.contains("hunter2") && !name.contains("hunter2"), "{name}: {text}");
        assert!(!name.contains("/reports/") || text.contains("password=[redacted]"), "{name}: {text}");
    }
}

/// Guards: an incident that has ended does not silence the next one, and people hear that it ended.
#[test]
fn the_next_incident_has_a_message_of_its_own() {
    let store = memory();
    let instances = instances(2, &store, |fleet| fleet.take_over_after(ms(2_000)).ends_after(ms(6_000)));
    get_stuck(all(&instances[..1]), 1);
    until("people are told", || messages(&instances) == 1);
    let ended = || {
        let news = instances.iter().flat_map(|instance| instance.people.0.all());
        news.filter(|report| matches!(report.fleet.as_ref().unwrap().news, FleetNews::Ended { .. })).count()
    };
    until("people are told of its end", || ended() > 0);
    assert_eq!(ended(), 1);
    get_stuck(all(&instances[1..]), 1);
    until("people are told of the next", || messages(&instances) == 2);
    flush(&instances);
    let numbers = instances.iter().flat_map(Instance::messages).map(|message| message.fleet.unwrap().number);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(counted(&store), 2);
    instances.iter().for_each(|instance| sums_up(&instance.reports.stats()));
}

/// Guards: after a restart, the end of the incident before is noted with the first report of the next one. The message about the
/// next one is sent all the same, by a real sink, which leaves out what it has sent before.
#[cfg(feature = "email")]
#[test]
fn a_restart_silences_no_incident() {
    let (store, mails) = (memory(), tempfile::tempdir().unwrap());
    let mail = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.unwrap().path()).unwrap();
    // On a slow machine, the end may have been noticed.
    let begins = |mail: &String| !mail.lines().any(|line| line.starts_with("Subject:") && line.contains("ended"));
    let sent = || std::fs::read_dir(mails.path()).unwrap().map(mail).filter(begins).count();
    for occurrence in 1..3 {
        let all = Collected::default();
        let fleet = Fleet::new(Arc::clone(&store), PREFIX).flush_every(ms(200));
        let fleet = fleet.take_over_after(ms(1_000)).ends_after(ms(3_000));
        let mails = heeler::Email::files(mails.path()).from("web@example.com").to(["oncall@example.com"]);
        let builder = Reports::builder().without_log().without_endings().repeat_after(Duration::ZERO);
        let reports = builder.sink(all.clone()).email(mails).fleet(fleet).build().unwrap();
        get_stuck([(&reports, &all)], 1);
        until("people are told", || parts(&store).contains(&format!("{occurrence}/told")));
        assert!(reports.blocking_flush(PATIENCE));
        assert_eq!(sent(), occurrence);
        drop(reports);
        // It has ended, and nobody has noticed.
        std::thread::sleep(ms(3_500));
    }
    assert!(parts(&store).contains(&"1/news-ended".to_owned()));
}

/// Guards: people hear once that there are many more.
#[test]
fn news_are_told_once() {
    let store = memory();
    let instances = instances(3, &store, |fleet| fleet.take_over_after(ms(200)).ends_after(ms(8_000)));
    get_stuck(all(&instances[..1]), 1);
    until("people are told", || messages(&instances) == 1);
    get_stuck(all(&instances), 10);
    let doubled = || {
        let news = instances.iter().flat_map(|instance| instance.people.0.all());
        let news = news.filter(|report| report.fleet.as_ref().unwrap().news == FleetNews::Doubled);
        news.map(|report| report.fleet.unwrap().reports).collect::<Vec<_>>()
    };
    until("people are told that it doubled", || !doubled().is_empty());
    flush(&instances);
    assert_eq!(messages(&instances), 1);
    let updates = || parts(&store).into_iter().filter(|part| part.contains("/news-doubled-")).count();
    until("each of them is told once", || doubled().len() == updates());
    // At least ten more than in the first message.
    assert!(doubled().iter().all(|reports| *reports >= 11), "{:?}", doubled());
    let update =
        instances.iter().flat_map(|instance| instance.people.0.all()).find(|report| report.update > 0).unwrap();
    assert!(update.to_text().contains("twice as many reports as in the last message"), "{}", update.to_text());
}

/// Guards: without a sink that tells people, nobody claims anything, and the reports are in the store all the same.
#[test]
fn a_fleet_without_people_only_counts() {
    let store = memory();
    let all = Collected::default();
    let fleet = Fleet::new(Arc::clone(&store), PREFIX).flush_every(ms(200));
    let builder = Reports::builder().without_log().without_endings().repeat_after(Duration::ZERO);
    let reports = builder.sink(all.clone()).fleet(fleet).build().unwrap();
    get_stuck([(&reports, &all)], 2);
    assert!(reports.blocking_flush(PATIENCE));
    assert_eq!((counted(&store), firsts(&all)), (2, 2));
    assert!(!parts(&store).iter().any(|part| part.contains("claim")));
}

#[test]
fn bad_settings_are_errors() {
    let build = |fleet: Fleet| Reports::builder().fleet(fleet).build();
    let new = |prefix: &str| Fleet::new(memory(), prefix);
    assert!(build(new("")).unwrap_err().is_config());
    assert!(build(new("a//b")).unwrap_err().is_config());
    assert!(build(new("a").flush_every(Duration::ZERO)).unwrap_err().is_config());
    assert!(build(new("a").ends_after(ms(10))).unwrap_err().is_config());
    for bad in [
        new("a").flush_every(Duration::from_secs(20 * 60)),
        new("a").flush_every(Duration::MAX).ends_after(Duration::MAX).keep_for(Duration::MAX),
        new("a").ends_after(Duration::from_secs(400 * 86_400)).keep_for(Duration::MAX),
        new("a").keep_for(Duration::from_secs(60)),
    ] {
        assert!(build(bad.clone()).unwrap_err().is_config(), "{bad:?}");
    }
    assert!(build(new("a/b")).is_ok());
    assert!(build(new("a/b").flush_every(Duration::from_secs(5 * 60)).keep_for(Duration::MAX)).is_ok());
    assert!(!format!("{:?}", new("a")).contains("InMemory"), "a store may print its keys");
}
