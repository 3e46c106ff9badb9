//! What was acquired, and the note that it is held.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use crate::inflight::ResourceId;
use crate::inflight::resources::{Claim, Mode, describe};

/// A guard, a connection or a permit, and the note that it is held, until it drops: see [`acquire`](crate::acquire()).
///
/// It says where it was taken. Where it is now may be somewhere else, for it can be sent to other tasks and stored.
#[must_use = "what is held is released when this is dropped"]
pub struct Held<T> {
    // Dropped in this order: it is held until it is released.
    value: T,
    claim: Option<Claim>,
}

impl<T> Held<T> {
    pub(super) fn new(value: T, claim: Option<Claim>) -> Self {
        Self { value, claim }
    }

    /// Returns what is held. From here on no report says that it is.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Held<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Shows the resource's name and where it was taken. What is held may be a secret.
impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Held");
        if let Some(entry) = self.claim.as_ref().and_then(Claim::entry) {
            f.field("resource", &describe(entry.resource)).field("at", &format_args!("{}", entry.at));
        }
        f.finish_non_exhaustive()
    }
}

/// Outcomes of acquiring something: a guard, or a `Result` with what was acquired.
///
/// The compiler finds out which of the two an outcome is (`Shape`). Guards are types that dereference to what they
/// guard. Something else is neither: wrap it in a `Result`, or use [`wait_for`](crate::wait_for).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a guard nor a `Result`",
    label = "nothing that can be held",
    note = "`heeler::wait_for` names what a future waits for, and returns what it returns"
)]
pub trait Acquired<Shape>: Sized {
    /// The same, held.
    type Held;

    #[doc(hidden)]
    fn hold(self, taking: Taking) -> Self::Held;
}

/// Something is being acquired. Only this crate makes one.
#[doc(hidden)]
#[derive(Debug)]
pub struct Taking {
    pub(super) resource: ResourceId,
    pub(super) mode: Mode,
    pub(super) at: &'static Location<'static>,
    /// The wait for it, if there was one.
    pub(super) wait: Option<Claim>,
}

impl Taking {
    #[inline]
    fn claim(self) -> Option<Claim> {
        match self.wait {
            Some(wait) => {
                wait.take();
                Some(wait)
            }
            None => Claim::hold(self.resource, self.mode, self.at),
        }
    }
}

/// The shape of a guard.
#[doc(hidden)]
#[derive(Debug)]
pub enum Guard {}

impl<T: Deref> Acquired<Guard> for T {
    type Held = Held<T>;

    #[inline]
    fn hold(self, taking: Taking) -> Held<T> {
        Held::new(self, taking.claim())
    }
}

/// The shape of a `Result`.
#[doc(hidden)]
#[derive(Debug)]
pub enum Fallible {}

impl<T, E> Acquired<Fallible> for Result<T, E> {
    type Held = Result<Held<T>, E>;

    #[inline]
    fn hold(self, taking: Taking) -> Result<Held<T>, E> {
        self.map(|value| Held::new(value, taking.claim()))
    }
}
