//! Who may profile requests and look at what is in flight.
//!
//! Pages that show the inside of a service ask an authoriser at every single step. There is no default: whoever is not
//! allowed explicitly is refused, and to them the pages do not exist.
//!
//! | authoriser | allows |
//! |---|---|
//! | [`extension`](extension()) | whom your own authentication, in a layer outside, has let in and marked |
//! | [`bearer`](bearer()) | who knows the secret, sent as `Authorization: Bearer` or in a cookie |
//! | [`debug_builds`](debug_builds()) | everybody, in debug builds alone |
//! | a closure or function over [`Parts`] | whom it says; it may be async |
//!
//! # Closures
//!
//! A closure answers with a `bool`, with an `Option<String>` that names who asks, or with an [`Access`]:
//!
//! ```
//! use heeler::authorize::Authorizer;
//! use http::request::Parts;
//!
//! // From inside the cluster only.
//! let inside = Authorizer::new(|parts: &Parts| parts.headers.contains_key("x-internal"));
//!
//! // Whoever a proxy in front has signed in; each sees nothing but their own profiles.
//! let each = Authorizer::new(|parts: &Parts| {
//!     parts.headers.get("x-user")?.to_str().ok().map(str::to_owned)
//! });
//! # let _ = (inside, each);
//! ```
//!
//! An async function or closure does as well, if its future is [`Send`]. What a closure has captured must be cloned for the
//! future, which cannot borrow it:
//!
//! ```
//! use heeler::authorize::Authorizer;
//! use http::request::Parts;
//! # #[derive(Clone)] struct Sessions;
//! # impl Sessions { async fn is_admin(&self, _: Option<http::HeaderValue>) -> bool { true } }
//! # let sessions = Sessions;
//!
//! async fn admin(parts: &Parts) -> bool {
//!     // Ask a database …
//!     parts.headers.contains_key("cookie")
//! }
//! let by_function = Authorizer::new(admin);
//!
//! let by_closure = Authorizer::new(move |parts: &Parts| {
//!     let (sessions, cookie) = (sessions.clone(), parts.headers.get("cookie").cloned());
//!     async move { sessions.is_admin(cookie).await }
//! });
//! # let _ = (by_function, by_closure);
//! ```
//!
//! One that panics refuses; the request goes on as it does for anybody who is not allowed.
//!
//! # Principals
//!
//! A principal is the name of whoever asks: an account, a mail address. What is stored is theirs: with another principal,
//! or with none, it is not to be had, not even by its id. An authoriser that names nobody shares it with all whom it allows.
//! Names are compared byte for byte.
//!
//! [`Parts`]: http::request::Parts

mod access;
mod authorizer;
mod bearer;
mod debug_builds;
mod extension;
mod secret;

pub use access::Access;
pub use authorizer::{Authorize, Authorizer};
pub use bearer::{Bearer, DEFAULT_COOKIE, MIN_SECRET, bearer};
pub use debug_builds::{DebugBuilds, debug_builds};
pub use extension::{Extension, extension};

#[doc(hidden)]
pub use authorizer::kinds;
