//! Keeps the files of held locks fresh. Programs that clean temporary directories remove files that nobody has touched
//! for days. Without this, a second run could begin beside a job that runs for weeks, because it would find no lock.

use std::fs::{File, FileTimes};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, SystemTime};

use crate::capture::PerProcess;
use crate::sync::lock_std;

/// How often files are touched: well before anybody takes them for abandoned.
const EVERY: Duration = Duration::from_secs(10 * 60);

static KEEPER: PerProcess<Keeper> = PerProcess::new(|| Keeper::new(EVERY));

/// Touches files as long as somebody has them, on a thread that lives as long as there is one.
struct Keeper {
    every: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    held: Vec<Weak<File>>,
    /// Whether there is such a thread.
    runs: bool,
}

/// Touches the file of a held lock until the lock is released.
pub(super) fn keep(file: &Arc<File>) {
    KEEPER.get().keep(file);
}

/// Notes that a lock has been released.
pub(super) fn let_go() {
    KEEPER.get().changed.notify_all();
}

impl Keeper {
    fn new(every: Duration) -> Self {
        let state = State { held: Vec::new(), runs: false };
        Self { every, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn keep(&'static self, file: &Arc<File>) {
        let mut state = lock_std(&self.state);
        state.held.push(Arc::downgrade(file));
        if !state.runs {
            let started = std::thread::Builder::new().name("heeler-locks".into()).spawn(|| self.run());
            // Without the thread the lock still holds, until somebody cleans up.
            state.runs = started.is_ok();
        }
    }

    fn run(&self) {
        crate::capture::sys::block_signals();
        let mut state = lock_std(&self.state);
        loop {
            state.held.retain(|file| file.strong_count() > 0);
            if state.held.is_empty() {
                state.runs = false;
                return;
            }
            let waited = self.changed.wait_timeout(state, self.every);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            let files: Vec<Arc<File>> = state.held.iter().filter_map(Weak::upgrade).collect();
            // A file system may block its caller. Taking a lock must not wait for that.
            drop(state);
            files.iter().for_each(|file| touch(file));
            drop(files);
            state = lock_std(&self.state);
        }
    }
}

fn touch(file: &File) {
    let now = SystemTime::now();
    let touched = file.set_times(FileTimes::new().set_accessed(now).set_modified(now));
    #[cfg(unix)]
    if touched.is_err() {
        // Only the owner may set the time. Reading counts as use, too.
        let _ = std::os::unix::fs::FileExt::read_at(file, &mut [0], 0);
    }
    #[cfg(not(unix))]
    let _ = touched;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn until(what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Guards: the file of a lock that is held for long looks used, again and again. The thread ends with the last lock, and
    /// starts again with the next.
    #[test]
    fn a_held_lock_file_is_touched_until_release() {
        let keeper: &'static Keeper = Box::leak(Box::new(Keeper::new(Duration::from_millis(5))));
        let days_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
        let make_old = |file: &File| file.set_times(FileTimes::new().set_modified(days_ago)).unwrap();
        let is_old = |file: &File| file.metadata().unwrap().modified().unwrap() < days_ago + Duration::from_secs(60);
        for _ in 0..2 {
            let [file, other] = [(); 2].map(|()| Arc::new(tempfile::tempfile().unwrap()));
            make_old(&other);
            keeper.keep(&file);
            keeper.keep(&other);
            for _ in 0..2 {
                make_old(&file);
                until("it is touched", || !is_old(&file));
            }
            until("so is the other", || !is_old(&other));
            assert!(lock_std(&keeper.state).runs);
            drop((file, other));
            until("the thread ends", || !lock_std(&keeper.state).runs);
        }
    }

    /// Guards: every lock is kept fresh from when it is taken.
    #[test]
    fn every_lock_is_kept_fresh() {
        let place = tempfile::tempdir().unwrap();
        let lock = super::super::lock::Lock::take(&place.path().join("x.lock")).unwrap();
        let is_kept =
            || lock_std(&KEEPER.get().state).held.iter().any(|file| file.ptr_eq(&Arc::downgrade(lock.file())));
        assert!(is_kept());
        assert!(lock_std(&KEEPER.get().state).runs);
    }
}
