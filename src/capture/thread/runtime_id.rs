//! Identifies the tokio runtime that a thread belongs to.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use tokio::runtime::Handle;

/// A runtime of this process, as tokio numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RuntimeId(u64);

impl RuntimeId {
    /// Returns the runtime that this thread is in. `None` if it is in none, and with tokio before 1.49, which does not
    /// tell.
    pub(crate) fn current() -> Option<Self> {
        Self::of(&Handle::try_current().ok()?)
    }

    #[cfg(test)]
    pub(crate) const fn numbered(number: u64) -> Self {
        Self(number)
    }

    /// Returns the id of that runtime. `None` with tokio before 1.49.
    pub(crate) fn of(handle: &Handle) -> Option<Self> {
        // A method of the type takes precedence over one of a trait. So this is `Handle::id` if tokio has it, otherwise
        // `Nameless::id`. The type that it returns cannot be named in either case, but it can be hashed, or it is
        // `Unknown`.
        handle.id().known()
    }
}

/// Supplies `id` for handles of tokio before 1.49.
#[allow(dead_code, reason = "newer versions do not need it")]
trait Nameless {
    fn id(&self) -> Unknown {
        Unknown
    }
}

impl Nameless for Handle {}

/// No id.
struct Unknown;

#[allow(dead_code, reason = "as above")]
impl Unknown {
    fn known(&self) -> Option<RuntimeId> {
        None
    }
}

#[allow(dead_code, reason = "as above")]
trait Known {
    fn known(&self) -> Option<RuntimeId>;
}

impl<T: Hash> Known for T {
    fn known(&self) -> Option<RuntimeId> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Some(RuntimeId(hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    /// Guards: runtimes are distinguished, or are all unknown, depending on the version of tokio.
    #[test]
    fn runtimes_are_told_apart() {
        assert_eq!(RuntimeId::current(), None, "in none");
        let (one, other) = (runtime(), runtime());
        let id = |runtime: &tokio::runtime::Runtime| runtime.block_on(async { RuntimeId::current() });
        assert_eq!(id(&one), id(&one));
        if id(&one).is_some() {
            assert_ne!(id(&one), id(&other));
        }
        assert_eq!(Nameless::id(one.handle()).known(), None, "of an older version");
    }
}
