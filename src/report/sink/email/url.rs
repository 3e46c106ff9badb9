//! A mail server as a URL.

use super::settings::{Email, Security};
use crate::error::{Error, Result};
use crate::text::percent::decoded;

impl Email {
    /// Mails through the server of this URL: `smtps://user:password@smtp.example.com:465`.
    ///
    /// | scheme | meaning |
    /// |---|---|
    /// | `smtp` | [`starttls`](Self::starttls), port 587 |
    /// | `smtps` | [`tls`](Self::tls), port 465 |
    /// | `smtp+plaintext` | [`plaintext`](Self::plaintext), port 25 |
    ///
    /// `smtp+plaintext://127.0.0.1` is a relay on this machine. `smtp+plaintext://relay.internal:2525` is one in a
    /// network that nobody else can read, because everyone on the way sees the reports. Unencrypted mail needs a scheme
    /// of its own, because with `smtp://` nothing is sent to a server that doesn't offer STARTTLS. With user and
    /// password, it works only for `localhost` or a loopback address: [`build`](crate::ReportsBuilder::build) refuses
    /// any other.
    ///
    /// User and password may be left out. Escape characters that are special in a URL, such as `%40` for `@`. An IPv6
    /// address stands in brackets: `smtp://[2001:db8::1]`.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config) if the URL is invalid. The message contains nothing of it.
    pub fn from_url(
        url: &str,
        from: impl Into<String>,
        to: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self> {
        let refuse = |problem: &str| Err(Error::config(format!("the URL of a mail server {problem}")));
        let Some((scheme, rest)) = url.trim().split_once("://") else {
            return refuse("has no scheme: `smtp://`, `smtps://` or `smtp+plaintext://`");
        };
        let security = match &*scheme.to_ascii_lowercase() {
            "smtp" => Security::StartTls,
            "smtps" => Security::Tls,
            "smtp+plaintext" => Security::Plaintext,
            _ => return refuse("has a scheme that is none of `smtp`, `smtps` and `smtp+plaintext`"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return refuse(
                "has a path, or a `/`, `?` or `#` in its password that is not written as `%2F`, `%3F` or `%23`",
            );
        }
        let (credentials, server) = match rest.rsplit_once('@') {
            Some((credentials, server)) => (Some(credentials), server),
            None => (None, rest),
        };
        let (host, port) = match server.strip_prefix('[') {
            Some(server) => match server.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) if port.starts_with(':') => (host, Some(&port[1..])),
                _ => return refuse("has a bracket too many or too few"),
            },
            None => match server.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (server, None),
            },
        };
        if host.is_empty() {
            return refuse("names no host");
        }
        let mut mail = Self::smtp(host, from, to).server("", |server| server.security = security);
        if let Some(port) = port {
            match port.parse() {
                Ok(port) if port > 0 => mail = mail.port(port),
                _ => return refuse("has a port that is not a number from 1 to 65535"),
            }
        }
        if let Some(credentials) = credentials {
            let Some((user, password)) = credentials.split_once(':') else {
                return refuse("has a user without a password");
            };
            match (decoded(user), decoded(password)) {
                (Some(user), Some(password)) => mail = mail.credentials(user, password),
                _ => return refuse("has a `%` in its user or password that is not written as `%25`"),
            }
        }
        Ok(mail)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::settings::{Server, Way};
    use super::*;

    fn server(url: &str) -> Server {
        let mail = Email::from_url(url, "a@b", ["c@d"]).unwrap_or_else(|error| panic!("{url}: {error}"));
        let Way::Smtp(server) = mail.way else { panic!("{url}") };
        server
    }

    #[test]
    fn reads_every_form_of_url() {
        let plain = |url| {
            let server = server(url);
            assert!(server.credentials.is_none());
            (server.host, server.port, server.security)
        };
        assert_eq!(plain("smtp://mail.example.com"), ("mail.example.com".to_owned(), None, Security::StartTls));
        assert_eq!(plain("SMTPS://mail/"), ("mail".to_owned(), None, Security::Tls));
        assert_eq!(plain("smtp+plaintext://[::1]:2525"), ("::1".to_owned(), Some(2525), Security::Plaintext));
        assert_eq!(plain("smtp://[2001:db8::1]"), ("2001:db8::1".to_owned(), None, Security::StartTls));
        let with = server("smtps://us%40er:p%3A%2f%25@x@mail:465");
        let credentials = with.credentials.unwrap();
        assert_eq!((&*with.host, with.port), ("mail", Some(465)));
        assert_eq!((&*credentials.user, &*credentials.password), ("us@er", "p:/%@x"));
    }

    #[test]
    fn bad_urls_are_errors_without_the_password() {
        let urls = [
            "",
            "mail",
            "http://mail",
            "smtp://",
            "smtp://:25",
            "smtp://u:hunter2@",
            "smtp://mail:0",
            "smtp://mail:x",
            "smtp://mail:70000",
            "smtp://[::1",
            "smtp://[::1]25",
            "smtp://u:hunter2@mail/x",
            "smtp://hunter2@mail",
            "smtp://u:hunter2%4@mail",
            "smtp://u:hunter2%zz@mail",
            "smtp://u:hunter2%ff@mail",
            "smtp://u:hunt/er2@mail",
        ];
        for url in urls {
            let error = Email::from_url(url, "a@b", ["c@d"]).unwrap_err();
            assert!(error.is_config());
            assert!(!format!("{error} {error:?}").contains("hunt"), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_password_survives_in_a_url(user in ".{1,8}", password in "\\PC{1,16}") {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let url = format!("smtps://{}:{}@mail", encode(&user), encode(&password));
            let credentials = server(&url).credentials.unwrap();
            prop_assert_eq!((credentials.user, credentials.password), (user, password));
        }

        #[test]
        fn any_text_is_accepted_or_refused(url in any::<String>()) {
            let _ = Email::from_url(&url, "a@b", ["c@d"]);
            let _ = Email::from_url(&format!("smtp://{url}"), "a@b", ["c@d"]);
        }
    }
}
