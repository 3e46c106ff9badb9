//! Why a sink did not take a report.

use std::error::Error;
use std::fmt;

/// Why a sink did not take a report, and whether it is worth trying again.
///
/// With `?`, any error that is `Send + Sync + 'static` becomes one that is worth it: heeler hands the report over again
/// later. Use [`permanent`](Self::permanent) where that would not help.
///
/// Like `anyhow::Error`, it isn't an [`Error`] itself, so that all of these can become one.
///
/// # Example
///
/// ```
/// use heeler::{Report, Sink, SinkError};
///
/// struct Pager;
///
/// impl Sink for Pager {
///     fn name(&self) -> &str {
///         "pager"
///     }
///
///     fn deliver(&self, report: &Report) -> Result<(), SinkError> {
///         let text = report.sentence();
///         if text.len() > 4096 {
///             return Err(SinkError::permanent("too long for a pager"));
///         }
///         std::fs::write("/dev/null", text)?;
///         Ok(())
///     }
/// }
/// ```
pub struct SinkError {
    permanent: bool,
    cause: Box<dyn Error + Send + Sync>,
}

impl SinkError {
    /// Creates an error that may go away: a server is down, busy or slow. The report is handed over again, after
    /// growing pauses, until [`retry_for`](crate::ReportsBuilder::retry_for) is over.
    pub fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: false, cause: cause.into() }
    }

    /// Creates an error that won't go away: this report is refused, and would be again. It is given up and counted as
    /// [`undelivered`](crate::Stats::undelivered).
    pub fn permanent(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { permanent: true, cause: cause.into() }
    }

    /// Returns whether the report is given up.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }

    /// Returns what went wrong, for a sink that passes it on.
    #[must_use]
    pub fn into_cause(self) -> Box<dyn Error + Send + Sync> {
        self.cause
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for SinkError {
    /// Creates an error that is worth trying again.
    fn from(cause: E) -> Self {
        Self::transient(cause)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkError").field("permanent", &self.permanent).field("cause", &self.cause).finish()
    }
}
