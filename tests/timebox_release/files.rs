//! Locks of files, and temporary files.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;

use heeler::TimeboxExt as _;
use heeler::timebox::{self, ExclusiveError, exclusive, exclusive_blocking};

use crate::{interrupt_often, interrupt_often_blocking, until};

/// Guards: a file lock ends with the work that holds it.
#[test]
fn every_file_lock_is_released() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().to_owned();
    interrupt_often(8, move |run| {
        let path = directory.join(run.number.to_string());
        async move {
            let work = async {
                run.before().await;
                let file = File::create(&path).unwrap();
                file.lock().unwrap();
                run.holding().await;
            };
            let completed = work.timebox(run.limit).await.is_ok();
            if run.has_held() {
                let file = File::open(&path).unwrap();
                // Not at once: a child process that is just being started has our open files for a moment.
                until("the lock is free", || file.try_lock().is_ok()).await;
                fs::remove_file(&path).unwrap();
            }
            completed
        }
    });
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
}

/// Guards: the next run of an exclusive job is never told that the interrupted one still holds it.
#[test]
fn every_exclusive_job_can_run_again() {
    let place = tempfile::tempdir().unwrap();
    let job = place.path().join("job.lock");
    interrupt_often(1, move |run| {
        let job = job.clone();
        async move {
            let result = exclusive(&job, run.limit, async {
                run.before().await;
                run.holding().await;
            })
            .await;
            assert!(result.as_ref().err().is_none_or(|error| error.interrupted().is_some()), "{result:?}");
            assert_eq!(fs::read(&job).unwrap(), b"");
            result.is_ok()
        }
    });
}

/// Guards: the same for plain code.
#[test]
fn every_exclusive_job_of_plain_code_can_run_again() {
    let place = tempfile::tempdir().unwrap();
    interrupt_often_blocking(4, |run| {
        let name = format!("{:?}.lock", std::thread::current().id());
        let result = exclusive_blocking(place.path().join(name), run.limit, || {
            run.before_blocking()?;
            run.holding_blocking()?;
            Ok::<(), ExclusiveError>(())
        });
        assert!(result.as_ref().err().is_none_or(|error| error.interrupted().is_some()), "{result:?}");
        result.is_ok()
    });
}

/// Guards: work that was not completed leaves no file, and work that was completed leaves a whole one.
#[test]
fn every_temporary_file_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let directory = Arc::new(place.path().to_owned());
    interrupt_often(8, move |run| {
        let directory = directory.clone();
        async move {
            let done = directory.join(format!("done-{}", run.number));
            let work = async {
                run.before().await;
                let mut file = tempfile::NamedTempFile::new_in(&*directory).unwrap();
                file.write_all(b"first half, ").unwrap();
                run.holding().await;
                file.write_all(b"second half").unwrap();
                file.persist(&done).unwrap();
            };
            let completed = work.timebox(run.limit).await.is_ok();
            assert_eq!(done.exists(), completed);
            completed
        }
    });
    let mut kept = 0;
    for entry in place.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("done-"), "{path:?} was left behind");
        assert_eq!(fs::read(&path).unwrap(), b"first half, second half");
        kept += 1;
    }
    assert!(kept > 0);
}

/// Guards: the same in plain code.
#[test]
fn every_temporary_file_of_plain_code_is_removed() {
    let place = tempfile::tempdir().unwrap();
    interrupt_often_blocking(8, |run| {
        let result = timebox::blocking(run.limit, || {
            run.before_blocking()?;
            let mut file = tempfile::NamedTempFile::new_in(place.path())?;
            file.write_all(b"half")?;
            run.holding_blocking()?;
            file.close()
        });
        assert!(result.as_ref().err().is_none_or(|error| timebox::Interrupted::find(error).is_some()), "{result:?}");
        result.is_ok()
    });
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
}
