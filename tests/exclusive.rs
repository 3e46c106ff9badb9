//! One run at a time, between real processes.
#![cfg(feature = "timebox")]

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use heeler::timebox::{self, ExclusiveError, Limit, exclusive, exclusive_blocking};

use common::{FOREVER, PATIENCE, ms, runtime, until};

/// What a child process does, and with which job.
const ROLE: &str = "HEELER_TEST_ROLE";
const JOB: &str = "HEELER_TEST_JOB";

/// This test binary as another process, which does `role` with `job`.
fn process(role: &str, job: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "other_process", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(JOB, job);
    command
}

/// Not a test itself: the other processes of the tests below run this.
#[test]
fn other_process() {
    let (Ok(role), Some(job)) = (std::env::var(ROLE), std::env::var_os(JOB)) else { return };
    let job = PathBuf::from(job);
    match &*role {
        // Holds the lock until it is killed.
        "hold" => exclusive_blocking(&job, FOREVER, || -> Result<(), ExclusiveError> {
            println!("\nholds");
            loop {
                std::thread::sleep(FOREVER);
            }
        })
        .unwrap(),
        // Five threads want it five times each.
        "contend" => std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        until("the lock is free", || {
                            match exclusive_blocking(&job, FOREVER, || alone_with(&job.with_extension("alone"))) {
                                Ok(()) => true,
                                Err(error) if error.is_held() => false,
                                Err(error) => panic!("{error}"),
                            }
                        });
                    }
                });
            }
        }),
        "denied" => denied(&job),
        _ => panic!("no such role"),
    }
}

/// Fails if anybody else is here.
fn alone_with(mark: &Path) -> Result<(), ExclusiveError> {
    fs::File::create_new(mark).expect("two holders at once");
    std::thread::sleep(Duration::from_micros(300));
    fs::remove_file(mark).unwrap();
    Ok(())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that holds the lock of a job by now.
fn holder(job: &Path) -> Killed {
    let mut child = Killed(process("hold", job).stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "holds"), "the holder did not start");
    child
}

fn run(job: &Path) -> Result<(), ExclusiveError> {
    exclusive_blocking(job, FOREVER, || Ok(()))
}

/// Guards: the error comes at once, and names the process and the time. A holder that is killed leaves nothing behind that
/// would stop the next.
#[test]
fn a_second_process_learns_who_holds_the_lock() {
    let place = tempfile::tempdir().unwrap();
    let job = place.path().join("job.lock");
    let before = SystemTime::now() - Duration::from_secs(1);
    let holder = holder(&job);

    let error = run(&job).unwrap_err();
    assert!(error.is_held() && error.interrupted().is_none());
    let who = error.holder().expect("the holder has written who it is");
    assert_eq!(who.pid, holder.0.id());
    assert!(before <= who.since && who.since <= SystemTime::now());
    let since = humantime::format_rfc3339_seconds(who.since);
    assert_eq!(error.to_string(), format!("`{}` is held by process {} since {since}", job.display(), who.pid));
    // The same from async code.
    let error = runtime(0).block_on(exclusive(&job, FOREVER, async {})).unwrap_err();
    assert_eq!(error.holder(), Some(who));

    drop(holder); // kill -9
    assert!(!fs::read(&job).unwrap().is_empty(), "a killed process cannot have emptied its file");
    run(&job).unwrap();
    assert_eq!(fs::read(&job).unwrap(), b"");
}

/// Guards: of 50 threads in ten processes that want the same job, over and over, never two have it at once, and each gets its
/// turns.
#[test]
fn ten_processes_take_turns() {
    let place = tempfile::tempdir().unwrap();
    let job = place.path().join("job.lock");
    let children: Vec<_> = (0..10)
        .map(|_| process("contend", &job).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{text}");
    }
    run(&job).unwrap();
}

/// Guards: 50 tasks of one process exclude each other, too. Those that do not get the lock get an error, and do not wait.
#[test]
fn tasks_of_one_process_exclude_each_other() {
    let place = tempfile::tempdir().unwrap();
    let job = place.path().join("job.lock");
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    let runs = runtime(2).block_on(async {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let job = job.clone();
                tokio::spawn(async move {
                    let begin = std::time::Instant::now();
                    loop {
                        assert!(begin.elapsed() < PATIENCE, "never got the lock");
                        let work = async {
                            assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0, "two holders at once");
                            tokio::task::yield_now().await;
                            INSIDE.fetch_sub(1, Ordering::SeqCst);
                        };
                        match exclusive(&job, FOREVER, work).await {
                            Ok(()) => return 1,
                            Err(error) => assert!(error.is_held(), "{error}"),
                        }
                        tokio::time::sleep(ms(1)).await;
                    }
                })
            })
            .collect();
        let mut runs = 0;
        for task in tasks {
            runs += task.await.unwrap();
        }
        runs
    });
    assert_eq!(runs, 50);
}

/// Guards: the lock is released however the job ends, and not before what the job holds.
#[test]
fn the_lock_is_released_however_the_work_ends() {
    struct StillHeld(PathBuf);

    impl Drop for StillHeld {
        fn drop(&mut self) {
            assert!(run(&self.0).unwrap_err().is_held());
        }
    }

    let place = tempfile::tempdir().unwrap();
    let job = &place.path().join("job.lock");
    let held = || StillHeld(job.clone());
    runtime(0).block_on(async {
        // It returns.
        let value = exclusive(job, FOREVER, async {
            let _held = held();
            tokio::task::yield_now().await;
            7
        });
        assert_eq!(value.await.unwrap(), 7);
        run(job).unwrap();

        // It is interrupted.
        let error = exclusive(job, ms(20), async {
            let _held = held();
            std::future::pending::<()>().await;
        })
        .await
        .unwrap_err();
        assert!(error.interrupted().is_some() && !error.is_held());
        assert!(timebox::Interrupted::find(&error).is_some());
        run(job).unwrap();

        // It is dropped; before its first poll it holds nothing.
        let mut dropped = Box::pin(exclusive(job, FOREVER, async {
            let _held = held();
            std::future::pending::<()>().await;
        }));
        run(job).unwrap();
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        assert!(run(job).unwrap_err().is_held());
        drop(dropped);
        run(job).unwrap();
    });

    // It panics.
    let panicked = std::panic::catch_unwind(|| {
        exclusive_blocking(job, FOREVER, || -> Result<(), ExclusiveError> {
            let _held = held();
            std::panic::resume_unwind(Box::new("stopped"))
        })
    });
    assert!(panicked.is_err());
    run(job).unwrap();

    // It fails, or its time is over.
    let error = exclusive_blocking(job, FOREVER, || Err::<(), _>(std::io::Error::other("no disk"))).unwrap_err();
    assert_eq!(error.to_string(), "no disk");
    let error = exclusive_blocking(job, ms(5), || -> Result<(), ExclusiveError> {
        let _held = held();
        loop {
            timebox::checkpoint()?;
            std::thread::sleep(ms(1));
        }
    })
    .unwrap_err();
    assert!(error.interrupted().is_some());
    run(job).unwrap();
}

/// Guards: a wrong path never destroys a file, and neither does a link.
#[test]
fn foreign_files_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let thesis = place.path().join("thesis.txt");
    fs::write(&thesis, "of many years\n").unwrap();
    for path in [thesis.clone(), place.path().join("./thesis.txt")] {
        let error = run(&path).unwrap_err();
        assert!(!error.is_held() && error.to_string().ends_with("is not empty, and no lock file: it is left as it is"));
    }
    assert_eq!(fs::read_to_string(&thesis).unwrap(), "of many years\n");
    assert!(run(place.path()).unwrap_err().to_string().ends_with("is a directory"));
    let error = run(&place.path().join("no/such/place.lock")).unwrap_err();
    assert!(std::error::Error::source(&error).is_some() && error.to_string().ends_with("cannot be made"), "{error}");
    assert_eq!(run(Path::new("")).unwrap_err().to_string(), "an exclusive job has to have a name");
}

/// Guards: a path may be a link to a lock file, and then both are one lock. A link to nothing, a pipe or a device is not
/// opened.
#[cfg(unix)]
#[test]
fn links_are_followed_and_pipes_refused() {
    let place = tempfile::tempdir().unwrap();
    let (file, link) = (place.path().join("file.lock"), place.path().join("link.lock"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(run(&link).unwrap_err().to_string().ends_with("is a symbolic link"));
    assert!(!file.exists());
    run(&file).unwrap();
    exclusive_blocking(&link, FOREVER, || {
        assert!(run(&file).unwrap_err().is_held());
        Ok::<(), ExclusiveError>(())
    })
    .unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    let pipe = place.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(run(&pipe).unwrap_err().to_string().ends_with("is no plain file"));
    assert!(run(Path::new("/dev/null")).unwrap_err().to_string().ends_with("is no plain file"));
}

/// A process of its own, with its own directory of temporary files.
#[cfg(unix)]
fn with_places(test: &str, body: impl FnOnce(&Path)) {
    let alone = || body(&std::env::temp_dir());
    let place = match std::env::var_os("HEELER_TEST_ALONE") {
        Some(_) => return alone(),
        None => tempfile::tempdir().unwrap(),
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("TMPDIR", place.path());
    common::in_process_of(command, test, || unreachable!("this is the parent"));
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&fs::symlink_metadata(path).unwrap()) & 0o777
}

/// The directory of the locks, once there is one.
#[cfg(unix)]
fn locks(temp: &Path) -> PathBuf {
    let found = fs::read_dir(temp).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.is_dir()).find(|path| path.to_string_lossy().contains("/heeler-")).unwrap()
}

/// Guards: the lock of a name is in a directory for this user alone, and a link that waits there under its name leads
/// nowhere.
#[cfg(unix)]
#[test]
fn names_are_locked_in_a_private_directory() {
    with_places("names_are_locked_in_a_private_directory", |temp| {
        exclusive_blocking("nightly", FOREVER, || {
            let error = exclusive_blocking("nightly", FOREVER, || Ok::<(), ExclusiveError>(())).unwrap_err();
            assert!(error.to_string().starts_with("`nightly` is held by process "), "{error}");
            // Another name is another job.
            exclusive_blocking("weekly", FOREVER, || Ok::<(), ExclusiveError>(()))
        })
        .unwrap();
        let directory = locks(temp);
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("nightly.lock")) & 0o077, 0);

        let thesis = temp.join("thesis");
        fs::write(&thesis, "").unwrap();
        std::os::unix::fs::symlink(&thesis, directory.join("monthly.lock")).unwrap();
        let error = run(Path::new("monthly")).unwrap_err();
        assert!(error.to_string().ends_with("monthly.lock` is a symbolic link"), "{error}");
    });
}

/// Guards: the directory of locks is used only if it belongs to this user alone.
#[cfg(unix)]
#[test]
fn a_foreign_lock_directory_is_refused() {
    with_places("a_foreign_lock_directory_is_refused", |temp| {
        run(Path::new("nightly")).unwrap();
        let user = std::os::unix::fs::MetadataExt::uid(&fs::metadata(temp).unwrap());
        let locks = temp.join(format!("heeler-{user}"));
        assert_eq!(mode(&locks), 0o700);
        assert!(locks.join("nightly.lock").exists());

        set_mode(&locks, 0o770);
        let error = run(Path::new("nightly")).unwrap_err();
        assert_eq!(error.to_string(), format!("the directory of locks `{}` is open to other users", locks.display()));
        // Somebody else was first. Only root can give a directory away.
        set_mode(&locks, 0o700);
        if std::os::unix::fs::chown(&locks, Some(user + 1), None).is_ok() {
            let error = run(Path::new("nightly")).unwrap_err();
            assert!(!error.is_held() && error.holder().is_none());
            let says = format!(
                "the directory of locks `{}` belongs to user {}: have it removed, or name the job by the path of a lock file",
                locks.display(),
                user + 1
            );
            assert_eq!(error.to_string(), says);
        }
        fs::remove_dir_all(&locks).unwrap();
        let elsewhere = temp.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &locks).unwrap();
        assert!(run(Path::new("nightly")).unwrap_err().to_string().ends_with("is no directory"));
        assert!(fs::read_dir(&elsewhere).unwrap().next().is_none());
    });
}

/// Guards: a file or directory without the necessary permissions is an error that says so, not one that says "held".
#[cfg(target_os = "linux")]
#[test]
fn missing_permissions_are_a_clear_error() {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;

    let place = tempfile::tempdir().unwrap();
    let locked = place.path().join("locked.lock");
    fs::write(&locked, "").unwrap();
    set_mode(&locked, 0o400);
    set_mode(place.path(), 0o555);
    let user = fs::metadata(&locked).unwrap().uid();
    // Root has a right to everything: then it is another user's process that looks, from a binary that it can read.
    let binary = tempfile::tempdir().unwrap();
    set_mode(binary.path(), 0o755);
    let (exe, temp) = (binary.path().join("exclusive"), binary.path().join("temp"));
    fs::create_dir(&temp).unwrap();
    set_mode(&temp, 0o777);
    let mut command = match user {
        0 => {
            fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
            let mut command = Command::new(&exe);
            command.uid(65_534).gid(65_534).current_dir("/");
            command
        }
        _ => Command::new(std::env::current_exe().unwrap()),
    };
    command.args(["--exact", "other_process", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, "denied").env(JOB, &locked).env("TMPDIR", &temp);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{text}");
    set_mode(place.path(), 0o755);
}

/// What a process does that has no right to write to the file, nor to its directory.
fn denied(locked: &Path) {
    for (path, says) in [(locked.to_owned(), "cannot be opened"), (locked.with_extension("new"), "cannot be made")] {
        let error = run(&path).unwrap_err();
        assert!(!error.is_held() && error.holder().is_none());
        assert_eq!(error.to_string(), format!("the lock file `{}` {says}", path.display()));
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
    }
    run(Path::new("nightly")).unwrap();
}

/// Guards: an interruption names the job, or has the label that the caller gave it.
#[test]
fn an_interruption_names_the_job() {
    let place = tempfile::tempdir().unwrap();
    let job = place.path().join("job.lock");
    let pending = std::future::pending::<()>;
    let error = runtime(0).block_on(exclusive(&job, ms(5), pending())).unwrap_err();
    assert!(error.interrupted().unwrap().is_from(job.to_str().unwrap()), "{error}");
    let limit = Limit::from(ms(5)).label("nightly");
    let error = runtime(0).block_on(exclusive(&job, limit, pending())).unwrap_err();
    assert!(error.interrupted().unwrap().is_from("nightly"), "{error}");
    let late = || -> Result<(), ExclusiveError> {
        loop {
            timebox::checkpoint()?;
        }
    };
    let error = exclusive_blocking(&job, ms(5), late).unwrap_err();
    assert!(error.interrupted().unwrap().is_from(job.to_str().unwrap()), "{error}");
    let error = exclusive_blocking(&job, Limit::from(ms(5)).label("nightly"), late).unwrap_err();
    assert!(error.interrupted().unwrap().is_from("nightly"), "{error}");
}
