//! Which names are names of secrets.

use std::borrow::Cow;

/// A name that contains one of these, in any case and with any separators, is a secret's: a password or a key, whatever
/// its value looks like.
const ALWAYS: [&str; 28] = [
    "accesskey",
    "accountkey",
    "apikey",
    "authkey",
    "codeverifier",
    "connectionstring",
    "creditcard",
    "dbpass",
    "devicecode",
    "encryptionkey",
    "functionskey",
    "masterkey",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "passwort",
    "privatekey",
    "pwd",
    "samlre",
    "secret",
    "secretkey",
    "sharedkey",
    "signingkey",
    "storagekey",
    "subscriptionkey",
    "userpass",
    "verificationcode",
];

/// The same, but these also occur in prose: "token: expired".
const ANYWHERE: [&str; 12] = [
    "authentication",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "csrf",
    "jwt",
    "sessid",
    "session",
    "signature",
    "token",
    "xsrf",
];

/// Each of these is a secret's name if it is a separate word: `auth_code`, not `author`.
const AS_WORD: [&str; 11] = ["auth", "oauth", "sig", "sid", "pass", "pw", "otp", "totp", "hmac", "cvv", "iban"];

/// Each of these is a secret's name if it is the whole name: `key`, not `sort_key`; `code`, not `country_code`.
const WHOLE: [&str; 7] = ["key", "code", "pin", "ticket", "assertion", "nonce", "ssn"];

/// A name that ends in one of these only says something about a secret, if its value is a number or a boolean:
/// `token_count`.
const MEASURES: [&str; 26] = [
    "age", "attempts", "bytes", "cookies", "count", "enabled", "expired", "expires", "in", "len", "length", "limit",
    "max", "min", "ms", "number", "present", "retries", "seconds", "sessions", "size", "timeout", "tokens", "total",
    "ttl", "valid",
];

/// Longer names are taken for secrets. No harmless parameter has such a name, and a report doesn't need more.
pub(super) const MAX_NAME: usize = 256;

/// How surely a name is a secret's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Secrecy {
    /// In a query, and as a field's name. In the middle of a text it is too common: `code: 2`.
    Alone,
    /// Unless the value is a word of plain prose.
    Usual,
    /// Whatever the value.
    Always,
}

/// Tells names of secrets from others. If in doubt, it takes a name for a secret's.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretNames {
    /// Further names, in plain form.
    more: Vec<String>,
}

impl SecretNames {
    pub(crate) fn extend(&mut self, names: &[String]) {
        // An empty name would match every other name.
        self.more.extend(names.iter().map(|name| plain(&decode(name))).filter(|name| !name.is_empty()));
    }

    /// Returns whether `name`, percent-encoded or not, looks like a secret's.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.secrecy(name).is_some()
    }

    /// Returns whether a value with this name must not be shown.
    pub(super) fn hide(&self, name: &str, value: &str) -> bool {
        self.contain(name) && !is_measure(name, value)
    }

    /// Returns how surely `name`, percent-encoded or not, is a secret's, or `None` if it isn't.
    pub(super) fn secrecy(&self, name: &str) -> Option<Secrecy> {
        if name.len() > MAX_NAME {
            return Some(Secrecy::Always);
        }
        let name = decode(name);
        // Most names are short and plain, and need no allocation.
        let mut short = [0; 64];
        let long;
        let plain = if name.is_ascii() && name.len() <= short.len() {
            let mut len = 0;
            for byte in name.bytes().filter(u8::is_ascii_alphanumeric) {
                short[len] = byte.to_ascii_lowercase();
                len += 1;
            }
            &short[..len]
        } else {
            long = plain(&name);
            long.as_bytes()
        };
        let has = |list: &[&str]| {
            let begins = |at: usize, word: &str| plain[at..].starts_with(word.as_bytes());
            (0..plain.len()).any(|at| list.iter().any(|word| word.as_bytes()[0] == plain[at] && begins(at, word)))
        };
        let named = |word: &str| self.more.iter().any(|more| more.as_bytes() == word.as_bytes());
        let is_more = || {
            self.more.iter().any(|more| more.as_bytes() == plain)
                || words(&name).any(|word| named(&word.to_lowercase()))
        };
        if has(&ALWAYS) || (!self.more.is_empty() && is_more()) {
            return Some(Secrecy::Always);
        }
        let is_word = |word: &str| AS_WORD.iter().any(|secret| secret.eq_ignore_ascii_case(word));
        if has(&ANYWHERE) || words(&name).any(is_word) {
            return Some(Secrecy::Usual);
        }
        WHOLE.iter().any(|whole| whole.as_bytes() == plain).then_some(Secrecy::Alone)
    }
}

/// Returns whether this says something about a secret without being one: `max_tokens=4096`, `has_session: true`.
pub(super) fn is_measure(name: &str, value: &str) -> bool {
    let number =
        value.len() <= 12 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !value.is_empty();
    let truth = matches!(value, "true" | "false");
    truth
        || (number && words(name).last().is_some_and(|word| MEASURES.iter().any(|end| end.eq_ignore_ascii_case(word))))
}

/// Returns only the letters and digits, in lower case: `X-Amz-Signature` → `xamzsignature`.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Splits `user[auth_code]` and `userAuthCode` into words.
pub(super) fn words(name: &str) -> impl Iterator<Item = &str> {
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

/// Percent-decodes until nothing changes, three times at most, because a name that is encoded twice is also decoded
/// twice somewhere behind a proxy. `+` is a space.
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
    fn tells_secret_names_from_ordinary_ones() {
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
        for (name, value) in
            [("max_tokens", "4096"), ("token_count", "512"), ("session-ttl", "3600"), ("hasToken", "true")]
        {
            assert!(!names.hide(name, value), "{name}");
            assert!(names.hide(name, "hunter2"), "{name}");
        }
        assert!(names.hide("otp", "123456") && names.hide("pin", "1234") && names.hide("password", "12345678"));
        names.extend(&["Patient-Name".to_owned(), String::new(), "room".to_owned()]);
        assert!(names.contain("patient_name") && names.contain("PatientName") && names.contain("hospital_room"));
        assert!(!names.contain("patient") && !names.contain("mushroom"));
    }

    #[test]
    fn splits_names_into_words() {
        assert_eq!(words("user[authCode].x_Y").collect::<Vec<_>>(), ["user", "auth", "Code", "x", "Y"]);
        assert_eq!(words("").count(), 0);
    }
}
