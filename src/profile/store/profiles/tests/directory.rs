//! A directory, which outlives the process and which others write to.

use std::fs;
use std::path::{Path, PathBuf};

use object_store::local::LocalFileSystem;

use super::*;

fn store(directory: &Path) -> ProfileStore {
    ProfileStore::object_store(Arc::new(LocalFileSystem::new_with_prefix(directory).unwrap()), "some/where")
}

fn file(directory: &Path, kind: Kind, number: u64) -> PathBuf {
    let (folder, end) = kind.place();
    directory.join("some/where").join(folder).join(format!("{}{end}", id(number)))
}

fn age_file(path: &Path, by: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

/// Guards: two instances with the same directory give the same results.
#[tokio::test]
async fn stores_in_one_directory_agree() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (store(directory.path()), store(directory.path()));
    tokio::spawn(keeps_its_promises(one, two)).await.unwrap();
    // And a third one that comes later.
    let three = store(directory.path());
    assert!(three.get(&id(2), Some("ada@example.com")).await.unwrap().is_some());
}

#[test]
fn a_store_in_a_directory_needs_no_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    futures::executor::block_on(keeps_its_promises(store.clone(), store));
}

/// Guards: bounds and age limits hold for all instances together, and files that are not ours stay.
#[tokio::test]
async fn bounds_hold_for_all_instances() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (store(directory.path()).max_count(5), store(directory.path()).max_count(5));
    for number in 0..12 {
        let store = if number % 2 == 0 { &one } else { &two };
        store.put(profile(number, "/a"), None).await.unwrap();
        store.put_status(&status(number, None, Phase::Done)).await.unwrap();
        // Sets the order of the files' times, whatever the file system's resolution.
        for kind in [Kind::Profile, Kind::Summary, Kind::Status] {
            let path = file(directory.path(), kind, number);
            if path.exists() {
                age_file(&path, Duration::from_secs(600 - number));
            }
        }
    }
    let foreign = directory.path().join("some/where/profiles/README.json.gz");
    fs::write(&foreign, "not ours").unwrap();
    age_file(&foreign, Duration::from_secs(1_000_000));
    let count = |kind: Kind| {
        let folder = directory.path().join("some/where").join(kind.place().0);
        fs::read_dir(folder).unwrap().count()
    };
    // With five, every put of a profile causes a sweep. The statuses of the removed ones came after them.
    assert_eq!((count(Kind::Profile), count(Kind::Summary)), (5 + 1, 5));
    assert!(one.stats().removed + two.stats().removed >= 7);
    assert!(one.get(&id(11), None).await.unwrap().is_some() && one.get(&id(0), None).await.unwrap().is_none());

    for kind in [Kind::Profile, Kind::Summary, Kind::Status] {
        age_file(&file(directory.path(), kind, 11), Duration::from_secs(60 * 60 + 1));
    }
    assert!(one.get(&id(11), None).await.unwrap().is_none());
    assert!(one.status(&id(11), None).await.unwrap().is_none());
    assert_eq!(one.list(None, "", 99).await.unwrap().len(), 4);
    two.put(profile(12, "/a"), None).await.unwrap();
    assert!(!file(directory.path(), Kind::Profile, 11).exists() && foreign.exists());
}

/// Guards: damaged objects are reported as such and counted, and the others stay readable.
#[tokio::test]
async fn corrupt_objects_are_counted_and_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path()).max_bytes(100_000);
    for number in 1..=4 {
        store.put(profile(number, "/a"), None).await.unwrap();
        store.put_status(&status(number, None, Phase::Done)).await.unwrap();
    }
    let path = |kind, number| file(directory.path(), kind, number);
    let whole = fs::read(path(Kind::Profile, 1)).unwrap();
    for damaged in [&b""[..], b"no gzip", &whole[..whole.len() / 2], &vec![b'x'; 100_001]] {
        fs::write(path(Kind::Profile, 1), damaged).unwrap();
        let error = store.get(&id(1), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(!error.to_string().contains(&id(1).to_string()));
    }
    // An object of another profile.
    fs::copy(path(Kind::Profile, 2), path(Kind::Profile, 1)).unwrap();
    assert!(store.get(&id(1), None).await.unwrap_err().to_string().contains("another"));
    fs::copy(path(Kind::Status, 2), path(Kind::Status, 1)).unwrap();
    assert!(store.status(&id(1), None).await.unwrap_err().to_string().contains("another"));
    fs::write(path(Kind::Status, 1), "{").unwrap();
    assert!(matches!(store.status(&id(1), None).await, Err(StoreError::Corrupt { .. })));
    fs::write(path(Kind::Summary, 3), "[]").unwrap();
    assert_eq!(ids(&store.list(None, "", 9).await.unwrap()), [id(1), id(2), id(4)]);
    assert_eq!(store.stats().corrupt, 8);
    assert_eq!(store.stats().failures, 0);
}

/// Guards: gzip data that expands beyond the memory limit is not expanded.
#[tokio::test]
async fn a_decompression_bomb_is_corrupt() {
    let zeros = std::io::Write::write_all;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..257 {
        zeros(&mut bomb, &vec![b' '; 1 << 20]).unwrap();
    }
    let store = ProfileStore::memory();
    store.shared.backend.put(Kind::Profile, id(1), bomb.finish().unwrap().into()).await.unwrap();
    assert!(store.get(&id(1), None).await.unwrap_err().to_string().contains("too long"));
}

/// Guards: whatever the object store does instead of working is an error and counted, each time, and never a panic.
#[tokio::test]
async fn failures_of_the_backend_are_counted() {
    for panics in [false, true] {
        let store = ProfileStore::object_store(Arc::new(broken::Broken { panics }), "");
        let failed = [
            store.put(profile(1, "/a"), None).await.err(),
            store.put_status(&status(1, None, Phase::Running)).await.err(),
            store.get(&id(1), None).await.err(),
            store.status(&id(1), None).await.err(),
            store.list(None, "", 9).await.err(),
            store.request_cancel(&id(1), None).await.err(),
            store.is_cancelled(&id(1)).await.err(),
        ];
        for error in failed {
            let error = error.unwrap();
            assert!(matches!(error, StoreError::Unavailable { .. }) && !error.to_string().contains("0000"), "{error}");
        }
        assert_eq!((store.stats().failures, store.stats().stored), (7, 0));
        // A failed sweep hides nothing that was stored.
        store.sweep(true).await;
        assert_eq!(store.stats().failures, 8);
    }
}

/// Guards: the same for a real directory with a file in the way.
#[tokio::test]
async fn a_file_in_the_way_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    fs::write(directory.path().join("some"), "a file").unwrap();
    assert!(matches!(store.put(profile(1, "/a"), None).await, Err(StoreError::Unavailable { .. })));
    assert_eq!((store.stats().failures, store.stats().stored), (1, 0));
}
