//! A poll that heeler asked for is a poll like any other: what it returns is what the caller gets, once.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};

use heeler::Reports;

use super::common::{PATIENCE, beside_others, in_own_process, ms, runtime};

/// Ready at its poll number `last`, and never polled again; keeps its waker, which nobody but heeler uses.
async fn ready_at(last: u32, polls: Arc<AtomicU32>) -> u32 {
    let mut waker: Option<Waker> = None;
    poll_fn(|cx| {
        let poll = polls.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(poll <= last, "polled after it was ready");
        waker = Some(cx.waker().clone());
        if poll == last { Poll::Ready(poll) } else { Poll::Pending }
    })
    .await
}

/// Guards: a completion in a traced poll (the one that arms, and those of each capture) is returned. It is the only poll of
/// that wake-up.
#[test]
fn a_completion_in_a_traced_poll_is_returned() {
    // Alone: what others capture counts towards the same budget.
    in_own_process("outcome::a_completion_in_a_traced_poll_is_returned", completions_on_traced_polls);
}

fn completions_on_traced_polls() {
    // Four looks, each with a poll that heeler asks for; the one more that arms is not certain on a busy machine.
    for workers in [0, 2] {
        for last in 2..=5 {
            let polls = Arc::new(AtomicU32::new(0));
            let reports = Reports::builder().without_log().build().unwrap();
            let job = heeler::watch("job", ms(25), ready_at(last, polls.clone())).reports(reports);
            let value = runtime(workers).block_on(async {
                let job = tokio::spawn(job);
                tokio::time::timeout(PATIENCE, job).await.expect("no poll was requested").unwrap()
            });
            assert_eq!((value, polls.load(Ordering::Relaxed)), (last, last));
        }
    }
}

/// Guards: the same for a future that fails, or unwinds, in the traced poll.
#[test]
fn a_panic_in_a_traced_poll_reaches_the_task() {
    let _guard = beside_others();
    for workers in [0, 2] {
        let reports = Reports::builder().without_log().build().unwrap();
        let job = async {
            ready_at(2, Arc::default()).await;
            std::panic::resume_unwind(Box::new(7_u8))
        };
        let job = heeler::watch("job", ms(16), job).reports(reports);
        let outcome: Result<(), _> = runtime(workers).block_on(async { tokio::spawn(job).await });
        assert_eq!(*outcome.unwrap_err().into_panic().downcast::<u8>().unwrap(), 7);
    }
}

/// Guards: a future that is polled by hand keeps its own rhythm. Each poll of the caller is one poll of the future.
#[test]
fn polls_are_never_added() {
    let polls = Arc::new(AtomicU32::new(0));
    let mut job = Box::pin(heeler::watch("job", ms(1), ready_at(u32::MAX, polls.clone())));
    let mut context = std::task::Context::from_waker(Waker::noop());
    for poll in 1..200 {
        assert!(job.as_mut().poll(&mut context).is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), poll);
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}
