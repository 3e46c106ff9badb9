//! Everybody, while developing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::authorizer::kinds::Built;
use super::{Access, Authorize, Authorizer};
use crate::log::log_safely;

/// Allows everybody in a build with debug assertions, and nobody in any other: for a developer's own machine.
///
/// Nothing else is asked, least of all from where: behind a proxy or in a container every peer looks local, and a page of
/// somebody else's can make the developer's own browser call `localhost`. So whoever reaches a debug build can profile its
/// requests and read what they answer. The log says so once, as it says once in a release build that nobody is allowed.
///
/// What counts is how heeler was compiled: with `debug-assertions = true` in the profile, as `dev` and `test` have it.
///
/// After geordi's middleware, which asks Django's `DEBUG`.
///
/// # Example
///
/// ```
/// use heeler::authorize::{Authorizer, debug_builds};
///
/// let authorize = Authorizer::new(debug_builds());
/// ```
#[must_use]
pub const fn debug_builds() -> DebugBuilds {
    DebugBuilds { _private: () }
}

/// Allows everybody in debug builds. Made by [`debug_builds()`].
#[derive(Debug, Clone, Copy)]
pub struct DebugBuilds {
    _private: (),
}

impl Authorize<Built> for DebugBuilds {
    fn into_authorizer(self) -> Authorizer {
        static SAID: AtomicBool = AtomicBool::new(false);
        if !SAID.swap(true, Ordering::Relaxed) {
            log_safely(|| {
                if cfg!(debug_assertions) {
                    tracing::warn!(target: "heeler", "a debug build: everybody may profile its requests and look at what is in flight");
                } else {
                    tracing::warn!(target: "heeler", "not a debug build: `authorize::debug_builds` allows nobody");
                }
            });
        }
        Authorizer::at_once("debug_builds", |_| Access::from(cfg!(debug_assertions)))
    }
}
