//! A row's protocol, under every interleaving. The owner occupies and vacates it, the monitor looks at it and sets
//! flags.

use std::task::{Wake, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::{Asked, Child, How, PolicyId, Row, Work, clones, flags};
use crate::capture::RowId;

/// Makes work that tells which generation it is of.
fn occupy(row: &Row, number: u64) -> RowId {
    row.occupy(PolicyId::NONE, number, number, 0, |details| {
        details.work = Work::Child(Child { parent: RowId::from_bits(number), how: How::Spawn, boxes: None });
    })
}

/// Guards: an id of a generation gives that generation's details, clock and threshold, or nothing. A flag is set on the
/// generation that it was meant for, or on none.
#[test]
fn loom_an_id_never_reaches_another_generation() {
    loom::model(|| {
        let row = Arc::new(Row::new(0));
        // Which of the generations the monitor has set a flag on, one bit each.
        let set = Arc::new(AtomicU32::new(0));
        // The name of the first generation, which the monitor may hold for any time.
        let first = Arc::new(AtomicU64::new(0));
        let monitor = {
            let (row, set, first) = (row.clone(), set.clone(), first.clone());
            thread::spawn(move || {
                let known = RowId::from_bits(first.load(Ordering::Acquire));
                let live = row.live().map(|(id, _)| id);
                for (id, number) in [(Some(known), Some(1)), (live, None)] {
                    let Some(id) = id.filter(|id| *id != RowId::NONE) else { continue };
                    let Some(details) = row.details(id) else { continue };
                    let Work::Child(child) = &details.work else { panic!("a live row without work") };
                    let this = child.parent.to_bits();
                    assert!(number.is_none_or(|number| number == this));
                    assert_eq!((row.started(), row.threshold()), (Some(this), this));
                    assert!(row.is_live(id), "it ended while its details were held");
                    drop(details);
                    if row.update(id, flags::WANTED, 0).is_some() {
                        set.fetch_or(1 << this, Ordering::Relaxed);
                    }
                }
            })
        };
        let mut found = 0;
        for number in [1, 2] {
            let id = occupy(&row, number);
            if number == 1 {
                first.store(id.to_bits(), Ordering::Release);
            }
            assert!(row.is_live(id));
            if row.flags() & flags::WANTED != 0 {
                found |= 1 << number;
            }
            row.vacate();
            assert_eq!(row.live(), None);
            assert!(row.details(id).is_none());
            assert_eq!(row.update(id, flags::WANTED, 0), None);
        }
        monitor.join().unwrap();
        let set = set.load(Ordering::Relaxed);
        assert_eq!(found & !set, 0, "a flag that was meant for another generation");
    });
}

/// Guards: a clock that is stopped while the monitor notes its deadline leaves no row that seems to have one.
#[test]
fn loom_a_stopped_clock_has_no_deadline() {
    loom::model(|| {
        let row = Arc::new(Row::new(0));
        let id = occupy(&row, 7);
        let monitor = {
            let row = row.clone();
            thread::spawn(move || {
                let Some(started) = row.started() else { return };
                // As in the monitor's `arm`.
                if row.update(id, flags::QUEUED, 0).is_some() {
                    fence(Ordering::SeqCst);
                    if row.started() != Some(started) {
                        row.update(id, 0, flags::QUEUED);
                    }
                }
            })
        };
        // As in `Watched::pause`.
        row.restart(None);
        row.forget_deadline(id);
        monitor.join().unwrap();
        assert_eq!(row.flags() & flags::QUEUED, 0);
        row.vacate();
    });
}

/// A task as its executor knows it: whether it must be polled.
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: std::sync::Arc<Self>) {
        // An update, as in executors. With a plain store, loom does not know that the poll's swap came before.
        self.0.swap(true, Ordering::AcqRel);
    }
}

/// Guards: setting a flag and asking for the waker always leads to a poll that sees the flag. That also holds if the
/// waker is out already, was never put in, or is being put in at that moment.
#[test]
fn loom_no_request_for_a_poll_is_lost() {
    loom::model(|| {
        let row = Arc::new(Row::new(0));
        let id = occupy(&row, 7);
        let task = std::sync::Arc::new(Task(AtomicBool::new(false)));
        let monitor = {
            let row = row.clone();
            thread::spawn(move || {
                for flag in [flags::WANTED, flags::EXPIRED] {
                    row.update(id, flag, 0);
                    if let Some(Asked::Waker(waker)) = row.take_waker(id) {
                        waker.wake();
                    }
                }
            })
        };
        let mut seen = 0;
        for _ in 0..2 {
            // The poll begins. A wake of the task from here on means the next one.
            task.0.swap(false, Ordering::AcqRel);
            seen = row.flags();
            let waker = Waker::from(task.clone());
            // As in `Registered::keep_waker`.
            if !row.has_task(&waker) {
                let (previous, asked) = row.put_waker(id, waker, true);
                drop(previous);
                asked.into_iter().for_each(Waker::wake);
            }
        }
        monitor.join().unwrap();
        let both = flags::WANTED | flags::EXPIRED;
        assert!(seen & both == both || task.0.load(Ordering::Acquire), "nobody polls it any more");
        row.vacate();
    });
}

/// Guards: of the owner and the last clones of the row's waker, exactly one frees the row, and one drops the waker.
#[test]
fn loom_a_draining_row_is_freed_once() {
    loom::model(|| {
        let row = Arc::new(Row::new(0));
        let id = occupy(&row, 1);
        row.put_waker(id, Waker::noop().clone(), false);
        row.add_clone(id);
        let clone = {
            let row = row.clone();
            thread::spawn(move || {
                row.add_clone(id);
                let (first, second) = (row.remove_clone(id), row.remove_clone(id));
                u32::from(first.1) + u32::from(second.1)
            })
        };
        let (left, is_free) = row.drain();
        drop(left);
        let freed = u32::from(is_free) + clone.join().unwrap();
        assert_eq!(freed, 1);
        assert!(!row.is_live(id) && !row.has_clones());
        let next = occupy(&row, 2);
        assert!(row.details(next).unwrap().waker.is_none(), "the next work has nobody's waker");
        row.add_clone(id);
        assert!(!row.has_clones(), "a name that is over counts for nothing");
    });
}

/// Guards: of several threads that wake, the task sees the reason of the last one, whoever holds its waker at the
/// moment: the monitor, which asked for a poll, or the owner of a clone, after the work is dropped.
#[test]
fn loom_no_wake_up_is_lost_to_another() {
    /// A task that looks at what was sent when it is woken.
    struct Looks {
        sent: Arc<AtomicU32>,
        seen: Arc<AtomicU32>,
    }

    impl Wake for Looks {
        fn wake(self: std::sync::Arc<Self>) {
            let sent = self.sent.load(Ordering::SeqCst);
            self.seen.fetch_max(sent, Ordering::SeqCst);
        }
    }

    loom::model(|| {
        let row = Arc::new(Row::new(0));
        let (sent, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let id = occupy(&row, 1);
        let task = std::sync::Arc::new(Looks { sent: sent.clone(), seen: seen.clone() });
        row.put_waker(id, Waker::from(task), false);
        row.add_clone(id);
        let Some(Asked::Waker(in_hand)) = row.take_waker(id) else { panic!("it was put in") };
        drop(row.drain());
        let monitor = {
            let row = row.clone();
            thread::spawn(move || clones::wake(&row, id, in_hand))
        };
        sent.store(1, Ordering::SeqCst);
        if let clones::Taken::Waker(waker) = row.take_for_clone(id) {
            clones::wake(&row, id, waker);
        }
        monitor.join().unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 1);
        let (waker, is_free) = row.remove_clone(id);
        assert!(waker.is_some() && is_free, "it was given back");
    });
}
