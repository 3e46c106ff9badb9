//! Where values begin and end, and what isn't a value.

use super::found::REDACTED;

/// How many bytes are examined of a value that is a secret only if it looks like one.
const MOST: usize = 1024;

/// Returns whether a value isn't a secret, whatever its name.
pub(super) fn is_nothing(value: &str) -> bool {
    let placeholder =
        value.strip_prefix('$').is_some_and(|rest| rest.len() <= 2 && rest.bytes().all(|b| b.is_ascii_digit()));
    let stars = !value.is_empty() && value.bytes().all(|byte| byte == b'*');
    placeholder
        || stars
        || matches!(
            value,
            "" | "?" | "%s" | "{}" | "()" | "-" | "None" | "null" | "nil" | "true" | "false" | "Some(_)" | "[redacted]"
        )
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Returns whether it is a placeholder of a format string: `{}`, `{token}`.
pub(super) fn is_hole(value: &str) -> bool {
    value.starts_with('{') && value.ends_with('}')
}

/// A value after a separator.
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
}

/// What comes before a value.
#[derive(Clone, Copy)]
pub(super) struct Before {
    /// A colon rather than an equals sign.
    pub(super) colon: bool,
    /// A name in quotes, as in JSON.
    pub(super) member: bool,
    /// A name that is a secret's whatever its value looks like. After other names, a long value isn't examined to its
    /// end.
    pub(super) sure: bool,
}

impl Value {
    pub(super) fn at(text: &str, start: usize, before: Before) -> Option<Self> {
        let Before { colon, member, sure } = before;
        let bytes = text.as_bytes();
        if start >= bytes.len() {
            return None;
        }
        if let Some((inside, end)) = quoted(bytes, start) {
            return Some(Self { start: inside, end, quoted: true });
        }
        if text[start..].starts_with(REDACTED) {
            let end = start + REDACTED.len();
            // Something may follow without a gap.
            if bytes.get(end).is_none_or(|byte| !byte.is_ascii_alphanumeric()) {
                return Some(Self { start, end, quoted: false });
            }
        }
        let name = start
            + bytes[start..].iter().take(64).take_while(|&&byte| byte.is_ascii_alphanumeric() || byte == b'_').count();
        let is_string = |at: usize| matches!(bytes.get(at), Some(b'"' | b'\''));
        // `Some(..)`, `b".."`, and in SQL: `N'..'`, `md5('..')`.
        let typed = (bytes[start].is_ascii_uppercase() && bytes.get(name) != Some(&b'\''))
            || name == start
            || matches!(&bytes[start..name], b"b" | b"r" | b"br" | b"E" | b"N" | b"X")
            || (bytes.get(name) == Some(&b'(') && is_string(name + 1));
        if sure
            && typed
            && let Some(end) = nested(bytes, name)
        {
            return Some(Self { start, end, quoted: true });
        }
        let ends = |at: usize| match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' | b'<' => true,
            b'&' => !colon,
            b',' | b'}' | b']' => member,
            b'"' | b'\'' => bytes.get(at + 1).is_none_or(|&next| is_blank(next) || b"\n\r,;:}])&".contains(&next)),
            b'\\' => bytes.get(at + 1).is_some_and(|next| matches!(next, b'"' | b'\'')),
            _ => false,
        };
        let most = if sure { bytes.len() } else { bytes.len().min(start + MOST) };
        let mut end = (start..most).find(|&at| ends(at)).unwrap_or(most);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let trimmed = text[start..end].trim_end_matches([',', ';', ')', ']', '}']).len();
        (trimmed > 0).then_some(Self { start, end: start + trimmed, quoted: false })
    }
}

/// Returns what is within the quotes that begin at `at`, which may be escaped themselves: `\"..\"`. Open quotes extend
/// to the end.
pub(super) fn quoted(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let escapes = bytes[at..].iter().take(8).take_while(|&&byte| byte == b'\\').count();
    let quote = *bytes.get(at + escapes)?;
    if quote != b'"' && (quote != b'\'' || escapes > 0) {
        return None;
    }
    let start = at + escapes + 1;
    let mut run = 0;
    for (end, &byte) in bytes.iter().enumerate().skip(start) {
        if byte == quote && run <= escapes && run.is_multiple_of(2) == escapes.is_multiple_of(2) {
            return Some((start, end - run.min(escapes)));
        }
        run = if byte == b'\\' { run + 1 } else { 0 };
    }
    Some((start, bytes.len()))
}

/// Returns where the brackets or quotes that begin at `at` end. Open ones extend to the end.
pub(super) fn nested(bytes: &[u8], at: usize) -> Option<usize> {
    let opens = |byte: u8| matches!(byte, b'(' | b'[' | b'{');
    match bytes.get(at) {
        Some(&byte) if opens(byte) => {}
        Some(b'"' | b'\'') => return quoted(bytes, at).map(|(_, end)| (end + 1).min(bytes.len())),
        _ => return None,
    }
    let (mut depth, mut at) = (0, at);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = quoted(bytes, at).map_or(at, |(_, end)| end),
            b'\\' if bytes.get(at + 1) == Some(&b'"') => at = quoted(bytes, at).map_or(at, |(_, end)| end + 1),
            byte if opens(byte) => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Some(bytes.len())
}
