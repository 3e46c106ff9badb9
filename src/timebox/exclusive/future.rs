//! A job of async code that never runs twice at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::error::ExclusiveError;
use super::lock::Lock;
use crate::timebox::{Limit, Timebox, timebox};

pin_project! {
    /// The future of [`exclusive`].
    ///
    /// Takes the lock when it is first polled. Releases it when the job has ended, has been interrupted or is dropped,
    /// and in each case after everything that the job holds.
    #[must_use = "futures do nothing unless polled"]
    pub struct Exclusive<F> {
        job: PathBuf,
        // Before the lock, because fields are dropped in this order and the job must still hold the lock while it is
        // dropped.
        #[pin]
        work: Timebox<F>,
        lock: Option<Lock>,
    }
}

/// Runs a job that must never run twice at once, within a time limit.
///
/// `job` is a name ("nightly") or, if it contains a separator, the path of a lock file ("/var/lib/app/nightly.lock"). A
/// second run, in this process or another one, gets an error at once that says which process holds the lock and since
/// when. The limit is that of a [`timebox`], labelled with `job` if it has no label. Its clock starts together with the
/// job.
///
/// The operating system holds the lock (`flock` on Unix). It ends with its process, so a run that crashed or was killed
/// does not get in the way. The file stays, empty, and is never removed. Do not remove it while a job runs, or a second
/// run may begin. While it is held, a thread touches it every ten minutes, so that programs that clean temporary
/// directories leave it alone.
///
/// # Where the lock of a name is
///
/// In a directory that only this user can enter: `/tmp/heeler-<user id>`, or in `$TMPDIR` if that is set. Two runs
/// exclude each other only if they find the same directory. So use a path for a job of several users, or of services
/// with a `/tmp` of their own. A file that several users lock must exist beforehand, with the right permissions,
/// because a file that heeler creates belongs to its creator alone.
///
/// # Errors
///
/// Returns an error with [`ExclusiveError::is_held`] if another run holds the lock, and with
/// [`ExclusiveError::interrupted`] if the limit has passed. Returns other errors if the lock file can't be created or
/// opened, if it isn't a lock file (heeler never writes to a file that holds anything else), or if the directory of
/// locks isn't this user's alone. The value of the job itself is inside `Ok`.
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
/// use heeler::timebox::exclusive;
///
/// # async fn reindex() -> u32 { 7 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), heeler::timebox::ExclusiveError> {
/// // "`reindex` is held by process 4711 since 2026-11-21T08:49:12Z", if it is.
/// let rows = exclusive("reindex", Duration::from_secs(600), reindex()).await?;
/// # Ok(())
/// # }
/// ```
pub fn exclusive<F: Future>(job: impl AsRef<Path>, limit: impl Into<Limit>, future: F) -> Exclusive<F> {
    let job = job.as_ref().to_owned();
    let work = timebox(labelled(limit.into(), &job), future);
    Exclusive { job, work, lock: None }
}

/// Labels the interruption with the job, unless the caller has set a label.
pub(super) fn labelled(limit: Limit, job: &Path) -> Limit {
    match limit.extra.as_ref().and_then(|extra| extra.label.as_ref()) {
        Some(_) => limit,
        None => limit.label(job.to_string_lossy().into_owned()),
    }
}

impl<F: Future> Future for Exclusive<F> {
    type Output = Result<F::Output, ExclusiveError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.lock.is_none() {
            *this.lock = Some(Lock::take(this.job)?);
        }
        let result = ready!(this.work.poll(cx));
        // The work has been dropped, or has returned.
        *this.lock = None;
        Poll::Ready(result.map_err(ExclusiveError::from))
    }
}

impl<F> fmt::Debug for Exclusive<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").field("job", &self.job).field("held", &self.lock.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_send_if_the_job_is() {
        fn check<T: Send>(_: &T) {}
        let job = exclusive("x", std::time::Duration::MAX, std::future::ready(()));
        check(&job);
        assert_eq!(format!("{job:?}"), "Exclusive { job: \"x\", held: false, .. }");
    }
}
