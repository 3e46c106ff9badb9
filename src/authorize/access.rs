//! An authorizer's answer.

use std::fmt;

/// Whether a caller has access, and who the caller is.
///
/// # Example
///
/// ```
/// use heeler::authorize::Access;
///
/// assert!(!Access::refused().is_allowed());
/// assert!(Access::allowed().is_allowed());
/// assert_eq!(Access::allowed_as("ada").principal(), Some("ada"));
/// assert_eq!(Access::from(Some("ada".to_owned())), Access::allowed_as("ada"));
/// assert_eq!(Access::from(false), Access::default());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    answer: Answer,
}

#[derive(Clone, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Refused,
    Allowed,
    AllowedAs(String),
}

impl Access {
    /// Refuses access. The default.
    #[must_use]
    pub const fn refused() -> Self {
        Self { answer: Answer::Refused }
    }

    /// Allows access without naming the caller.
    #[must_use]
    pub const fn allowed() -> Self {
        Self { answer: Answer::Allowed }
    }

    /// Allows access as `principal`, who owns what the caller makes: see [principals](crate::authorize#principals).
    #[must_use]
    pub fn allowed_as(principal: impl Into<String>) -> Self {
        Self { answer: Answer::AllowedAs(principal.into()) }
    }

    /// Returns whether the caller has access.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        !matches!(self.answer, Answer::Refused)
    }

    /// Returns the caller's name, if the caller has access and the authorizer has named them.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        match &self.answer {
            Answer::AllowedAs(principal) => Some(principal),
            Answer::Allowed | Answer::Refused => None,
        }
    }
}

impl fmt::Debug for Access {
    /// Doesn't show the caller's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.answer {
            Answer::Refused => "Access(refused)",
            Answer::Allowed => "Access(allowed)",
            Answer::AllowedAs(_) => "Access(allowed as ..)",
        })
    }
}

impl From<bool> for Access {
    fn from(allowed: bool) -> Self {
        if allowed { Self::allowed() } else { Self::refused() }
    }
}

impl From<Option<String>> for Access {
    fn from(principal: Option<String>) -> Self {
        principal.map_or_else(Self::refused, Self::allowed_as)
    }
}
