//! Access for everybody during development.

use std::sync::atomic::{AtomicBool, Ordering};

use super::authorizer::kinds::Built;
use super::{Access, Authorize, Authorizer};
use crate::log::log_safely;

/// Allows everybody in a build with debug assertions, and nobody in any other. It is for a developer's own machine.
///
/// It checks nothing else, least of all where a request comes from. Behind a proxy or in a container every peer looks
/// local, and somebody else's page can make the developer's own browser call `localhost`. So anybody who reaches a
/// debug build can profile its requests and read the responses. The log says so once. In a release build it says once
/// that nobody is allowed.
///
/// What counts is how heeler was compiled: with `debug-assertions = true` in the profile, as in `dev` and `test`.
///
/// After geordi's middleware, which checks Django's `DEBUG`.
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
