//! Finds out whether a poll yielded. tokio wakes what did so as soon as the thread has nothing else to do.
//!
//! A poll of `yield_now` checks tokio's list, see `capture::has_kept`. That costs some 10 ns, and a worker that would
//! have slept looks for events once more first. So it is done once for each place that a request waits at, and for what
//! is reported.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use super::executors;
use crate::capture::{self, Arena, RowWaker};

/// Offers the waker to tokio's list. Outside of a runtime, tokio wakes it instead.
fn to_list(waker: &Waker) {
    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(waker));
}

/// Returns whether the list can be checked, which is the case within tokio's polls. Other executors may poll while
/// tokio goes through the list.
fn has_list(waker: &Waker) -> bool {
    executors::is_tokio(capture::original(waker))
}

/// Runs before a traced poll with `waker` that lends the row's. What was polled earlier, within the same outer traced
/// poll, may have yielded. Then the list already has that row's waker.
pub(super) fn before(row: RowWaker, waker: &Waker) {
    if capture::is_asked_around(row) && has_list(waker) {
        capture::tell_around(row, capture::has_kept(row, to_list));
    }
}

/// Runs after a traced poll that is pending. `known` is whether it yields at this place, if an earlier poll has shown
/// that.
pub(super) fn after(row: RowWaker, waker: &Waker, arena: &mut Arena, known: Option<bool>) {
    // Another poll within may have settled it already.
    if arena.wakes > 0 || !arena.is_unsettled() || !has_list(waker) {
        return;
    }
    let gave_way = match known {
        Some(false) => return arena.settle(false),
        // Also if it is known, because what is polled next must not find that waker at the end of the list.
        Some(true) | None => capture::has_kept(row, to_list) || known.is_some(),
    };
    arena.settle(gave_way);
    capture::tell_around(row, gave_way);
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::inflight::{Job, PolicyId, Registered, WaitKind, Watched, Work, flags};

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Work in its own row, each poll of which is traced.
    fn traced() -> Watched {
        executors::learn();
        let registered = Registered::new(PolicyId::NONE, u64::MAX, flags::ARMED, |details| {
            details.work = Work::Job(Box::new(Job::new("gives way")));
        });
        Watched::new(Some(registered.unwrap()))
    }

    /// Returns what a poll of the future has shown, and whether a branch yielded.
    async fn first_poll(future: impl Future<Output = ()>) -> (WaitKind, bool) {
        let (mut future, mut watched) = (pin!(future), traced());
        poll_fn(|cx| {
            assert!(watched.poll(cx, |cx| future.as_mut().poll(cx)).is_pending());
            Poll::Ready(())
        })
        .await;
        shown(&watched)
    }

    fn shown(watched: &Watched) -> (WaitKind, bool) {
        let (row, id) = watched.row().unwrap();
        let details = row.details(id).unwrap();
        let trace = details.trace.as_ref().unwrap();
        let record = &trace.records[trace.current().unwrap()];
        (record.kind, record.gave_way)
    }

    /// Runs on both kinds of runtime, in a task and in `block_on`.
    fn everywhere<F: Future<Output = ()> + Send + 'static>(future: impl Fn() -> F) -> Vec<(WaitKind, bool)> {
        let one = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let mut all = vec![one.block_on(first_poll(future()))];
        for runtime in [one, many] {
            all.push(runtime.block_on(runtime.spawn(first_poll(future()))).unwrap());
        }
        all
    }

    async fn lock() {
        let mutex = tokio::sync::Mutex::new(());
        let _held = mutex.lock().await;
        let _never = mutex.lock().await;
    }

    async fn drain() {
        loop {
            tokio::task::consume_budget().await;
        }
    }

    /// Guards: yielding is distinguished from waiting without looking at the name of any function.
    #[test]
    fn yielding_is_told_from_waiting() {
        let yields = [(WaitKind::Yielding, true); 3];
        assert_eq!(everywhere(tokio::task::yield_now), yields);
        assert_eq!(everywhere(drain), yields);
        assert_eq!(
            everywhere(|| async {
                tokio::join!(tokio::task::yield_now(), drain());
            }),
            yields
        );
        let waits = [(WaitKind::Waiting, false); 3];
        assert_eq!(everywhere(lock), waits);
        assert_eq!(everywhere(|| async { tokio::time::sleep(HOUR).await }), waits);
        assert_eq!(
            everywhere(|| async {
                tokio::join!(lock(), tokio::time::sleep(HOUR));
            }),
            waits
        );
        let one_of_two = [(WaitKind::Waiting, true); 3];
        assert_eq!(
            everywhere(|| async {
                tokio::join!(lock(), tokio::task::yield_now());
            }),
            one_of_two
        );
        assert_eq!(
            everywhere(|| async {
                tokio::time::timeout(HOUR, drain()).await.unwrap();
            }),
            one_of_two
        );
    }

    /// Guards: rows within a row are judged by what each does itself, whatever its neighbours do.
    #[test]
    fn nested_rows_are_judged_separately() {
        async fn neighbours() {
            let (mut first, mut other, mut last) = (traced(), traced(), traced());
            let (mut lock, mut plain) = (pin!(lock()), pin!(tokio::task::yield_now()));
            let (mut gives_way, mut again) = (pin!(tokio::task::yield_now()), pin!(drain()));
            poll_fn(|cx| {
                // One that nobody watches.
                assert!(plain.as_mut().poll(cx).is_pending());
                assert!(first.poll(cx, |cx| lock.as_mut().poll(cx)).is_pending());
                assert!(other.poll(cx, |cx| gives_way.as_mut().poll(cx)).is_pending());
                assert!(last.poll(cx, |cx| again.as_mut().poll(cx)).is_pending());
                let all = [&first, &other, &last].map(shown);
                let (waits, yields) = ((WaitKind::Waiting, false), (WaitKind::Yielding, true));
                assert_eq!(all, [waits, yields, yields]);
                Poll::<()>::Pending
            })
            .await;
        }
        assert_eq!(everywhere(neighbours), [(WaitKind::Waiting, true); 3]);
    }

    /// Guards: the waker used to probe wakes nobody, and is not counted as a clone.
    #[test]
    fn probing_a_wait_leaves_nothing_behind() {
        async fn sleeps() -> (u32, bool) {
            let (mut watched, mut polls) = (traced(), 0);
            let mut work = Box::pin(tokio::time::sleep(Duration::from_millis(50)));
            poll_fn(|cx| {
                polls += 1;
                watched.poll(cx, |cx| work.as_mut().poll(cx))
            })
            .await;
            drop(work);
            (polls, watched.row().unwrap().0.has_clones())
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(runtime.block_on(runtime.spawn(sleeps())).unwrap(), (2, false));
    }
}
