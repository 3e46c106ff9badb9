//! The same guards for both backends.

use std::sync::Arc;
use std::time::SystemTime;

use super::super::Phase;
use super::super::status::LOST_AFTER;
use super::*;
use crate::profile::store::memory::Memory;
use crate::profile::{Node, Outcome, Quality, Request, Response, SCHEMA, Slice, State};

#[cfg(feature = "object-store")]
mod broken;
#[cfg(feature = "object-store")]
mod directory;

fn id(number: u64) -> Id {
    format!("{number:032x}").parse().unwrap()
}

fn profile(number: u64, uri: &str) -> Arc<Profile> {
    Arc::new(Profile {
        schema: SCHEMA,
        id: id(number).to_string(),
        started_at: SystemTime::now(),
        wall_nanos: 5,
        runs: 1,
        rate_hz: 1_000,
        outcome: Outcome::Finished,
        reason: None,
        request: Request {
            method: "GET".into(),
            uri: uri.into(),
            route: Some("/Users/{id}".into()),
            ..Request::default()
        },
        response: Some(Response { status: 200, body: vec![0, 255], ..Response::default() }),
        process: crate::report::ProcessInfo::default(),
        frames: vec![crate::report::Frame::default()],
        nodes: vec![Node { parent: None, frame: 0 }, Node { parent: Some(0), frame: 0 }],
        slices: vec![Slice { start_nanos: 0, nanos: 5, state: State::OnCpu, stack: 1, count: 1 }],
        beside: Vec::new(),
        meanwhile: None,
        quality: Quality::default(),
        notes: Vec::new(),
    })
}

fn status(number: u64, principal: Option<&str>, phase: Phase) -> Status {
    Status {
        id: id(number),
        principal: principal.map(str::to_owned),
        phase,
        method: "GET".into(),
        uri: "/a".into(),
        started_at: SystemTime::now(),
        updated_at: SystemTime::now(),
        elapsed_ms: 1,
        polls: 2,
        samples: 3,
        place: Some("app::load at src/a.rs:1".into()),
        #[cfg(heeler_remote)]
        sent: None,
    }
}

fn ids(summaries: &[Summary]) -> Vec<Id> {
    let mut ids: Vec<_> = summaries.iter().map(|summary| summary.id).collect();
    ids.sort();
    ids
}

/// Checks what every backend must do. `one` and `two` belong to two instances, or are the same.
async fn keeps_its_promises(one: ProfileStore, two: ProfileStore) {
    // Nothing is there yet.
    assert!(two.status(&id(1), None).await.unwrap().is_none());
    assert!(two.get(&id(1), None).await.unwrap().is_none());
    assert!(two.list(None, "", 10).await.unwrap().is_empty());
    assert!(!two.is_cancelled(&id(1)).await.unwrap());
    assert!(!two.request_cancel(&id(1), None).await.unwrap());

    // A job that belongs to Ada: only she sees it, wherever she asks.
    let ada = Some("ada@example.com");
    one.put_status(&status(1, ada, Phase::Queued { place: 2 })).await.unwrap();
    let queued = two.status(&id(1), ada).await.unwrap().unwrap();
    assert_eq!((queued.phase, queued.samples), (Phase::Queued { place: 2 }, 3));
    for other in [None, Some("bob"), Some(""), Some("ada@example.co"), Some("ADA@example.com")] {
        assert!(two.status(&id(1), other).await.unwrap().is_none(), "{other:?}");
        assert!(!two.request_cancel(&id(1), other).await.unwrap(), "{other:?}");
    }
    assert!(!one.is_cancelled(&id(1)).await.unwrap());
    assert!(two.request_cancel(&id(1), ada).await.unwrap());
    assert!(one.is_cancelled(&id(1)).await.unwrap());
    one.put_status(&status(1, ada, Phase::Cancelled)).await.unwrap();
    assert_eq!(two.status(&id(1), ada).await.unwrap().unwrap().phase, Phase::Cancelled);
    assert!(!two.request_cancel(&id(1), ada).await.unwrap(), "it is over");

    // Profiles: complete, and only for their owners.
    one.put(profile(2, "/photos?q=Cat"), ada).await.unwrap();
    one.put(profile(3, "/photos?q=dog"), None).await.unwrap();
    one.put(profile(4, "/about"), ada).await.unwrap();
    let got = two.get(&id(2), ada).await.unwrap().unwrap();
    assert_eq!(serde_json::to_value(&got).unwrap(), serde_json::to_value(&*profile_as(&got, 2)).unwrap());
    for other in [None, Some("bob")] {
        assert!(two.get(&id(2), other).await.unwrap().is_none());
    }
    assert!(two.get(&id(3), None).await.unwrap().is_some() && two.get(&id(3), ada).await.unwrap().is_none());

    // The index: searched, bounded, and only one's own.
    for (query, found) in [
        ("", &[2, 4][..]),
        ("photos", &[2]),
        ("CAT get", &[2]),
        ("/users/", &[2, 4]),
        ("dog", &[]),
        ("photos about", &[]),
        (".*", &[]),
    ] {
        let found: Vec<_> = found.iter().map(|number| id(*number)).collect();
        assert_eq!(ids(&two.list(ada, query, 10).await.unwrap()), found, "{query}");
    }
    assert_eq!(two.list(ada, "", 1).await.unwrap().len(), 1);
    assert!(two.list(Some("bob"), "", 10).await.unwrap().is_empty());
    let summary = two.list(None, "", 10).await.unwrap().remove(0);
    assert_eq!((summary.status, summary.wall_nanos, summary.uri.as_str()), (Some(200), 5, "/photos?q=dog"));

    // But nobody has asked for what a rule wanted.
    let wanted = Profile { reason: Some("a rule".to_owned()), ..(*profile(9, "/ruled")).clone() };
    one.put(Arc::new(wanted), None).await.unwrap();
    for anybody in [ada, None, Some("bob")] {
        assert!(two.get(&id(9), anybody).await.unwrap().is_some(), "{anybody:?}");
        assert_eq!(ids(&two.list(anybody, "ruled", 10).await.unwrap()), [id(9)], "{anybody:?}");
    }

    assert_eq!(one.stats().stored, 4);
    for store in [&one, &two] {
        let stats = store.stats();
        assert_eq!((stats.removed, stats.failures, stats.corrupt, stats.too_large), (0, 0, 0, 0));
    }
}

/// Returns what was stored under `number`, with the time of `got`.
fn profile_as(got: &Profile, number: u64) -> Arc<Profile> {
    let mut profile = Arc::unwrap_or_clone(profile(number, "/photos?q=Cat"));
    profile.started_at = got.started_at;
    Arc::new(profile)
}

#[tokio::test]
async fn a_store_in_memory_keeps_its_promises() {
    let store = ProfileStore::default();
    tokio::spawn(keeps_its_promises(store.clone(), store)).await.unwrap();
}

/// Guards: the bounds hold after every single put.
#[tokio::test]
async fn a_store_in_memory_is_always_bounded() {
    let store = ProfileStore::memory().max_count(3);
    for number in 0..10 {
        store.put_status(&status(number, None, Phase::Done)).await.unwrap();
        store.put(profile(number, "/a"), None).await.unwrap();
        assert!(store.list(None, "", 99).await.unwrap().len() <= 3);
    }
    assert_eq!(store.stats().removed, 7);
    let mut left = 0;
    for number in 0..10 {
        let there = store.get(&id(number), None).await.unwrap().is_some();
        assert_eq!(there, store.status(&id(number), None).await.unwrap().is_some(), "gone as a whole");
        left += usize::from(there);
    }
    assert_eq!(left, 3);
    // By bytes: a profile that fits alone pushes out the others. One that does not fit is refused.
    let size = store.shared.backend.list(Kind::Profile).await.unwrap().iter().map(|entry| entry.bytes).max().unwrap();
    let store = ProfileStore::memory().max_bytes(size + size / 2);
    for number in 0..3 {
        store.put(profile(number, "/a"), None).await.unwrap();
    }
    assert_eq!(store.list(None, "", 99).await.unwrap().len(), 1);
    let store = store.max_bytes(10);
    let error = store.put(profile(7, "/a"), None).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { most: 10, .. }), "{error}");
    assert_eq!(store.stats().too_large, 1);
}

fn memory_of(store: &ProfileStore) -> &Memory {
    match &store.shared.backend {
        Backend::Memory(memory) => memory,
        #[cfg(feature = "object-store")]
        Backend::Objects(_) => unreachable!("it is in memory"),
    }
}

/// Guards: what is too old cannot be read even before it is removed. It is removed when the next profile is stored.
#[tokio::test]
async fn a_store_in_memory_forgets_old_profiles() {
    let store = ProfileStore::memory().ttl(Duration::from_secs(100));
    store.put(profile(1, "/a"), None).await.unwrap();
    store.put_status(&status(1, None, Phase::Done)).await.unwrap();
    let memory = memory_of(&store);
    for kind in [Kind::Profile, Kind::Summary, Kind::Status] {
        memory.touch(kind, id(1), SystemTime::now() - Duration::from_secs(101));
    }
    assert!(store.get(&id(1), None).await.unwrap().is_none());
    assert!(store.status(&id(1), None).await.unwrap().is_none());
    assert!(store.list(None, "", 9).await.unwrap().is_empty());
    store.put(profile(2, "/a"), None).await.unwrap();
    assert_eq!((memory.list(Kind::Profile).len(), memory.list(Kind::Status).len(), store.stats().removed), (1, 0, 1));
}

/// Guards: a job whose process is gone does not look as if it were running. A job that is over is not lost.
#[tokio::test]
async fn a_job_of_a_dead_process_is_lost() {
    let store = ProfileStore::memory();
    let memory = memory_of(&store);
    let long_ago = SystemTime::now() - LOST_AFTER - Duration::from_secs(1);
    for (number, phase, lost) in
        [(1, Phase::Running, true), (2, Phase::Queued { place: 0 }, true), (3, Phase::Done, false)]
    {
        let mut status = status(number, None, phase.clone());
        status.updated_at = long_ago;
        store.put_status(&status).await.unwrap();
        // One clock alone does not make it lost.
        assert_eq!(store.status(&id(number), None).await.unwrap().unwrap().phase, phase);
        memory.touch(Kind::Status, id(number), long_ago);
        let phase = if lost { Phase::Lost } else { phase };
        assert_eq!(store.status(&id(number), None).await.unwrap().unwrap().phase, phase);
    }
    assert!(!store.request_cancel(&id(1), None).await.unwrap());
}

/// Guards: the store works without a runtime, as for a page that is rendered in a thread.
#[test]
fn a_store_in_memory_needs_no_runtime() {
    let store = ProfileStore::memory();
    futures::executor::block_on(keeps_its_promises(store.clone(), store));
}

/// Guards: owners and ids are in nothing that may be logged.
#[test]
fn debug_output_names_no_owner_or_id() {
    let shown = format!("{:?} {:?}", status(1, Some("ada"), Phase::Running), ProfileStore::memory());
    assert!(!shown.contains("ada") && !shown.contains("/a") && !shown.contains(&id(1).to_string()), "{shown}");
    let error = StoreError::corrupt(Kind::Profile, id(1), "no gzip");
    assert_eq!(error.to_string(), "the stored profile 00000000… is corrupt: no gzip");
}

/// Guards: profiles are checked before they are shown, because others may write to a bucket.
#[tokio::test]
async fn impossible_profiles_are_corrupt() {
    type Spoil = fn(&mut Profile);
    let spoils: [(&str, Spoil); 7] = [
        ("newer version", |profile| profile.schema += 1),
        ("another one", |profile| profile.id = id(9).to_string()),
        ("no frame", |profile| profile.nodes[0].frame = 1),
        ("no parent before it", |profile| profile.nodes[1].parent = Some(1)),
        ("no parent before it", |profile| profile.nodes[0].parent = Some(u32::MAX)),
        ("no stack", |profile| profile.slices[0].stack = 2),
        ("no end", |profile| profile.slices[0].start_nanos = u64::MAX),
    ];
    let store = ProfileStore::memory();
    for (at, (why, spoil)) in spoils.iter().enumerate() {
        let mut spoilt = Arc::unwrap_or_clone(profile(1, "/a"));
        spoil(&mut spoilt);
        let bytes = codec::encode(&spoilt, None).unwrap();
        store.shared.backend.put(Kind::Profile, id(1), bytes).await.unwrap();
        let error = store.get(&id(1), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains(why), "{error}");
        assert_eq!(store.stats().corrupt, at as u64 + 1);
    }
}
