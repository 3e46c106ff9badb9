//! Finds values that are in brackets with, or after, the name of a secret: `Token("value")`, `Token { id: "value" }`,
//! `("name", "value")`, `["name", "value"]`.

use memchr::memchr3;

use super::found::Found;
use super::looks::{is_plain, is_prose, is_sentence, is_token_like};
use super::names::{Secrecy, is_measure, words};
use super::pairs::name_before;
use super::scan::Scan;
use super::values::{Before, Value, is_nothing, nested, quoted};

/// The longest name of a type that is looked at.
const MAX_TYPE: usize = 64;

/// If a type's or variant's name ends in one of these, it is about a secret, but its only content isn't one:
/// `TokenError("it has expired")`.
const ABOUT: [&str; 15] = [
    "Changed",
    "Command",
    "Config",
    "Error",
    "Event",
    "Exception",
    "Failure",
    "Kind",
    "Options",
    "Policy",
    "Rejection",
    "Request",
    "Reset",
    "Response",
    "Settings",
];

pub(super) fn find(scan: Scan<'_>, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let (mut at, mut looked_at) = (0, 0);
    while let Some(next) = memchr3(b'(', b'{', b',', &bytes[at..]) {
        let here = at + next;
        at = here + 1;
        at = match bytes[here] {
            b'(' => tuple(scan, text, here, found),
            b',' => second(scan, text, here, found),
            _ => {
                if here >= looked_at {
                    looked_at = fields(scan, text, here, found).unwrap_or(looked_at);
                }
                None
            }
        }
        .unwrap_or(at);
    }
}

/// Returns the name of the type or function that ends at `end`, and how surely it is a secret's.
fn called<'a>(scan: Scan<'_>, text: &'a str, end: usize) -> Option<(&'a str, Secrecy)> {
    let before = text.as_bytes()[..end].iter().rev().take(MAX_TYPE + 1);
    let length = before.take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let name = &text[end - length..end];
    if length > MAX_TYPE {
        return None;
    }
    match scan.names.secrecy(name)? {
        Secrecy::Alone => None,
        _ if words(name).last().is_some_and(|word| ABOUT.contains(&word)) => Some((name, Secrecy::Usual)),
        secrecy => Some((name, secrecy)),
    }
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Returns whether quotes begin at `at`, or after the blanks there.
fn is_quote(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at..bytes.len().min(at + 16)];
    rest.iter().find(|&&byte| byte != b'\\' && byte != b' ').is_some_and(|&byte| byte == b'"')
}

/// Finds a tuple struct or variant: `Password("value")`, `InvalidToken(Some("value"))`. Returns where to continue.
fn tuple(scan: Scan<'_>, text: &str, open: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    let (name, secrecy) = called(scan, text, open)?;
    // With a function, only what is certain: `set_password("value")`.
    if !is_type(name) && (secrecy != Secrecy::Always || !is_quote(bytes, open + 1)) {
        return None;
    }
    let end = nested(bytes, open).map(|end| if bytes[end - 1] == b')' { end } else { bytes.len() })?;
    let inside = text.get(open + 1..end)?;
    let inside = inside.strip_suffix(')').unwrap_or(inside);
    let value = inside.trim().trim_end_matches(',').trim_end();
    if is_nothing(value) || is_measure(name, value) || (secrecy == Secrecy::Usual && tells(value)) {
        return None;
    }
    found.hide(open + 1, open + 1 + inside.len());
    Some(end)
}

/// Returns whether the content of something named after a secret only says what happened to it: `Token(Expired)`,
/// `Session("closed by peer")`.
fn tells(value: &str) -> bool {
    is_prose(value)
        || value
            .trim_matches('\\')
            .strip_prefix('"')
            .is_some_and(|text| is_sentence(text.trim_end_matches(['"', '\\'])))
}

/// Finds the strings in a struct: `Token { id: "value", ttl: 5s }`. Returns where it ends.
fn fields(scan: Scan<'_>, text: &str, open: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    let blank = open.checked_sub(1).filter(|&at| bytes[at] == b' ')?;
    let (name, secrecy) = called(scan, text, blank).filter(|(name, _)| is_type(name))?;
    let end = nested(bytes, open).map(|end| if bytes[end - 1] == b'}' { end } else { bytes.len() })?;
    let inside = text.get(open + 1..end)?;
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    if secrecy == Secrecy::Always && !is_nothing(inside.trim()) && !is_measure(name, inside.trim()) {
        found.hide(open + 1, open + 1 + inside.len());
        return Some(end);
    }
    let mut at = open + 1;
    while let Some(quote) = memchr::memchr(b'"', &bytes[at..end]).map(|next| at + next) {
        let escapes = bytes[at..quote].iter().rev().take(8).take_while(|&&byte| byte == b'\\').count();
        let Some((start, stop)) = quoted(bytes, quote - escapes) else { break };
        let stop = stop.min(end);
        let value = &text[start..stop.max(start)];
        if !is_nothing(value) && !is_plain(value) {
            found.hide(start, stop);
        }
        at = (stop + escapes + 1).min(end);
    }
    Some(end)
}

/// Finds what follows a name in a list or a tuple: `("name", Some("value"))`. Returns where to continue.
fn second(scan: Scan<'_>, text: &str, comma: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    if comma == 0 || !matches!(bytes[comma - 1], b'"' | b'\'') {
        return None;
    }
    let name = name_before(text, comma)?;
    if name.text.bytes().filter(|&byte| byte == b' ').nth(1).is_some() {
        return None;
    }
    let secrecy = scan.names.secrecy(name.text)?;
    // What comes before the name's quotes.
    let quote = name.start.checked_sub(1).filter(|&at| matches!(bytes[at], b'"' | b'\''))?;
    let opens = *bytes[..blanks_before(bytes, quote)].last()?;
    if !matches!(opens, b'(' | b'[' | b',') {
        return None;
    }
    let start = blanks_after(bytes, comma + 1);
    let sure = secrecy > Secrecy::Alone;
    let value = Value::at(text, start, Before { colon: true, member: true, sure })?;
    let shown = &text[value.start..value.end];
    if is_nothing(shown) || is_measure(name.text, shown) {
        return Some(value.end);
    }
    // A bracket at the end of an unquoted value isn't part of it.
    let quotes = bytes[value.end..].iter().take(16).take_while(|byte| matches!(byte, b'"' | b'\'' | b'\\')).count();
    let mut after = blanks_after(bytes, value.end + if value.quoted { quotes } else { 0 });
    if bytes.get(after) == Some(&b',') {
        after = blanks_after(bytes, after + 1);
    }
    let closes = bytes.get(after).is_none_or(|byte| matches!(byte, b')' | b']'));
    let hidden = match opens {
        b'(' if value.quoted => true,
        b'(' | b'[' if closes => match secrecy {
            Secrecy::Always => opens == b'(' || !(is_plain(shown) && scan.names.contain(shown)),
            Secrecy::Usual => !is_plain(shown),
            Secrecy::Alone => is_token_like(shown),
        },
        // A list of names, unless it looks different.
        _ => sure && value.quoted && !is_plain(shown),
    };
    if !hidden {
        return None;
    }
    found.hide(value.start, value.end);
    Some(value.end)
}

/// The most blank space between the parts of a list, in bytes.
const MAX_BLANKS: usize = 256;

/// Returns where the blank space that begins at `at` ends. It may be escaped: `\n`.
fn blanks_after(bytes: &[u8], at: usize) -> usize {
    let mut end = at.min(bytes.len());
    while end < bytes.len().min(at + MAX_BLANKS) {
        let escapes = bytes[end..].iter().take(8).take_while(|&&byte| byte == b'\\').count();
        match bytes.get(end + escapes) {
            Some(b'n' | b'r' | b't') if escapes > 0 => end += escapes + 1,
            Some(byte) if escapes == 0 && byte.is_ascii_whitespace() => end += 1,
            _ => break,
        }
    }
    end
}

/// Returns where the blank space that ends at `at` begins, including the backslashes that escape it.
fn blanks_before(bytes: &[u8], at: usize) -> usize {
    let mut start = at;
    while start > at.saturating_sub(MAX_BLANKS) {
        match bytes[start - 1] {
            b'\\' => start -= 1,
            b'n' | b'r' | b't' if start > 1 && bytes[start - 2] == b'\\' => start -= 2,
            byte if byte.is_ascii_whitespace() => start -= 1,
            _ => break,
        }
    }
    start
}
