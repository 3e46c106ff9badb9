//! The forms in which a profile is available.

use std::fmt;
use std::str::FromStr;

/// A form of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Svg,
    Html,
    Pprof,
    Folded,
    Speedscope,
    Firefox,
    Json,
    Dot,
    Pdf,
}

impl Form {
    pub(crate) const ALL: [Self; 9] = [
        Self::Svg,
        Self::Html,
        Self::Pprof,
        Self::Folded,
        Self::Speedscope,
        Self::Firefox,
        Self::Json,
        Self::Dot,
        Self::Pdf,
    ];

    /// Returns the name, as in the URL.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Html => "html",
            Self::Pprof => "pprof",
            Self::Folded => "folded",
            Self::Speedscope => "speedscope",
            Self::Firefox => "firefox",
            Self::Json => "json",
            Self::Dot => "dot",
            Self::Pdf => "pdf",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Form {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|form| form.name() == text).ok_or(())
    }
}
