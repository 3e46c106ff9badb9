//! Access for callers whom the application's own authentication knows.

use std::any::type_name;
use std::fmt;

use http::request::Parts;

use super::authorizer::kinds::Built;
use super::{Access, Authorize, Authorizer};

/// Allows a request whose extensions hold a `T` for which `allow` returns true: the user, the session or the claims
/// from an authenticating layer.
///
/// That layer must be *outside* of heeler's, so that it runs first. With axum, add it after heeler's. A request without
/// a `T` is refused.
///
/// # Example
///
/// ```
/// use heeler::authorize::{Authorizer, extension};
///
/// #[derive(Clone)]
/// struct User { name: String, is_superuser: bool }
///
/// // What one superuser profiles, another one does not see.
/// let authorize = extension::<User>(|user| user.is_superuser).principal(|user| user.name.clone());
/// # let _ = Authorizer::new(authorize);
/// ```
pub fn extension<T: Send + Sync + 'static>(allow: impl Fn(&T) -> bool + Send + Sync + 'static) -> Extension<T> {
    Extension { allow: Box::new(allow), principal: None }
}

/// Allows requests by one of their extensions. Made by [`extension()`].
pub struct Extension<T> {
    allow: Asks<T, bool>,
    principal: Option<Asks<T, String>>,
}

type Asks<T, R> = Box<dyn Fn(&T) -> R + Send + Sync>;

impl<T: Send + Sync + 'static> Extension<T> {
    /// Sets how the caller is named: see [principals](crate::authorize#principals). The closure is only called for
    /// callers with access.
    #[must_use]
    pub fn principal(mut self, name: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.principal = Some(Box::new(name));
        self
    }

    fn ask(&self, parts: &Parts) -> Access {
        match (parts.extensions.get::<T>(), &self.principal) {
            (Some(known), Some(name)) if (self.allow)(known) => Access::allowed_as(name(known)),
            (Some(known), None) => Access::from((self.allow)(known)),
            (Some(_) | None, _) => Access::refused(),
        }
    }
}

impl<T: Send + Sync + 'static> Authorize<Built> for Extension<T> {
    fn into_authorizer(self) -> Authorizer {
        Authorizer::at_once("extension", move |parts| self.ask(parts))
    }
}

impl<T> fmt::Debug for Extension<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extension<{}>", type_name::<T>())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[derive(Clone)]
    struct User {
        name: &'static str,
        is_superuser: bool,
    }

    fn parts(user: Option<User>) -> Parts {
        let mut request = Request::new(());
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        request.into_parts().0
    }

    /// Guards: a request without the extension is refused, and so is one for which the closure returns false. Callers
    /// have a name only if the authorizer names them.
    #[test]
    fn only_an_accepted_extension_is_allowed() {
        let ada = || parts(Some(User { name: "ada", is_superuser: true }));
        let bob = || parts(Some(User { name: "bob", is_superuser: false }));
        let plain = extension::<User>(|user| user.is_superuser);
        assert_eq!(plain.ask(&ada()), Access::allowed());
        let named = extension::<User>(|user| user.is_superuser).principal(|user| user.name.to_owned());
        assert_eq!(named.ask(&ada()), Access::allowed_as("ada"));
        for authorize in [plain, named] {
            assert_eq!(authorize.ask(&bob()), Access::refused());
            assert_eq!(authorize.ask(&parts(None)), Access::refused());
        }
    }
}
