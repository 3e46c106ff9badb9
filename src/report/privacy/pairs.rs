//! Finds values that follow the name of a secret: `name=value`, `name: value`, members of JSON and of what
//! [`Debug`](std::fmt::Debug) prints, XML, command-line options.

use memchr::{memchr, memchr3, memmem};

use super::found::{Found, REDACTED};
use super::looks::{is_message, is_prose, is_token_like};
use super::names::{MAX_NAME, Secrecy, is_measure};
use super::scan::Scan;
use super::values::{Before, Value, is_blank, is_hole, is_nothing};

/// After the name of a secret, these begin a value of several words.
pub(super) const SCHEMES: [&str; 13] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "digest",
    "dpop",
    "gnap",
    "hawk",
    "negotiate",
    "ntlm",
    "oauth",
    "sharedkey",
    "token",
];

pub(super) fn find(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let (mut at, mut opens) = (0, 0);
    while let Some(next) = memchr3(b'=', b':', b'>', &bytes[at..]) {
        let separator = at + next;
        at = separator + 1;
        at = match bytes[separator] {
            b'>' => element(scan, text, separator, &mut opens, found),
            _ => pair(scan, text, separator, found),
        }
        .unwrap_or(at);
    }
    options(scan, text, found);
}

/// A name right before a separator.
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
    pub(super) quoted: bool,
    /// There is no blank between it and the separator.
    close: bool,
}

/// The most blanks on either side of a separator, as in a table.
const BLANKS: usize = 32;

pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.[]%$@+".contains(&byte) || byte >= 0x80
}

pub(super) fn name_before(text: &str, separator: usize) -> Option<Name<'_>> {
    let bytes = text.as_bytes();
    let back = |from: usize, most: usize, of: &dyn Fn(u8) -> bool| {
        from - bytes[..from].iter().rev().take(most).take_while(|&&byte| of(byte)).count()
    };
    let blanks = back(separator, BLANKS, &is_blank);
    let quote = bytes[..blanks].last().copied().filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let end = match quote {
        Some(_) => back(blanks - 1, 8, &|byte| byte == b'\\'),
        None => blanks,
    };
    let of: &dyn Fn(u8) -> bool = if quote.is_some() { &|byte| is_name(byte) || byte == b' ' } else { &is_name };
    let mut start = back(end, MAX_NAME + 8, of);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    (start < end).then(|| Name { text: &text[start..end], start, quoted: quote.is_some(), close: blanks == separator })
}

/// Finds `name=value` or `name: value`. Returns where to continue.
fn pair(scan: Scan<'_>, text: &str, separator: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    let colon = bytes[separator] == b':';
    let next = bytes.get(separator + 1).copied();
    // `a::b` is a path, `a://b` is a URI.
    let doubled = colon && (next == Some(b':') || separator.checked_sub(1).is_some_and(|at| bytes[at] == b':'));
    if doubled || (colon && bytes[separator + 1..].starts_with(b"//")) {
        return None;
    }
    let name = name_before(text, separator)?;
    let secrecy = scan.names.secrecy(name.text)?;
    // `=>`, `==`, `:=`.
    let end = separator + 1 + usize::from(matches!(next, Some(b'>' | b'=')));
    let blanks = bytes[end..].iter().take(BLANKS).take_while(|&&byte| is_blank(byte)).count();
    // `PASSWORD ':value'`: a string begins here. It isn't the end of a name.
    let opens = name.text.ends_with(' ') && text[..separator].ends_with('\'') && blanks == 0;
    if name.quoted && opens {
        return None;
    }
    let before = Before { colon, member: name.quoted, sure: secrecy > Secrecy::Alone };
    let mut value = Value::at(text, end + blanks, before)?;
    let shown = &text[value.start..value.end];
    if is_nothing(shown) || is_measure(name.text, shown) || (scan.source && is_hole(shown)) {
        return Some(value.end);
    }
    // `password= x`, or `token= user=me`, which has no value.
    let apart = !colon && blanks > 0 && name.close && !name.quoted;
    if apart && !value.quoted && is_named(shown) {
        return None;
    }
    let hidden = match secrecy {
        _ if colon && blanks == 0 && !value.quoted && is_place(scan, &name, shown) => false,
        Secrecy::Alone => is_token_like(shown),
        Secrecy::Usual => !(colon || apart) || value.quoted || !is_prose(shown),
        // A remark on the value: "password: must not be empty".
        Secrecy::Always => !colon || value.quoted || !is_message(shown),
    };
    if hidden && !before.sure {
        value = Value::at(text, end + blanks, Before { sure: true, ..before })?;
    }
    let end = if value.quoted { value.end } else { several(text, &name, &value) };
    if hidden || end > value.end {
        found.hide(value.start, end);
        return Some(end);
    }
    None
}

/// `src/token.rs:41`, `auth.example.com:443`, but not `db.otp:493021`.
fn is_place(scan: Scan<'_>, name: &Name<'_>, value: &str) -> bool {
    let number = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let last = name.text.rsplit_once('.').map(|(_, last)| last);
    let is_file = last.is_some_and(|last| scan.names.secrecy(last).is_none());
    number && is_file && name.close && !name.quoted && value.len() <= 12
}

/// Returns whether it is `user=me`, and not base64 with padding.
fn is_named(value: &str) -> bool {
    let name = value.bytes().take_while(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    let rest = &value[name.count()..];
    value.starts_with(|c: char| c.is_ascii_alphabetic())
        && rest.strip_prefix('=').is_some_and(|rest| !rest.is_empty() && rest != "=")
}

/// Returns where a value of several words ends: the value of a header with credentials.
fn several(text: &str, name: &Name<'_>, value: &Value) -> usize {
    let words = text[value.start..value.end].trim_end_matches(',');
    let scheme = SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(words))
        && text.as_bytes().get(value.end) == Some(&b' ')
        && !text[value.end + 1..].starts_with(REDACTED);
    let is_cookie = name.text.get(..).is_some_and(ends_with_cookie) && !text[value.start..].starts_with(REDACTED);
    if !scheme && !is_cookie {
        return value.end;
    }
    let rest = &text[value.end..];
    let end = rest.find(['\n', '\r', '"', '\'', '}']).unwrap_or(rest.len());
    value.end + end
}

fn ends_with_cookie(name: &str) -> bool {
    name.len() >= 6 && name.as_bytes()[name.len() - 6..].eq_ignore_ascii_case(b"cookie")
}

/// Finds `<name>value</name>`. `opens` is the next `<`, as far as it is known.
fn element(scan: Scan<'_>, text: &str, close: usize, opens: &mut usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    let name = name_before(text, close)?;
    let opened = name.start.checked_sub(1).is_some_and(|at| matches!(bytes[at], b'<' | b':'));
    if !opened || !name.close || name.quoted || scan.names.secrecy(name.text)? == Secrecy::Alone {
        return None;
    }
    if *opens <= close {
        *opens = memchr(b'<', &bytes[close + 1..]).map_or(bytes.len(), |next| close + 1 + next);
    }
    let end = *opens;
    if bytes.get(end + 1) != Some(&b'/') || is_nothing(text[close + 1..end].trim()) {
        return None;
    }
    found.hide(close + 1, end);
    Some(end)
}

/// Finds `--name value`, also as [`Debug`](std::fmt::Debug) prints a command: `"--name" "value"`.
fn options(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    for dashes in memmem::find_iter(bytes, b"--") {
        let name = dashes + 2;
        let of = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let end = name + bytes[name..].iter().take(64).take_while(of).count();
        let inside = dashes > 0 && !is_blank(bytes[dashes - 1]) && !matches!(bytes[dashes - 1], b'"' | b'\'' | b'\n');
        let mut blank = end + bytes[end..].iter().take(8).take_while(|&&byte| byte == b'\\').count();
        let quoted = bytes.get(blank) == Some(&b'"');
        match bytes.get(blank) {
            Some(b'"') => blank += 1 + usize::from(bytes.get(blank + 1) == Some(&b',')),
            _ => blank = end,
        }
        if inside || end == name || bytes.get(blank) != Some(&b' ') {
            continue;
        }
        let before = Before { colon: true, member: quoted, sure: true };
        if scan.names.secrecy(&text[name..end]).is_some_and(|secrecy| secrecy > Secrecy::Alone)
            && let Some(value) = Value::at(text, blank + 1, before)
            && !text[value.start..value.end].starts_with('-')
            && !is_nothing(&text[value.start..value.end])
        {
            found.hide(value.start, value.end);
        }
    }
}
