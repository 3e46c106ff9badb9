//! Tells whether two copied stacks are of the same place, at the speed of a traced poll.
//!
//! Between its frames, a copy has words that earlier calls have left. They differ from poll to poll, so only the return
//! addresses of the frames count. Where those are is found by unwinding, once per place and thread. From then on a copy
//! with the same addresses at the same positions unwinds in the same way, and is known to be of that place.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

use super::fork::PerProcess;
use super::snapshot::Registers;
use super::unwind::Unwinder;
use crate::sync::lock_std;

/// How many places a thread knows. Beyond that, those that it hasn't seen for longest are unwound again.
const MAX_KNOWN: usize = 192;
/// After unwinding has failed, up to this many copies are not unwound. What the tables don't describe costs little.
const MAX_PAUSE: u32 = 1024;

/// Positions and return addresses, innermost first.
type Returns = Box<[(u32, u64)]>;

/// A place: what a copy of it looks like, and its key.
struct Known {
    /// Where the callback was, and how many words the copy has.
    shape: (u64, usize),
    returns: Returns,
    key: u64,
}

/// What one thread knows, with the place that it saw last at the front.
struct Places {
    known: Vec<Known>,
    /// How many copies are left out before unwinding is tried again, and the length of the next pause.
    pause: (u32, u32),
}

thread_local! {
    static PLACES: Cell<Option<Box<Places>>> = const { Cell::new(None) };
}

/// One for all threads. Nobody waits for it.
static UNWINDER: PerProcess<Mutex<Option<Unwinder>>> = PerProcess::new(Mutex::default);

/// Whether something could not be unwound since the last refresh.
static STALE: AtomicBool = AtomicBool::new(true);

/// Notices what was loaded since something could not be unwound. Called by threads of heeler's own, now and then.
pub(crate) fn refresh_places() {
    if !STALE.swap(false, Ordering::Relaxed) {
        return;
    }
    // Others do without meanwhile.
    lock_std(UNWINDER.get()).get_or_insert_with(Unwinder::new).refresh();
}

/// Returns a hash of the return addresses of a whole copy, taken on the thread's own stack. `None` if they aren't known:
/// something has no tables, or another thread is unwinding.
pub(super) fn key(registers: &Registers, words: &[u64]) -> Option<u64> {
    // A thread that ends has none any more.
    let taken = PLACES.try_with(Cell::take).ok()?;
    let mut places = taken.unwrap_or_else(|| Box::new(Places { known: Vec::new(), pause: (0, 1) }));
    let key = places.key(registers, words, unwind);
    let _ = PLACES.try_with(|kept| kept.set(Some(places)));
    key
}

/// Unwinds, if no other thread does. `Err` if one does.
fn unwind(registers: &Registers, words: &[u64]) -> Result<Option<Returns>, ()> {
    let mut unwinder = match UNWINDER.get().try_lock() {
        Ok(unwinder) => unwinder,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(()),
    };
    // Neither made nor refreshed here: that takes the loader's lock, which a library that is being loaded may hold for
    // any time.
    let found = unwinder.as_mut().map(|unwinder| unwinder.return_addresses(registers, words));
    if !matches!(found, Some(Some(_))) {
        // There is none yet, as in a child of `fork`, or a library has been loaded since.
        STALE.store(true, Ordering::Relaxed);
    }
    let found = found.ok_or(())?;
    Ok(found.map(Vec::into_boxed_slice))
}

impl Places {
    fn key(
        &mut self,
        registers: &Registers,
        words: &[u64],
        unwind: impl FnOnce(&Registers, &[u64]) -> Result<Option<Returns>, ()>,
    ) -> Option<u64> {
        let shape = (registers.pc, words.len());
        let is_there = |(at, address): &(u32, u64)| words.get(*at as usize) == Some(address);
        let same = |known: &Known| known.shape == shape && known.returns.iter().all(is_there);
        if let Some(at) = self.known.iter().position(same) {
            let key = self.known[at].key;
            // What is seen often is found early.
            self.known.swap(at, at / 2);
            return Some(key);
        }
        if self.pause.0 > 0 {
            self.pause.0 -= 1;
            return None;
        }
        let Some(returns) = unwind(registers, words).ok()? else {
            self.pause = (self.pause.1, (self.pause.1 * 2).min(MAX_PAUSE));
            return None;
        };
        self.pause = (0, 1);
        let key = returns.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, (_, address)| {
            (hash.rotate_left(5) ^ address).wrapping_mul(0x517c_c1b7_2722_0a95)
        });
        let key = key ^ key >> 29;
        self.known.truncate(MAX_KNOWN - 1);
        // Not last, because then two new places would replace each other.
        self.known.insert(self.known.len() / 2, Known { shape, returns, key });
        Some(key)
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;

    fn places() -> Places {
        Places { known: Vec::new(), pause: (0, 1) }
    }

    fn registers(pc: u64) -> Registers {
        Registers { pc, ..Registers::default() }
    }

    /// Unwinds a copy whose frames are at these positions.
    fn frames_at<const N: usize>(positions: [u32; N]) -> impl Fn(&Registers, &[u64]) -> Result<Option<Returns>, ()> {
        move |_, words| Ok(Some(positions.map(|at| (at, words[at as usize])).into()))
    }

    fn not_again(_: &Registers, _: &[u64]) -> Result<Option<Returns>, ()> {
        panic!("it is known")
    }

    /// Guards: what earlier calls have left between the frames doesn't count. The frames do.
    #[test]
    fn stale_words_make_no_place() {
        let mut places = places();
        let first = places.key(&registers(1), &[10, 0, 20, 0], frames_at([0, 2])).unwrap();
        assert_eq!(places.key(&registers(1), &[10, 77, 20, 99], not_again), Some(first));
        let other = places.key(&registers(1), &[10, 77, 21, 99], frames_at([0, 2])).unwrap();
        assert_ne!(first, other);
        let shifted = places.key(&registers(1), &[10, 0, 0, 20, 0], frames_at([0, 3]));
        assert_eq!(shifted, Some(first), "the same frames, one of which is aligned in another way");
        let through_another = places.key(&registers(2), &[10, 0, 20, 0], frames_at([0, 2]));
        assert_eq!(through_another, Some(first), "the callback is not a part of the place");
    }

    /// Guards: what a thread knows is bounded, and what cannot be unwound isn't tried at every poll.
    #[test]
    fn places_are_bounded() {
        let mut places = places();
        for address in 0..3 * MAX_KNOWN as u64 {
            assert!(places.key(&registers(1), &[address], frames_at([0])).is_some());
        }
        assert_eq!(places.known.len(), MAX_KNOWN);
        let mut tries = 0;
        for _ in 0..10_000 {
            let key = places.key(&registers(9), &[1, 2], |_, _| {
                tries += 1;
                Ok(None)
            });
            assert_eq!(key, None);
        }
        assert!((5..40).contains(&tries), "{tries}");
        places.pause.0 = 0;
        assert!(places.key(&registers(9), &[1, 2], frames_at([0])).is_some());
        assert_eq!(places.key(&registers(9), &[3, 2], |_, _| Err(())), None, "another thread unwinds");
        assert!(places.key(&registers(9), &[3, 2], frames_at([0])).is_some(), "that is no failure");
    }
}
