//! Makes text from outside safe to print in a terminal, a log or a message.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes control characters, line ends, text-direction overrides and invisible characters of `text` (`\u{202e}`).
/// Cuts it after `max` characters of input with a remark on how long it was: `… (1048576 bytes)`. Reads no more of the
/// text than it prints.
pub(crate) fn escape(text: &str, max: usize) -> Cow<'_, str> {
    let cut = text.char_indices().nth(max).map(|(at, _)| at);
    let front = &text[..cut.unwrap_or(text.len())];
    if cut.is_none() && !front.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(front.len() + 32);
    for c in front.chars() {
        push_escaped(&mut out, c);
    }
    if cut.is_some() {
        push_cut(&mut out, text.len());
    }
    Cow::Owned(out)
}

/// Appends `c`, escaped if it must be.
pub(crate) fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_unsafe(c) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// Appends the remark that something of `bytes` bytes was cut.
pub(crate) fn push_cut(out: &mut String, bytes: usize) {
    let _ = write!(out, "… ({bytes} bytes)");
}

/// Returns whether `end` is exactly such a remark, or a plain ellipsis.
pub(crate) fn is_cut(end: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let remark = |text: &str| text.strip_prefix(" (").and_then(|text| text.strip_suffix(" bytes)")).is_some_and(digits);
    end.strip_prefix('…').is_some_and(|rest| rest.is_empty() || remark(rest))
}

/// Returns whether `c` could move the cursor, forge a line, change the text's direction or hide in it.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_control_characters_and_cuts() {
        assert_eq!(escape("GET /a", 10), "GET /a");
        assert!(matches!(escape("ääääääääää", 10), Cow::Borrowed(_)));
        assert_eq!(escape("a\nb\x1b[31m\u{7f}", 100), "a\\nb\\u{1b}[31m\\u{7f}");
        assert_eq!(escape("evil\u{202e}txt.exe\u{feff}", 100), "evil\\u{202e}txt.exe\\u{feff}");
        assert_eq!(escape("äbc", 2), "äb… (4 bytes)");
    }

    proptest! {
        #[test]
        fn the_output_is_safe_and_bounded(text in any::<String>(), max in 0usize..64) {
            let out = escape(&text, max);
            prop_assert!(!out.contains(is_unsafe));
            prop_assert!(out.chars().count() <= max * 10 + 40);
        }
    }
}
