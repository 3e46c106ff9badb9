//! Finds values that a database prints when it refuses a row. They are printed as they are: nothing in them is a
//! placeholder, and a quote or a bracket doesn't end them.

use memchr::{memchr_iter, memmem};

use super::found::Found;
use super::names::{MAX_NAME, Secrecy};
use super::scan::Scan;
use super::sql::{ends_with, hide_string};

/// What PostgreSQL writes after the values of a key.
const AFTER: [&str; 8] = [
    ") already exists",
    ") conflicts with",
    ") is duplicated",
    ") is not present",
    ") is still referenced",
    ")«",
    ")»",
    ") »",
];

/// PostgreSQL's words for a key, in languages that put no quote before the bracket.
const KEY: [&str; 4] = ["key", "llave", "chave", "chiave"];

pub(super) fn find(scan: Scan<'_>, text: &str, found: &mut Found) {
    failing(text, found);
    duplicates(scan, text, found);
}

/// Finds `Failing row contains (7, value)`, by PostgreSQL. It doesn't name columns.
fn failing(text: &str, found: &mut Found) {
    const CONTAINS: &[u8] = b"row contains (";
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = memmem::find(&bytes[at..], CONTAINS) {
        let start = at + next + CONTAINS.len();
        at = end_of_values(bytes, start);
        hide_string(text, (start, at), Secrecy::Usual, found);
    }
}

/// Finds `Duplicate entry 'value' for key 'users.token'`, by MySQL.
fn duplicates(scan: Scan<'_>, text: &str, found: &mut Found) {
    const ENTRY: &[u8] = b"Duplicate entry '";
    const KEY: &[u8] = b"' for key '";
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = memmem::find(&bytes[at..], ENTRY) {
        let start = at + next + ENTRY.len();
        let Some(end) = memmem::find(&bytes[start..], KEY).map(|length| start + length) else { return };
        at = end + KEY.len();
        let length = bytes[at..].iter().take(2 * MAX_NAME).take_while(|&&byte| byte != b'\'').count();
        let Some(name) = text.get(at..at + length) else { continue };
        let column = name.rsplit('.').next().unwrap_or(name);
        if let Some(secrecy) = scan.names.secrecy(name).or_else(|| scan.names.secrecy(column)) {
            hide_string(text, (start, end), secrecy, found);
        }
    }
}

/// Returns whether the brackets that open at `columns` are the columns of a key of PostgreSQL's: `Key (token)=(value)`.
pub(super) fn is_key(bytes: &[u8], columns: usize) -> bool {
    let before = &bytes[..columns];
    let before = before.strip_suffix(b" ").unwrap_or(before);
    let quoted = before.last().is_some_and(|&byte| byte == b'"' || !byte.is_ascii());
    quoted || KEY.iter().any(|word| ends_with(before, word))
}

/// Hides the values of a key whose bracket opens at `open`. Returns where they end.
pub(super) fn key(text: &str, open: usize, columns: &[Option<Secrecy>], found: &mut Found) -> usize {
    let start = open + 1;
    let end = end_of_values(text.as_bytes(), start);
    let values = &text[start..end];
    if values.split(", ").count() == columns.len() {
        let mut at = start;
        for (value, secrecy) in values.split(", ").zip(columns) {
            if let Some(secrecy) = *secrecy {
                hide_string(text, (at, at + value.len()), secrecy, found);
            }
            at += value.len() + 2;
        }
    } else {
        // A value contains a comma, and it isn't known which one.
        hide_string(text, (start, end), Secrecy::Usual, found);
    }
    end
}

/// Returns where the values that begin at `start` end: where the database's text continues, or else at the last
/// bracket, or at the end of the text.
fn end_of_values(bytes: &[u8], start: usize) -> usize {
    let mut last = bytes.len();
    for close in memchr_iter(b')', &bytes[start..]).map(|at| start + at) {
        let rest = &bytes[close..];
        let sentence = rest.get(1) == Some(&b'.')
            && rest.get(2).is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'\\'));
        if sentence || AFTER.iter().any(|after| rest.starts_with(after.as_bytes())) {
            return close;
        }
        last = close;
    }
    last
}
