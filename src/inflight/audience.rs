//! Rows to be told of something that happens at most once.

use std::sync::Mutex;

use super::table;
use crate::capture::RowId;
use crate::sync::lock_std;

/// The list has room for at least this many rows before ended ones are searched for.
const MIN_ROOM: usize = 4;

/// The rows to be told. A row either joins, or learns that it has happened already. There is nothing in between.
///
/// Rows leave by ending. When the list would have to grow, ended rows make room. So joining takes constant time on
/// average, and the list is at most twice as long as the number of rows that were ever in it at once.
#[derive(Debug, Default)]
pub(crate) struct Audience(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    rows: Vec<RowId>,
}

impl Audience {
    /// Adds a row. Returns false if it has happened already. Then the caller tells the row, and [`close`](Self::close)
    /// does not return it.
    pub(super) fn join(&self, id: RowId) -> bool {
        let mut state = lock_std(&self.0);
        if state.rows.len() == state.rows.capacity() {
            state.rows.retain(|id| table().row(*id).is_some_and(|row| row.is_live(*id)));
            let room = state.rows.len().max(MIN_ROOM);
            state.rows.reserve(room);
        }
        state.rows.push(id);
        !state.closed
    }

    /// Notes that it has happened. Returns the rows to tell, and none the second time.
    pub(crate) fn close(&self) -> Vec<RowId> {
        let mut state = lock_std(&self.0);
        if std::mem::replace(&mut state.closed, true) { Vec::new() } else { state.rows.clone() }
    }

    /// Returns the rows that have not ended, also those that came too late.
    pub(crate) fn living(&self) -> Vec<RowId> {
        let rows = lock_std(&self.0).rows.clone();
        rows.into_iter().filter(|id| table().row(*id).is_some_and(|row| row.is_live(*id))).collect()
    }

    /// Returns whether it has happened.
    pub(crate) fn is_closed(&self) -> bool {
        lock_std(&self.0).closed
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;
    use crate::inflight::{PolicyId, Registered, flags};

    fn row() -> Registered {
        Registered::new(PolicyId::NONE, u64::MAX, flags::CHILD, |_| {}).unwrap()
    }

    /// Guards: a list of rows that come and go stays short, and keeps those that are still there.
    #[test]
    fn ended_rows_make_room_for_others() {
        let audience = Audience::default();
        let stays: Vec<_> = (0..20).map(|_| row()).collect();
        for one in &stays {
            assert!(audience.join(one.id()));
            for _ in 0..500 {
                assert!(audience.join(row().id()));
            }
        }
        assert!(lock_std(&audience.0).rows.capacity() <= 128, "{}", lock_std(&audience.0).rows.capacity());
        let told = audience.close();
        assert!(stays.iter().all(|one| told.contains(&one.id())));
    }

    /// Guards: a listener that comes too late learns so.
    #[test]
    fn a_late_listener_learns_that_it_happened() {
        let (audience, one, other) = (Audience::default(), row(), row());
        assert!(audience.join(one.id()) && !audience.is_closed());
        assert_eq!(audience.close(), [one.id()]);
        assert!(!audience.join(other.id()) && audience.is_closed());
        assert!(audience.close().is_empty());
    }

    /// Guards: what still runs is known after it has happened, and includes those that came too late.
    #[test]
    fn the_living_are_known_afterwards() {
        let (audience, one, ended, late) = (Audience::default(), row(), row(), row());
        assert!(audience.join(one.id()) && audience.join(ended.id()));
        audience.close();
        drop(ended);
        audience.join(late.id());
        assert_eq!(audience.living(), [one.id(), late.id()]);
    }
}
