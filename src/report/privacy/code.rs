//! Finds secrets in a line of source code: in its strings and comments, because the rest is names.
//!
//! A string is searched like any other text. All of it is a secret if the code says so: `let password = "value"`,
//! `.header("authorization", "value")`, `Password::new("value")`.

use super::found::Found;
use super::looks::is_plain;
use super::names::{Secrecy, words};
use super::pairs::SCHEMES;
use super::scan::{Scan, credentials, pem};
use super::values::{is_hole, is_nothing};

/// How much code before a string is examined, in bytes.
const BEFORE: usize = 400;

/// Functions that are called with a secret's name rather than its value: `get_token("photos")`.
const ASKS: [&str; 16] = [
    "check", "contains", "delete", "expect", "fetch", "find", "get", "has", "is", "load", "open", "parse", "read",
    "remove", "validate", "verify",
];

pub(super) fn find(scan: Scan<'_>, line: &str, found: &mut Found) {
    let scan = scan.in_source();
    pem(line, found);
    credentials(line, found);
    let bytes = line.as_bytes();
    let mut at = 0;
    if let Some(end) = rest_of_string(line) {
        text(scan, line, (0, end), found);
        at = end + 1;
    }
    let mut code = at;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let (start, end) = string(bytes, at);
                shapes(scan, line, (code, at), found);
                literal(scan, line, at, (start, end), found);
                at = (end + 1).min(bytes.len());
                code = at;
            }
            b'\'' => at = character(bytes, at),
            b'/' if matches!(bytes.get(at + 1), Some(b'/' | b'*')) => {
                text(scan, line, (at, bytes.len()), found);
                shapes(scan, line, (code, at), found);
                return;
            }
            _ => at += 1,
        }
    }
    shapes(scan, line, (code.min(bytes.len()), bytes.len()), found);
}

/// Returns where a string ends that began on an earlier line: right after text that cannot come before a string.
fn rest_of_string(line: &str) -> Option<usize> {
    let quote = line.find('"')?;
    let before = line[..quote].trim_start_matches('…');
    let last = before.chars().next_back()?;
    let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let prefix = matches!(word, "b" | "c" | "r" | "br" | "cr");
    let ends = last == '_' || last.is_alphanumeric() || ")]}.?%/\\;@$~".contains(last);
    (ends && !prefix && !before.contains("//")).then_some(quote)
}

/// Returns the contents of the string whose quote is at `at`. They extend to the end of the line if the string is open.
fn string(bytes: &[u8], at: usize) -> (usize, usize) {
    let hashes = bytes[..at].iter().rev().take_while(|&&byte| byte == b'#').count();
    let raw = bytes[..at - hashes].ends_with(b"r");
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' if !raw => end += 1,
            b'"' if !raw || bytes[end + 1..].iter().take_while(|&&byte| byte == b'#').count() >= hashes => break,
            _ => {}
        }
        end += 1;
    }
    (at + 1, end.min(bytes.len()))
}

/// Returns where a quoted character ends, or a lifetime begins.
fn character(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => bytes[(at + 3).min(bytes.len())..]
            .iter()
            .take(12)
            .position(|&byte| byte == b'\'')
            .map_or(at + 2, |end| at + 4 + end),
        _ if bytes.get(at + 2) == Some(&b'\'') => at + 3,
        _ => at + 1,
    }
}

/// Searches a string or a comment.
fn text(scan: Scan<'_>, line: &str, (start, end): (usize, usize), found: &mut Found) {
    let Some(part) = line.get(start..end) else { return };
    let mut within = Found::default();
    scan.text(part, false, &mut within);
    found.add(within, start);
}

/// Searches for keys outside of strings and comments, for example in the input of a macro.
fn shapes(scan: Scan<'_>, line: &str, (start, end): (usize, usize), found: &mut Found) {
    let Some(part) = line.get(start..end) else { return };
    let mut at = start;
    for word in part.split(|c: char| c.is_whitespace() || "'(),;".contains(c)) {
        super::shapes::find(&scan, word, at, false, found);
        at += word.len();
        at += part[at - start..].chars().next().map_or(0, char::len_utf8);
    }
}

/// Handles a string. `quote` is where it opens.
fn literal(scan: Scan<'_>, line: &str, quote: usize, (start, end): (usize, usize), found: &mut Found) {
    let Some(content) = line.get(start..end) else { return };
    let mut from = quote.saturating_sub(BEFORE);
    while !line.is_char_boundary(from) {
        from += 1;
    }
    match secrecy_of(scan, &line[from..quote]) {
        Some(secrecy) if !says_nothing(scan, content, secrecy) => found.hide(start, end),
        _ => text(scan, line, (start, end), found),
    }
}

/// Returns whether a string that the code calls a secret doesn't contain one: `"{token}"`, `"Bearer {}"`, or a name.
fn says_nothing(scan: Scan<'_>, content: &str, secrecy: Secrecy) -> bool {
    let is_scheme = |word: &str| SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word));
    let is_name = |name: &str| {
        scan.names.contain(name) && name.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_-.".contains(&byte))
    };
    is_nothing(content)
        || content.split_ascii_whitespace().all(|word| is_hole(word) || is_scheme(word) || word == "[redacted]")
        || is_name(content)
        || (secrecy < Secrecy::Always && is_plain(content))
}

/// Returns how surely the code before a string says that it is a secret.
fn secrecy_of(scan: Scan<'_>, mut before: &str) -> Option<Secrecy> {
    before = before.trim_end_matches('#');
    let unprefixed = before.trim_end_matches(['b', 'c', 'r']);
    if before.len() - unprefixed.len() <= 2 && !unprefixed.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        before = unprefixed;
    }
    loop {
        before = before.trim_end();
        match before.as_bytes().last()? {
            b'&' | b'*' | b'[' | b'!' => before = &before[..before.len() - 1],
            // A closure: `|_| "value"`.
            b'|' => before = before[..before.len() - 1].rsplit_once('|')?.0,
            b'(' => {
                let (outside, callee) = callee(&before[..before.len() - 1]);
                let name = callee.trim_end_matches('!').rsplit("::").next().unwrap_or_default();
                if name.contains("bearer") && takes_credentials(callee) {
                    return Some(Secrecy::Always);
                }
                if callee.is_empty() || makes(callee, name) {
                    let named = secrecy(scan, callee);
                    if named.is_some() {
                        return named;
                    }
                    before = outside;
                } else if name.starts_with("unwrap_or") {
                    // The default of what is on the left.
                    return secrecy(scan, outside.split_once(" = ")?.0);
                } else {
                    return secrecy(scan, name).filter(|_| !asks(name));
                }
            }
            b'=' => {
                let left = before.trim_end_matches(['=', '!', '+']);
                let begins = left.rfind([';', '{', '}', ',', '(']).map_or(0, |at| at + 1);
                return secrecy(scan, &left[begins..]);
            }
            b':' if !before.ends_with("::") => {
                let name = before[..before.len() - 1].trim_end();
                let quoted = name.strip_suffix('"').and_then(|name| name.rsplit('"').next());
                return secrecy(scan, quoted.unwrap_or(callee(name).1));
            }
            b',' => return argument(scan, &before[..before.len() - 1]),
            _ => return None,
        }
    }
}

/// Returns whether a function is one of [`ASKS`].
fn asks(name: &str) -> bool {
    words(name).next().is_some_and(|word| ASKS.iter().any(|asks| asks.eq_ignore_ascii_case(word)))
}

/// Returns whether a function takes credentials, whatever they look like: `basic_auth("me", Some("value"))`.
fn takes_credentials(callee: &str) -> bool {
    let mut parts = callee.rsplit("::");
    let (name, of) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    name.ends_with("basic_auth")
        || name.ends_with("bearer_auth")
        || of == "Credentials"
        || (of == "Authorization" && matches!(name, "basic" | "bearer"))
}

/// Returns whether a call turns its argument into the same secret: `Some(..)`, `String::from(..)`, `hex::decode(..)`.
fn makes(callee: &str, name: &str) -> bool {
    let is_type = |part: &str| part.starts_with(|c: char| c.is_ascii_uppercase());
    let is_macro = matches!(callee, "format!" | "concat!" | "hex!" | "bytes!" | "c!" | "b!");
    let part = callee.rsplit("::").nth(1).unwrap_or_default();
    let path = is_type(name) || is_type(part.trim_start_matches('<'));
    is_macro || name.contains("decode") || (path && !asks(name))
}

/// Splits the path or method at the end of `text` from what is before it.
fn callee(text: &str) -> (&str, &str) {
    let of = |c: char| c.is_alphanumeric() || "_:<>!".contains(c);
    text.split_at(text.trim_end_matches(of).len())
}

/// Examines what precedes an argument: the one before it, such as the name of a header, or the function called with
/// both.
fn argument(scan: Scan<'_>, before: &str) -> Option<Secrecy> {
    let mut depth = 0;
    let mut start = None;
    let mut open = None;
    for (at, c) in before.char_indices().rev() {
        match c {
            ')' | ']' | '}' => depth += 1,
            '(' | '[' | '{' if depth == 0 => {
                start = start.or(Some(at + 1));
                open = (c != '{').then_some(at);
                break;
            }
            '(' | '[' | '{' => depth -= 1,
            ',' if depth == 0 => start = start.or(Some(at + 1)),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    let callee = open.map(|open| callee(&before[..open]).1);
    if callee.is_some_and(takes_credentials) {
        return Some(Secrecy::Always);
    }
    // A string or a constant is usually a name, and a variable is usually a value.
    let is_name = |part: &str| part.contains('"') || !part.contains(|c: char| c.is_ascii_lowercase());
    let named = start.map(|start| before[start..].trim()).and_then(|part| {
        let path = part.rsplit("::").next().unwrap_or(part);
        secrecy(scan, part).filter(|secrecy| *secrecy == Secrecy::Always || is_name(path))
    });
    named.or_else(|| {
        let callee = callee?;
        secrecy(scan, callee).filter(|_| !asks(callee.rsplit("::").next().unwrap_or_default()))
    })
}

/// Returns the highest secrecy of the names in a piece of code.
fn secrecy(scan: Scan<'_>, code: &str) -> Option<Secrecy> {
    let names = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').filter(|name| !name.is_empty());
    names.filter_map(|name| scan.names.secrecy(name)).max().filter(|secrecy| *secrecy > Secrecy::Alone)
}
