//! Why there is no file.

use std::fmt;

use crate::profile::form::Form;

/// A profile is not available in the requested form. In words for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// The form needs a feature of the crate that this build lacks.
    Missing { form: Form, feature: &'static str },
    /// The profile does not fit the form.
    Failed { form: Form, problem: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { form, feature } => {
                write!(f, "this program is built without heeler's feature `{feature}`, which `{form}` needs")
            }
            Self::Failed { form, problem } => write!(f, "the profile cannot be written as `{form}`: {problem}"),
        }
    }
}

impl std::error::Error for Error {}
