//! Which names are names of secrets.

use std::borrow::Cow;

/// A name that holds one of these, spelled in any case and with any separators, is a secret's.
const ANYWHERE: [&str; 27] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwort",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "authentication",
    "signature",
    "session",
    "sessid",
    "credential",
    "cookie",
    "bearer",
    "jwt",
    "csrf",
    "xsrf",
    "samlre",
    "creditcard",
];

/// One of these is a secret's name as a word of its own: `auth_code`, not `author`.
const AS_WORD: [&str; 11] = ["auth", "oauth", "sig", "sid", "pass", "pw", "otp", "totp", "hmac", "cvv", "iban"];

/// One of these is a secret's name if it is the whole name: `key`, not `sort_key`; `code`, not `country_code`.
const WHOLE: [&str; 7] = ["key", "code", "pin", "ticket", "assertion", "nonce", "ssn"];

/// Names longer than this are taken for secrets: nobody calls a harmless parameter that, and a report needs no more.
const MAX_NAME: usize = 256;

/// Tells names of secrets from others. Errs on the side of silence.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretNames {
    /// Further names, plain.
    more: Vec<String>,
}

impl SecretNames {
    pub(crate) fn extend(&mut self, names: &[String]) {
        // An empty name would be part of every other.
        self.more.extend(names.iter().map(|name| plain(&decode(name))).filter(|name| !name.is_empty()));
    }

    /// Whether `name`, percent-encoded or not, looks like a secret's.
    pub(crate) fn contain(&self, name: &str) -> bool {
        if name.len() > MAX_NAME {
            return true;
        }
        let name = decode(name);
        let plain = plain(&name);
        ANYWHERE.iter().any(|secret| plain.contains(secret))
            || WHOLE.contains(&plain.as_str())
            || self.more.contains(&plain)
            || words(&name)
                .any(|word| AS_WORD.contains(&word.to_lowercase().as_str()) || self.more.contains(&word.to_lowercase()))
    }
}

/// Letters and digits alone, in lower case: `X-Amz-Signature` → `xamzsignature`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The words of `user[auth_code]` and of `userAuthCode`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).flat_map(|part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            let mut before_lower = false;
            let end = rest
                .char_indices()
                .find(|&(_, c)| {
                    let starts = c.is_uppercase() && before_lower;
                    before_lower = c.is_lowercase();
                    starts
                })
                .map_or(rest.len(), |(at, _)| at);
            let (word, after) = rest.split_at(end);
            rest = after;
            (!word.is_empty()).then_some(word)
        })
    })
}

/// Percent-decoded until nothing changes, three times at most: a name encoded twice is decoded twice somewhere behind a
/// proxy. `+` is a space.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..3 {
        if !text.contains(['%', '+']) {
            break;
        }
        let decoded = decode_once(&text);
        if decoded == *text {
            break;
        }
        text = Cow::Owned(decoded);
    }
    text
}

fn decode_once(text: &str) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let mut names = SecretNames::default();
        for secret in [
            "password",
            "Password",
            "PASSWD",
            "user[password]",
            "new-password",
            "pwd",
            "client_secret",
            "token",
            "access_token",
            "id_token",
            "_csrf_token",
            "api_key",
            "apikey",
            "api-key",
            "X-Api-Key",
            "AWSAccessKeyId",
            "key",
            "auth",
            "auth_code",
            "userAuth",
            "authorization",
            "signature",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "sig",
            "session",
            "PHPSESSID",
            "jsessionid",
            "sid",
            "jwt",
            "code",
            "credential",
            "SAMLResponse",
            "otp",
            "%74oken",
            "%2574oken",
            "pass+word",
            "pass%77ord",
            "pass",
        ] {
            assert!(names.contain(secret), "{secret}");
        }
        for open in [
            "",
            "page",
            "author",
            "authors",
            "sort_key",
            "keyboard",
            "country_code",
            "zipcode",
            "design",
            "inside",
            "sidebar",
            "pinned",
            "id",
            "q",
            "%",
            "%zz",
            "compass",
            "passenger",
            "monkey",
        ] {
            assert!(!names.contain(open), "{open}");
        }
        assert!(names.contain(&"x".repeat(MAX_NAME + 1)));
        names.extend(&["Patient-Name".to_owned(), String::new(), "room".to_owned()]);
        assert!(names.contain("patient_name") && names.contain("PatientName") && names.contain("hospital_room"));
        assert!(!names.contain("patient") && !names.contain("mushroom"));
    }

    #[test]
    fn splits_words() {
        assert_eq!(words("user[authCode].x_Y").collect::<Vec<_>>(), ["user", "auth", "Code", "x", "Y"]);
        assert_eq!(words("").count(), 0);
    }
}
