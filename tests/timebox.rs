//! The timebox end to end: true futures, true threads, true stacks.
#![cfg(feature = "timebox")]

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use heeler::timebox::{self, Limit};
use heeler::{Interrupted, TimeboxExt, checkpoint};

const SHORT: Duration = Duration::from_millis(20);

#[inline(never)]
async fn waits_for_ever() {
    std::future::pending::<()>().await;
}

#[inline(never)]
async fn waits_for_a_permit(semaphore: &tokio::sync::Semaphore) {
    let _permit = semaphore.acquire().await;
}

/// Guards: the timebox expires with the await stack of the work and one sentence that says all of it.
#[tokio::test]
async fn interrupts_work_at_its_limit() {
    let semaphore = tokio::sync::Semaphore::new(0);
    let began = Instant::now();
    let interrupted = waits_for_a_permit(&semaphore).timebox(SHORT).label("permit").await.unwrap_err();
    assert!(began.elapsed() >= common::at_least(SHORT));
    assert!(interrupted.elapsed() >= SHORT);
    assert_eq!((interrupted.limit(), interrupted.label()), (SHORT, Some("permit")));
    let said = interrupted.to_string();
    assert!(said.starts_with("the timebox \"permit\" of 20ms was up after "), "{said}");
    // The first name of a process reads its debug information, which may take longer than anybody is kept waiting.
    let is_named = || interrupted.to_string().contains("waits_for_a_permit at tests/timebox.rs:");
    common::until("the place is named", is_named);
    assert!(!interrupted.stacks().is_empty());
}

/// Guards: a future that nobody will wake is interrupted, too, and the error says what is known about it.
#[tokio::test]
async fn work_that_nobody_wakes_is_interrupted() {
    let interrupted = waits_for_ever().timebox(SHORT).await.unwrap_err();
    assert!(interrupted.elapsed() >= SHORT);
    assert!(interrupted.to_string().starts_with("the timebox of 20ms was up after "), "{interrupted}");
}

#[test]
fn a_timebox_works_without_a_runtime() {
    let result = futures::executor::block_on(waits_for_ever().timebox(SHORT));
    assert!(result.is_err());
    assert_eq!(futures::executor::block_on(async { 7 }.timebox(SHORT)).unwrap(), 7);
}

/// Guards: a checkpoint in plain code sees that the time is up, and says where it is.
#[test]
fn a_checkpoint_fails_when_time_is_up() {
    let limit = Limit::from(SHORT).label("loop");
    let interrupted = timebox::blocking(limit, || {
        loop {
            checkpoint()?;
            std::hint::spin_loop();
        }
        #[allow(unreachable_code)]
        Ok::<(), Interrupted>(())
    });
    let interrupted = interrupted.unwrap_err();
    assert!(interrupted.is_from("loop"));
    assert!(interrupted.to_string().contains("at the checkpoint in tests/timebox.rs:"), "{interrupted}");
    assert!(checkpoint().is_ok(), "outside any timebox there is no limit");
}

/// Guards: work that was spawned from a timebox learns when the timebox ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spawned_work_is_told_of_the_interruption() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let work = async move {
        let other = sender.clone();
        let _task = heeler::spawn(async move {
            let _ = sender.send(timebox::interrupted().await);
        });
        let _thread = heeler::spawn_blocking(move || {
            loop {
                if let Err(interrupted) = checkpoint() {
                    let _ = other.send(interrupted);
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        std::future::pending::<()>().await;
    };
    let result = work.timebox(SHORT).label("parent").await;
    assert!(result.is_err());
    for _ in 0..2 {
        let told = tokio::task::block_in_place(|| receiver.recv_timeout(common::PATIENCE)).unwrap();
        assert!(told.is_from("parent"), "{told}");
    }
}

/// Guards: within its grace, work may end by itself, and its value counts. Work that does not end is dropped.
#[tokio::test]
async fn grace_lets_work_end_by_itself() {
    let work = async {
        timebox::interrupted().await;
        7
    };
    assert_eq!(work.timebox(SHORT).grace(Duration::from_secs(20)).await.unwrap(), 7);
    let began = Instant::now();
    let result = waits_for_ever().timebox(SHORT).grace(SHORT).await;
    assert!(result.is_err() && began.elapsed() >= common::at_least(2 * SHORT));
}
