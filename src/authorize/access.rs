//! An authoriser's answer.

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

    /// They may, whoever they are.
    #[must_use]
    pub const fn allowed() -> Self {
        Self { answer: Answer::Allowed }
    }

    /// They may, and what they make is theirs: see [principals](crate::authorize#principals).
    #[must_use]
    pub fn allowed_as(principal: impl Into<String>) -> Self {
        Self { answer: Answer::AllowedAs(principal.into()) }
    }

    /// Whether they may.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        !matches!(self.answer, Answer::Refused)
    }

    /// Who they are, if they may and the authoriser has said it.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        match &self.answer {
            Answer::AllowedAs(principal) => Some(principal),
            Answer::Allowed | Answer::Refused => None,
        }
    }
}

impl fmt::Debug for Access {
    /// Does not say who it is.
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
