//! Where reports about a piece of work go. Only the report floor knows what that is.

use std::any::Any;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// What this floor and the monitor need of a target.
pub(crate) trait Target: Any + Send + Sync {
    /// Counts a capture that was due and not taken, because the budget was used up or the work ended first.
    fn count_not_captured(&self);
    /// Notes that a capture that was counted as not taken has been taken later.
    fn count_captured_after_all(&self);
    /// Returns how many captures were not taken since the last call.
    fn take_not_captured(&self) -> u64;
}

/// Clones are the same target.
#[derive(Clone)]
pub(crate) struct ReportTarget(Arc<dyn Target>);

// As in `Reports`, what is inside is valid after every single statement.
impl UnwindSafe for ReportTarget {}
impl RefUnwindSafe for ReportTarget {}

impl ReportTarget {
    pub(crate) fn new(target: Arc<impl Target>) -> Self {
        Self(target)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns what it was made of.
    pub(crate) fn downcast<T: Target>(&self) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&self.0) as _;
        any.downcast().ok()
    }
}

impl std::ops::Deref for ReportTarget {
    type Target = dyn Target;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for ReportTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportTarget")
    }
}
