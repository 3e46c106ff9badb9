//! A permit of a semaphore, and places in its queue.

use std::sync::Arc;

use heeler::TimeboxExt as _;
use tokio::sync::Semaphore;

use crate::interrupt_often;

const PERMITS: usize = 3;

/// Guards: no permit is lost, whether its work is interrupted while it holds one or while it waits for one.
#[test]
fn every_permit_comes_back() {
    let semaphore = Arc::new(Semaphore::new(PERMITS));
    let shared = semaphore.clone();
    interrupt_often(8, move |run| {
        let semaphore = shared.clone();
        async move {
            let work = async {
                run.before().await;
                let _permit = semaphore.acquire().await.unwrap();
                run.holding().await;
            };
            work.timebox(run.limit).await.is_ok()
        }
    });
    assert_eq!(semaphore.available_permits(), PERMITS);
}
