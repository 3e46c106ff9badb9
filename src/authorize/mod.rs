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
//! // Operators, as a layer outside has found by their session.
//! #[derive(Clone)]
//! struct Session { roles: Vec<String> }
//!
//! let operators = Authorizer::new(|parts: &Parts| {
//!     parts.extensions.get::<Session>().is_some_and(|session| session.roles.iter().any(|role| role == "operator"))
//! });
//!
//! // Whoever a proxy in front has signed in, if it takes that header out of what comes from outside; each sees nothing but
//! // their own profiles.
//! let each = Authorizer::new(|parts: &Parts| {
//!     parts.headers.get("x-user")?.to_str().ok().map(str::to_owned)
//! });
//! # let _ = (operators, each);
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
//! # Gateways
//!
//! An authoriser is to recognise a *person*, by something that the person has sent. A mark that says "from inside" (an address
//! of the cluster, a client certificate of a service, a header that the gateway adds) says who passed the request on, and not
//! who wants it. A service that passes on what it is asked for and adds such a mark lends it to everybody: an outsider
//! whose flag the gateway's own layer ignores has the service behind it profiled all the same.
//!
//! - Do not let in by where a request comes from alone. If that cannot be helped, check `Host` as well: a page can have the
//!   browser of somebody inside ask for anything, by a name of its own that leads to your address (DNS rebinding).
//! - What passes requests on takes the flag out, in the URL and as a header. [`DeadlineLayer`](crate::DeadlineLayer) does so
//!   for each call of the client that it is around. [`ProfileLayer::strip_refused`](crate::ProfileLayer::strip_refused) does
//!   so for requests that come in.
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
//! A browser sends cookies, passwords of Basic authentication, certificates and its address along whoever has made it ask. For
//! what that means for profiles see [starting one](crate::profile#starting-a-profile). heeler itself sets no cookie. One
//! that lets somebody in should be `Secure; HttpOnly; SameSite=Strict`.
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
