//! A row's protocol, under every interleaving: the owner occupies and vacates it, the monitor looks at it and sets flags.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::{Child, How, PolicyId, Row, RowId, Work, flags};

/// Work that tells which generation it is of.
fn occupy(row: &Row, number: u64) -> RowId {
    row.occupy(PolicyId::NONE, number, number, 0, |details| {
        details.work = Work::Child(Child { parent: RowId::from_bits(number), how: How::Spawn, boxes: None });
    })
}

/// Guards: whoever has a generation's name gets that generation's details, clock and threshold, or nothing; a flag is set
/// on the generation that it was meant for, or on none.
#[test]
fn loom_a_name_never_reaches_another_generation() {
    loom::model(|| {
        let row = Arc::new(Row::new(0));
        // Which of the generations the monitor has set a flag on, one bit each.
        let set = Arc::new(AtomicU32::new(0));
        // The name of the first generation: the monitor may hold it for as long as it likes.
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

/// Guards: a clock that is stopped while the monitor notes its deadline leaves no row that is thought to have one.
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
