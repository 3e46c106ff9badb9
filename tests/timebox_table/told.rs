//! `interrupted().await`: work that is told and ends by itself within its grace.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use heeler::timebox::interrupted;
use heeler::{Interrupted, timebox};

use super::common::{FOREVER, runtime};
use super::{SHORT, forever, run};

/// Guards: all branches are told, whichever of them the task was woken for.
#[test]
fn all_branches_of_a_join_are_told() {
    run(async {
        let work = async { tokio::join!(interrupted(), interrupted(), async { interrupted().await.limit() }) };
        let (one, other, limit) = timebox(SHORT, work).grace(FOREVER).await.unwrap();
        assert_eq!((one.limit(), other.limit(), limit), (SHORT, SHORT, SHORT));
    });
}

#[test]
fn a_branch_of_a_select_is_told() {
    run(async {
        let work = async {
            tokio::select! {
                told = interrupted() => Some(told),
                () = forever() => None,
            }
        };
        let told = timebox(SHORT, work).label("select").grace(FOREVER).await.unwrap().unwrap();
        assert!(told.is_from("select"));
    });
}

/// Guards: a set polls only the members that were woken, so each has to be.
#[test]
fn every_member_of_a_set_is_told() {
    run(async {
        let work = async {
            let waiting: FuturesUnordered<_> = (0..50).map(|_| interrupted()).collect();
            waiting.map(|told| told.limit()).collect::<Vec<_>>().await
        };
        let told = timebox(SHORT, work).grace(FOREVER).await.unwrap();
        assert_eq!(told, vec![SHORT; 50]);
    });
}

#[test]
fn a_spawned_child_task_is_told() {
    for workers in [0, 2] {
        let told: Interrupted = runtime(workers).block_on(async {
            let work = async { heeler::spawn(interrupted()).await.unwrap() };
            timebox(SHORT, work).grace(FOREVER).await.unwrap()
        });
        assert_eq!(told.limit(), SHORT);
    }
}

/// Guards: the notification also works if the time is up already, and again each time it is awaited.
#[test]
fn asking_again_is_answered_again() {
    run(async {
        let work = async {
            for _ in 0..3 {
                assert_eq!(interrupted().await.limit(), SHORT);
                heeler::checkpoint().unwrap_err();
            }
        };
        timebox(SHORT, work).grace(FOREVER).await.unwrap();
    });
}

/// Guards: work that does not use its grace is dropped when that is over, too.
#[test]
fn told_work_is_dropped_after_its_grace() {
    run(async {
        let error = timebox(SHORT, forever()).grace(SHORT).await.unwrap_err();
        assert!(error.elapsed() >= SHORT * 2, "{error}");
        assert_eq!(error.limit(), SHORT);
    });
}

/// Guards: a notification that is dropped leaves nothing behind, and the next one still works.
#[test]
fn a_dropped_notification_leaves_nothing_behind() {
    run(async {
        let work = async {
            for _ in 0..100 {
                assert!(futures::poll!(std::pin::pin!(interrupted())).is_pending());
            }
            interrupted().await.limit()
        };
        // The polls above take their time before the limit, even on a busy machine.
        let limit = SHORT * 20;
        assert_eq!(timebox(limit, work).grace(FOREVER).await.unwrap(), limit);
    });
}

#[test]
fn outside_any_timebox_it_waits_forever() {
    run(async {
        let told = std::pin::pin!(interrupted());
        assert!(futures::poll!(told).is_pending());
    });
}
