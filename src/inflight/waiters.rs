//! Tasks that wait to be told that a row's time is up. They run within the box's own task, and the box's waker need not
//! reach them.
//!
//! Few rows have any, so they are kept outside the table.

use std::collections::HashMap;
use std::sync::Mutex;
use std::task::Waker;

use super::{Row, flags};
use crate::capture::PerProcess;
use crate::capture::RowId;
use crate::sync::lock_std;

/// The waiters of one row, and their wakers.
type Waiters = Vec<(usize, Waker)>;

static WAITERS: PerProcess<Mutex<HashMap<RowId, Waiters>>> = PerProcess::new(Mutex::default);

/// Makes `waker` be woken when the row's time is up. `who` distinguishes waiters. Returns false if it is up already, or
/// the row is gone.
pub(crate) fn wait(row: &Row, id: RowId, who: usize, waker: &Waker) -> bool {
    let is_known = lock_std(WAITERS.get())
        .get(&id)
        .is_some_and(|list| list.iter().any(|(theirs, known)| *theirs == who && known.will_wake(waker)));
    if !is_known {
        put(id, who, waker.clone());
    }
    // After the list has it. Then a thread that sets one of these flags sees this one, or its flag is seen here.
    let before = row.update(id, flags::AWAITED, 0);
    before.is_some_and(|before| before & flags::UP == 0)
}

/// Cloning and dropping a waker is other people's code, so neither happens under the lock.
fn put(id: RowId, who: usize, waker: Waker) {
    let replaced = {
        let mut waiters = lock_std(WAITERS.get());
        let list = waiters.entry(id).or_default();
        match list.iter_mut().find(|(theirs, _)| *theirs == who) {
            Some((_, theirs)) => Some(std::mem::replace(theirs, waker)),
            None => {
                list.push((who, waker));
                None
            }
        }
    };
    drop(replaced);
}

/// Removes that waiter.
pub(crate) fn leave(id: RowId, who: usize) {
    let left = {
        let mut all = lock_std(WAITERS.get());
        let Some(list) = all.get_mut(&id) else { return };
        let left = list.iter().position(|(theirs, _)| *theirs == who).map(|at| list.swap_remove(at));
        if list.is_empty() {
            all.remove(&id);
        }
        left
    };
    drop(left);
}

/// Takes all waiters of the row, to be woken.
pub(crate) fn take(id: RowId) -> Vec<Waker> {
    let list = lock_std(WAITERS.get()).remove(&id);
    list.into_iter().flatten().map(|(_, waker)| waker).collect()
}
