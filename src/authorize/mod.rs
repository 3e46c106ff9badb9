//! Who may profile requests and look at what is in flight.
//!
//! Pages that show the inside of a service ask an authorizer at every single step. There is no default. Callers without
//! explicit access are refused, and for them the pages do not exist.
//!
//! | authorizer | allows |
//! |---|---|
//! | [`extension`](extension()) | callers whom your own authentication, in an outer layer, has let in and marked |
//! | [`bearer`](bearer()) | callers who know the secret, sent as `Authorization: Bearer` or in a cookie |
//! | [`debug_builds`](debug_builds()) | everybody, but only in debug builds |
//! | a closure or function over [`Parts`] | the callers it accepts; it may be async |
//!
//! # Closures
//!
//! A closure returns a `bool`, an `Option<String>` that names the caller, or an [`Access`]:
//!
//! ```
//! use heeler::authorize::Authorizer;
//! use http::request::Parts;
//!
//! // Operators, as a layer outside has found by their session.
//! #[derive(Clone)]
//! struct Session { roles: Vec<String> }
//!
//! let operators = Authorizer::new(|parts: &Parts| {
//!     parts.extensions.get::<Session>().is_some_and(|session| session.roles.iter().any(|role| role == "operator"))
//! });
//!
//! // Users whom a proxy in front has signed in, if it removes that header from requests from outside. Each sees only
//! // their own profiles.
//! let each = Authorizer::new(|parts: &Parts| {
//!     parts.headers.get("x-user")?.to_str().ok().map(str::to_owned)
//! });
//! # let _ = (operators, each);
//! ```
//!
//! An async function or closure works as well, if its future is [`Send`]. What a closure has captured must be cloned
//! for the future, which cannot borrow it:
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
//! If a closure panics, access is refused. The request goes on as it does for callers without access.
//!
//! # Principals
//!
//! A principal is the name of the caller: an account, a mail address. What callers store belongs to their principal.
//! Callers with another principal, or with none, cannot get it, not even by its id. An authorizer that names nobody
//! shares everything among all callers whom it allows. Names are compared byte for byte.
//!
//! # Gateways
//!
//! An authorizer should recognise a *person* by something that the person has sent. A mark that means "from inside" (an
//! address of the cluster, a client certificate of a service, a header that the gateway adds) tells who passed the
//! request on, not who wants it. A service that passes on requests and adds such a mark lends it to everybody. An
//! outsider whose flag the gateway's own layer ignores could still have the service behind it profiled.
//!
//! - Do not allow access only because of where a request comes from. If that cannot be helped, check `Host` as well: a
//!   page can have an insider's browser ask for anything, under its own name that leads to your address (DNS
//!   rebinding).
//! - A service that passes requests on removes the flag, from the URL and from the headers.
//!   [`DeadlineLayer`](crate::DeadlineLayer) does so for each call of the client that it wraps.
//!   [`ProfileLayer::strip_refused`](crate::ProfileLayer::strip_refused) does so for incoming requests.
//! - A reverse proxy in front does so for everybody from outside. For nginx:
//!
//! ```text
//! proxy_set_header x-geordi "";
//! if ($args ~ "^(|.*&)__geordi__(?:=[^&]*)?(|&.*)$") { set $args $1$2; }
//! # More than once: nobody means well by that.
//! if ($args ~ "(^|&)__geordi__(=|&|$)") { return 400; }
//! ```
//!
//! # Browsers
//!
//! A browser sends cookies, passwords of Basic authentication, certificates and its address along, no matter which page
//! made it ask. See [starting a profile](crate::profile#starting-a-profile) for what that means for profiles. heeler
//! itself sets no cookie. A cookie that lets somebody in should be `Secure; HttpOnly; SameSite=Strict`.
//!
//! [`Parts`]: http::request::Parts

mod access;
mod authorizer;
mod bearer;
mod debug_builds;
mod extension;
#[cfg_attr(not(feature = "profile"), allow(dead_code, reason = "the console needs a part of it"))]
pub(crate) mod intent;
mod secret;

pub use access::Access;
pub use authorizer::{Authorize, Authorizer};
pub use bearer::{Bearer, DEFAULT_COOKIE, MIN_SECRET, bearer};
pub use debug_builds::{DebugBuilds, debug_builds};
pub use extension::{Extension, extension};

#[doc(hidden)]
pub use authorizer::kinds;
