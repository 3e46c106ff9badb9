//! Access for callers who know a secret.

use std::fmt;

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;

use super::authorizer::kinds::Built;
use super::secret::Secret;
use super::{Access, Authorize, Authorizer};
use crate::error::{Error, Result};

pub use super::secret::MIN_SECRET;

/// The cookie that carries the secret unless [another one](Bearer::cookie) is named.
pub const DEFAULT_COOKIE: &str = "heeler_token";

/// Allows callers who send `secret`, either as `Authorization: Bearer <secret>` or in the cookie [`DEFAULT_COOKIE`].
///
/// The secret is compared in constant time. It names nobody: all who know it share what they make.
///
/// A browser sends the header only if something makes it do so. For a person a cookie is easier, set by hand in the
/// developer tools or by a page of yours that signs people in. Such a page should set it
/// `HttpOnly; Secure; SameSite=Strict`. With a cookie, somebody else's page may ask, too, so the profiler
/// [makes sure](crate::profile#starting-a-profile).
///
/// # Errors
///
/// If the secret is empty, shorter than [`MIN_SECRET`] or longer than 256 bytes, or if it has other characters than
/// visible ASCII without `"`, `,`, `;` and `\`, so that a header or a cookie could not carry it as it is. The
/// [error](Error::is_config) does not quote it.
///
/// # Example
///
/// ```
/// use heeler::authorize::bearer;
///
/// # fn main() -> Result<(), heeler::Error> {
/// # let token = "4b0f7a2c9d3e4f5a8b6c".to_owned();
/// // let token = std::env::var("ADMIN_TOKEN").unwrap_or_default();
/// let authorize = bearer(token)?.cookie("admin")?;
///
/// assert!(bearer("").is_err());
/// assert!(bearer("hunter2").is_err());
/// # let _ = authorize;
/// # Ok(())
/// # }
/// ```
pub fn bearer(secret: impl AsRef<str>) -> Result<Bearer, Error> {
    Ok(Bearer { secret: Secret::new(secret.as_ref())?, cookie: Some(DEFAULT_COOKIE.to_owned()) })
}

/// Allows callers who know a secret. Made by [`bearer()`].
pub struct Bearer {
    secret: Secret,
    cookie: Option<String>,
}

impl Bearer {
    /// Reads the secret from the cookie `name` instead of [`DEFAULT_COOKIE`].
    ///
    /// # Errors
    ///
    /// If a cookie cannot have that name.
    pub fn cookie(mut self, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        // A cookie's name is a token, as a header's name is (RFC 6265, 4.1.1).
        if name.parse::<http::HeaderName>().is_err() {
            return Err(Error::config("the cookie of `authorize::bearer` has a name that no cookie can have"));
        }
        self.cookie = Some(name);
        Ok(self)
    }

    /// Reads the secret from the header only, never from a cookie.
    #[must_use]
    pub fn header_only(mut self) -> Self {
        self.cookie = None;
        self
    }

    fn allows(&self, parts: &Parts) -> bool {
        let in_header = parts.headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer_token(value.as_bytes()));
        // A browser sends one such header, but HTTP/2 may split it.
        let cookies = parts.headers.get_all(COOKIE).iter().filter(|_| self.cookie.is_some());
        let in_cookies = cookies.flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
        let in_cookies = in_cookies.filter_map(|pair| cookie_value(pair, self.cookie.as_deref()?));
        in_header.chain(in_cookies).any(|said| self.secret.is(said).into())
    }
}

/// Returns what comes after `Bearer `.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && token.first() == Some(&b' ')).then(|| token.trim_ascii())
}

/// Returns what comes after `name=`, without quotes.
fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

impl Authorize<Built> for Bearer {
    fn into_authorizer(self) -> Authorizer {
        Authorizer::at_once("bearer", move |parts| Access::from(self.allows(parts)))
    }
}

impl fmt::Debug for Bearer {
    /// Doesn't show the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SECRET: &str = "4b0f7a2c9d3e4f5a8b6c";

    fn allows(bearer: &Bearer, headers: &[(&str, &str)]) -> bool {
        let request = headers.iter().fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
        bearer.allows(&request.body(()).unwrap().into_parts().0)
    }

    /// Guards: the secret is accepted in each of its places, and nothing else is accepted anywhere.
    #[test]
    fn only_the_secret_is_allowed() {
        let bearer = bearer(SECRET).unwrap();
        let right = [
            ("authorization", format!("Bearer {SECRET}")),
            ("authorization", format!("bearer   {SECRET} ")),
            ("cookie", format!("heeler_token={SECRET}")),
            ("cookie", format!("a=b; heeler_token={SECRET}; c=d")),
            ("cookie", format!("heeler_token=old;heeler_token=\"{SECRET}\"")),
        ];
        for (name, value) in &right {
            assert!(allows(&bearer, &[(name, value)]), "{name}: {value}");
        }
        let wrong = [
            ("authorization", String::new()),
            ("authorization", "Bearer".into()),
            ("authorization", "Bearer ".into()),
            ("authorization", SECRET.into()),
            ("authorization", format!("Bearer{SECRET}")),
            ("authorization", format!("Basic {SECRET}")),
            ("authorization", format!("Bearer {}", &SECRET[1..])),
            ("authorization", format!("Bearer {}", &SECRET[..19])),
            ("authorization", format!("Bearer {SECRET}0")),
            ("authorization", format!("Bearer {}", SECRET.to_uppercase())),
            ("authorization", format!("Bearer {SECRET}{}", "0".repeat(10_000))),
            ("cookie", format!("token={SECRET}")),
            ("cookie", format!("xheeler_token={SECRET}")),
            ("cookie", format!("heeler_token{SECRET}")),
            ("cookie", format!("heeler_token=\"{SECRET}")),
            ("cookie", format!("HEELER_TOKEN={SECRET}")),
            ("x-authorization", format!("Bearer {SECRET}")),
        ];
        for (name, value) in &wrong {
            assert!(!allows(&bearer, &[(name, value)]), "{name}: {value}");
        }
        assert!(!allows(&bearer, &[]));
        // One of two headers is enough.
        assert!(allows(&bearer, &[("authorization", "Basic x"), ("cookie", "a=b"), (right[2].0, &right[2].1)]));
    }

    /// Guards: a secret that differs in any byte is refused.
    #[test]
    fn every_byte_counts() {
        let bearer = bearer(SECRET).unwrap();
        for at in 0..SECRET.len() {
            let mut other = SECRET.as_bytes().to_vec();
            other[at] ^= 1;
            assert!(!allows(&bearer, &[("authorization", &format!("Bearer {}", String::from_utf8(other).unwrap()))]));
        }
    }

    #[test]
    fn the_cookie_can_be_renamed_or_disabled() {
        let (cookie, header) = (format!("admin={SECRET}"), format!("Bearer {SECRET}"));
        let other = bearer(SECRET).unwrap().cookie("admin").unwrap();
        assert!(allows(&other, &[("cookie", &cookie)]));
        assert!(!allows(&other, &[("cookie", &format!("{DEFAULT_COOKIE}={SECRET}"))]));
        let none = bearer(SECRET).unwrap().header_only();
        assert!(!allows(&none, &[("cookie", &format!("{DEFAULT_COOKIE}={SECRET}"))]));
        assert!(allows(&none, &[("authorization", &header)]));
        for name in ["", "a b", "a=b", "a;b", "ä"] {
            assert!(bearer(SECRET).unwrap().cookie(name).unwrap_err().is_config(), "{name:?}");
        }
    }

    /// Guards: an unusable secret is an error, and neither messages nor `Debug` show any part of a secret.
    #[test]
    fn bad_secrets_are_errors() {
        for (secret, why) in [
            ("", "empty"),
            ("fifteen-bytes-!", "shorter"),
            ("sixteen bytes...", "characters"),
            ("sixteen-bytes..\n", "characters"),
            ("sixteen-bytes..;", "characters"),
            ("sixteen-byteß..", "characters"),
            (&"x".repeat(257), "longer"),
        ] {
            let error = bearer(secret).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{secret:?}: {error}");
            assert!(secret.is_empty() || !format!("{error:?}").contains(secret));
        }
        for secret in ["sixteen-bytes...", &"x".repeat(256)] {
            assert!(allows(&bearer(secret).unwrap(), &[("authorization", &format!("Bearer {secret}"))]));
        }
        assert!(!format!("{:?} {:?}", bearer(SECRET), bearer(SECRET).unwrap().into_authorizer()).contains("4b0f"));
    }
}
