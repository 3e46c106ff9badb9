//! Acquiring something, and waiting for something, under a name.

use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::held::{Acquired, Taking};
use crate::inflight::ResourceId;
use crate::inflight::resources::{Claim, Mode};

pin_project! {
    /// The future returned by [`acquire`] and [`acquire_shared`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Acquire<F, Shape> {
        #[pin]
        wait: WaitFor<F>,
        shape: PhantomData<fn() -> Shape>,
    }
}

pin_project! {
    /// The future returned by [`wait_for`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitFor<F> {
        // Dropped in this order: it waits as long as it is queued.
        #[pin]
        inner: F,
        claim: Option<Claim>,
        resource: ResourceId,
        mode: Mode,
        at: &'static Location<'static>,
    }
}

/// Acquires something that the application shares, and says so: while `future` is pending, the current work waits for
/// `resource`. What it returns is held until it drops.
///
/// A report about work that waits for it then says who holds it, since when, taken at which line, and where that
/// holder is now. If it is held by work that in turn waits for what this one holds, the report calls it a deadlock.
///
/// `future` returns a guard, or a `Result`: [`Held`](crate::Held) is then in the `Ok`.
///
/// ```
/// # #[derive(Default)]
/// # struct Pool;
/// # impl Pool { async fn acquire(&self) -> Result<u32, std::io::Error> { Ok(7) } }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::io::Error> {
/// # let (pool, lock) = (Pool::default(), tokio::sync::Mutex::new(7));
/// let connection = heeler::acquire("invoice pool", pool.acquire()).await?;
/// let mut token = heeler::acquire("token", lock.lock()).await;
/// **token += *connection;
/// # Ok(())
/// # }
/// ```
///
/// A bare name is the least that helps. A [`Resource`](crate::Resource) beside what it guards, or a name with a key, says
/// *which* lock or pool it is: see [`ResourceId`](crate::ResourceId).
///
/// Without contention it costs some thirty nanoseconds, and no allocation. It takes no lock that two workers share.
#[track_caller]
pub fn acquire<F, Shape>(resource: impl Into<ResourceId>, future: F) -> Acquire<F, Shape>
where
    F: Future<Output: Acquired<Shape>>,
{
    Acquire { wait: WaitFor::new(resource.into(), Mode::Exclusive, future), shape: PhantomData }
}

/// Acquires something as [`acquire`] does, that several readers can hold at a time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let rates = (heeler::Resource::new("rates"), tokio::sync::RwLock::new(1.08));
/// let rate = heeler::acquire_shared(&rates.0, rates.1.read()).await;
/// # assert_eq!(**rate, 1.08);
/// # }
/// ```
#[track_caller]
pub fn acquire_shared<F, Shape>(resource: impl Into<ResourceId>, future: F) -> Acquire<F, Shape>
where
    F: Future<Output: Acquired<Shape>>,
{
    Acquire { wait: WaitFor::new(resource.into(), Mode::Shared, future), shape: PhantomData }
}

/// Acquires something as [`acquire`] does, on a thread that may block.
///
/// ```
/// let ledger = std::sync::Mutex::new(vec![4711]);
/// let list = heeler::acquire_blocking("ledger", || ledger.lock()).expect("nobody has panicked");
/// assert_eq!(list.len(), 1);
/// ```
#[track_caller]
pub fn acquire_blocking<T, Shape>(resource: impl Into<ResourceId>, f: impl FnOnce() -> T) -> T::Held
where
    T: Acquired<Shape>,
{
    let (resource, mode, at) = (resource.into(), Mode::Exclusive, Location::caller());
    let wait = Claim::wait(resource, mode, at, true);
    let taken = f();
    taken.hold(Taking { resource, mode, at, wait })
}

/// Names what a future waits for. Returns what the future returns, and holds nothing.
///
/// This is for what others compute or deliver: a value that is initialized once, an answer that work of another kind
/// gives. See [`initialize`](crate::initialize) for the other side.
#[track_caller]
pub fn wait_for<F: Future>(resource: impl Into<ResourceId>, future: F) -> WaitFor<F> {
    WaitFor::new(resource.into(), Mode::Shared, future)
}

impl<F> WaitFor<F> {
    #[inline]
    #[track_caller]
    fn new(resource: ResourceId, mode: Mode, inner: F) -> Self {
        Self { inner, claim: None, resource, mode, at: Location::caller() }
    }
}

impl<F: Future> Future for WaitFor<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = this.inner.poll(cx);
        if result.is_pending() {
            match this.claim {
                Some(claim) => claim.polled(),
                None => *this.claim = Claim::wait(*this.resource, *this.mode, this.at, false),
            }
        }
        result
    }
}

impl<F, Shape> Future for Acquire<F, Shape>
where
    F: Future<Output: Acquired<Shape>>,
{
    type Output = <F::Output as Acquired<Shape>>::Held;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = this.wait.as_mut().poll(cx);
        let wait = this.wait.project();
        let (resource, mode, at) = (*wait.resource, *wait.mode, *wait.at);
        result.map(|taken| taken.hold(Taking { resource, mode, at, wait: wait.claim.take() }))
    }
}

impl<F: std::fmt::Debug, Shape> std::fmt::Debug for Acquire<F, Shape> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire").field("wait", &self.wait).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

    use super::*;
    use crate::Held;

    /// Guards: one function for guards and for results, without annotations.
    #[tokio::test]
    async fn guards_and_results_are_acquired_alike() {
        let (lock, semaphore) = (std::sync::Arc::new(Mutex::new(1)), Semaphore::new(1));
        let guard = acquire("lock", lock.lock()).await;
        assert_eq!(**guard, 1);
        drop(guard);
        let owned: Held<OwnedMutexGuard<i32>> = acquire("lock", lock.clone().lock_owned()).await;
        let mut inner = owned.into_inner();
        *inner += 1;
        let permit = acquire("permits", semaphore.acquire()).await.expect("it is open");
        assert_eq!(semaphore.available_permits(), 0);
        drop(permit);
        assert_eq!(semaphore.available_permits(), 1);
        semaphore.close();
        assert!(acquire("permits", semaphore.acquire()).await.is_err());
        let blocking = std::sync::Mutex::new(5);
        let five = acquire_blocking("blocking", || blocking.lock()).expect("no panic");
        assert_eq!(**five, 5);
        assert_eq!(format!("{five:?}").matches("blocking").count(), 1, "{five:?}");
    }
}
