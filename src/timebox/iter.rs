//! Iterators that end with their box.

use std::iter::FusedIterator;

use super::{Interrupted, checkpoint};

/// Adds [`timeboxed`](Self::timeboxed) to every iterator.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use heeler::timebox::{self, Interrupted, TimeboxedIterator as _};
///
/// let sum = timebox::blocking(Duration::from_secs(5), || {
///     let mut sum = 0;
///     for number in (1..=100).timeboxed() {
///         sum += number?;
///     }
///     Ok::<_, Interrupted>(sum)
/// })?;
/// assert_eq!(sum, 5050);
/// # Ok::<(), Interrupted>(())
/// ```
pub trait TimeboxedIterator: Iterator {
    /// Returns the same items, as long as the box around has not expired.
    ///
    /// There is a [`checkpoint`](crate::checkpoint) before each item. Once it fails, its [`Interrupted`] is the last
    /// item. No item is taken and lost. Outside any box all items come.
    fn timeboxed(self) -> Timeboxed<Self>
    where
        Self: Sized,
    {
        Timeboxed { items: self, ended: false }
    }
}

impl<I: Iterator> TimeboxedIterator for I {}

/// The iterator of [`TimeboxedIterator::timeboxed`].
#[derive(Debug, Clone)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Timeboxed<I> {
    items: I,
    ended: bool,
}

impl<I: Iterator> Iterator for Timeboxed<I> {
    type Item = Result<I::Item, Interrupted>;

    #[inline]
    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if let Err(interrupted) = checkpoint() {
            self.ended = true;
            return Some(Err(interrupted));
        }
        let item = self.items.next();
        self.ended = item.is_none();
        item.map(Ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended {
            return (0, Some(0));
        }
        // At least the error, if there are items left. It may also come after all items.
        let (least, most) = self.items.size_hint();
        (least.min(1), most.and_then(|most| most.checked_add(1)))
    }
}

impl<I: Iterator> FusedIterator for Timeboxed<I> {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::timebox::blocking;

    /// Guards: outside a timebox, and inside one with time, nothing is added or lost.
    #[test]
    fn all_items_in_time_pass() {
        let all = |()| (1..=5).timeboxed().collect::<Result<Vec<_>, Interrupted>>();
        assert_eq!(all(()).unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(blocking(Duration::from_secs(3_600), || all(())).unwrap(), [1, 2, 3, 4, 5]);
    }

    /// Guards: one error, then nothing. The items that were not asked for stay in the iterator.
    #[test]
    fn the_interruption_is_the_last_item() {
        let mut source = 1..=5;
        blocking(Duration::from_millis(20), || {
            let mut items = source.by_ref().timeboxed();
            assert_eq!(items.next().unwrap().unwrap(), 1);
            while checkpoint().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(items.next().unwrap().is_err());
            assert_eq!(items.size_hint(), (0, Some(0)));
            assert!(items.next().is_none() && items.next().is_none());
            Ok::<(), Interrupted>(())
        })
        .unwrap();
        assert_eq!(source.collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    /// Guards: the hint holds for what may come, and the source is not asked again after its end.
    #[test]
    fn size_hints_allow_for_an_early_end() {
        assert_eq!((0..5).timeboxed().size_hint(), (1, Some(6)));
        assert_eq!((0..0).timeboxed().size_hint(), (0, Some(1)));
        assert_eq!((0..).timeboxed().size_hint(), (1, None));
        let mut calls = 0;
        // Not fused itself: it goes on after its first end.
        let mut items = std::iter::from_fn(|| {
            calls += 1;
            (calls % 2 == 1).then_some(calls)
        })
        .timeboxed();
        assert_eq!(items.next().unwrap().unwrap(), 1);
        assert!(items.next().is_none() && items.next().is_none());
        assert_eq!(items.size_hint(), (0, Some(0)));
        drop(items);
        assert_eq!(calls, 2);
    }
}
