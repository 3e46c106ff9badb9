//! Many requests are starved behind a few workers that block.

use std::time::{Duration, Instant};

use heeler::metrics;
use heeler::report::{StackKind, Verdict};

use super::common::{Driven, PORTABLE, collect, in_own_process, ms, until};
use super::lateness;

const WORKERS: usize = 4;
const STARVED: usize = 400;

/// Sleeps where its thread's stack shows it.
#[inline(never)]
fn holds_its_worker() {
    std::thread::sleep(ms(8_000));
}

/// Guards: each worker's stack is captured once for all who wait for it, and is in the report of each of them. Timeboxes
/// expire in time meanwhile.
#[test]
fn a_workers_stack_is_captured_once_for_all() {
    in_own_process("starved::a_workers_stack_is_captured_once_for_all", || {
        let (seen, reports) = collect();
        let driven = Driven::new(WORKERS);
        for _ in 0..STARVED {
            let waits = async {
                tokio::time::sleep(ms(300)).await;
                std::future::pending::<()>().await;
            };
            driven.spawn(heeler::watch("starved", ms(600), waits).reports(reports.clone()));
        }
        std::thread::sleep(ms(100));
        for _ in 0..WORKERS {
            driven.spawn(heeler::watch("culprit", ms(60_000), async { holds_its_worker() }).reports(reports.clone()));
        }
        let began = Instant::now();
        let mut late = Vec::new();
        while began.elapsed() < ms(4_000) && reports.stats().with_verdict(Verdict::Starved) < STARVED as u64 / 2 {
            late.extend(lateness(5));
        }
        until("most of them are captured", || metrics().captures.taken >= STARVED as u64 / 2);
        let (elapsed, stacks) = (began.elapsed(), metrics().thread_stacks);
        println!("{stacks:?}, boxes at most {:?} late", late.iter().max().unwrap());
        // This machine is shared, so the worst one does not count.
        late.sort_unstable();
        late.pop();
        assert!(late.iter().all(|late| *late < Duration::from_secs(1)), "{late:?}");
        if PORTABLE {
            return;
        }
        // Once each, or, where the thread must be signalled for that, twenty times a second.
        let most = WORKERS as u64 * (2 + elapsed.as_millis() as u64 / 50);
        assert!(stacks.taken <= most && stacks.taken < STARVED as u64, "{stacks:?} instead of {most}");
        // Not each: one may be captured while a culprit has not begun yet.
        seen.wait("one with all culprits", |report| {
            let culprits = report.stacks.iter().filter(|stack| stack.kind == StackKind::Culprit);
            report.verdict == Verdict::Starved && culprits.count() == WORKERS
        });
    });
}
