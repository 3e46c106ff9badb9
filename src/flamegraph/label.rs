//! Text on a box: short enough to read, and harmless.

use std::fmt::Write as _;

use crate::capture::Frame;
use crate::text::escape::escape;
use crate::text::units::at;

/// The most characters on a box.
const MAX_LABEL: usize = 160;

/// A function's name longer than this loses what is between `<` and `>`.
const MAX_FUNCTION: usize = 80;

/// Generic arguments this short stay: `<T>`.
const SHORT_GENERICS: usize = 8;

/// `photos::slow::load src/slow.rs:33`, as far as known. Long generic types and long names are shortened, and keep both
/// ends.
pub(crate) fn frame(frame: &Frame) -> String {
    let function = frame.function.as_deref().map(shorten);
    let place = at(frame.file.as_deref(), frame.line);
    text(&match (function, place) {
        (Some(function), Some(place)) => format!("{function} {}", ends(&place, MAX_LABEL / 2)),
        (Some(function), None) => function,
        (None, Some(place)) => place,
        (None, None) => {
            let module = frame.module.as_ref().map(|module| format!(" in {module}")).unwrap_or_default();
            format!("{}{module}", frame.address)
        }
    })
}

/// Shortens and escapes any text: no control characters, and none that XML cannot hold.
pub(crate) fn text(text: &str) -> String {
    safe(&ends(text, MAX_LABEL), MAX_LABEL)
}

/// Escapes at most `max` characters of `text` so that XML can hold them.
pub(crate) fn safe(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in escape(text, usize::MAX).chars() {
        match c {
            // XML doesn't accept these as characters.
            '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    ends(&out, max)
}

/// Returns at most `max` characters of `text`, taken from both ends.
fn ends(text: &str, max: usize) -> String {
    let front = max / 2;
    let back = max - front - 1;
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    let front = text.char_indices().nth(front).map_or(text.len(), |(at, _)| at);
    let back = text.char_indices().nth_back(back.max(1) - 1).map_or(0, |(at, _)| at);
    format!("{}…{}", &text[..front], &text[back..])
}

/// Leaves out the generic arguments of a function's name if it is long: `Map<…>::poll`, `<Map<…> as Future>::poll`.
fn shorten(function: &str) -> String {
    if function.chars().nth(MAX_FUNCTION).is_none() {
        return function.to_owned();
    }
    let mut out = String::new();
    let mut rest = function;
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        // `<T as Trait>::method` isn't a list of arguments.
        let is_list = out.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'));
        let Some(length) = matching(rest) else { break };
        if is_list && rest[..length].chars().count() > SHORT_GENERICS + 2 {
            out.push_str("<…>");
            rest = &rest[length..];
        } else {
            out.push('<');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// Returns the length of the front of `text`, which begins with `<`, up to the `>` that closes it.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut before = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            // The arrow of `fn() -> T`.
            b'>' if before == b'-' => {}
            b'>' if depth == 1 => return Some(at + 1),
            b'>' => depth -= 1,
            _ => {}
        }
        before = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::own;

    #[test]
    fn short_names_are_unchanged() {
        assert_eq!(frame(&own("app::Cache<K, V>::get", 7)), "app::Cache<K, V>::get src/app.rs:7");
        let bare = Frame { module: Some("libc.so.6".to_owned()), address: "0x1f00".to_owned(), ..Frame::default() };
        assert_eq!(frame(&bare), "0x1f00 in libc.so.6");
    }

    /// Guards: a long generic type still shows whose method it is.
    #[test]
    fn long_names_keep_their_ends() {
        let deep = "core::pin::Pin<alloc::boxed::Box<dyn Fn() -> u8>>, ".repeat(100);
        let table = [
            (format!("app::Store<{deep}>::load"), "app::Store<…>::load"),
            (
                format!("<futures_util::Map<{deep}> as core::future::Future<{deep}>>::poll"),
                "<futures_util::Map<…> as core::future::Future<…>>::poll",
            ),
            (format!("app::parse::<{deep}, 7>"), "app::parse::<…>"),
            (format!("<T as app::Store<{deep}>>::get::<T>"), "<T as app::Store<…>>::get::<T>"),
        ];
        for (function, expected) in table {
            assert_eq!(frame(&own(&function, 7)), format!("{expected} src/app.rs:7"));
        }
        for function in ["<".repeat(5_000), "x<".repeat(5_000), "ä".repeat(5_000), format!("<a->{}", ">".repeat(5_000))]
        {
            let label = frame(&own(&format!("app::{function}::load"), 7));
            assert!(label.chars().count() <= MAX_LABEL, "{label}");
            assert!(label.starts_with("app::") && label.ends_with("::load src/app.rs:7"), "{label}");
        }
    }

    #[test]
    fn characters_outside_of_xml_are_escaped() {
        assert_eq!(text("a\nb\u{0}\u{fffe}\u{ffff}\u{202e}"), "a\\nb\\u{0}\\u{fffe}\\u{ffff}\\u{202e}");
        assert_eq!(safe("abcdefghij", 5), "ab…ij");
        assert!(text(&"\u{0}".repeat(5_000)).chars().count() <= MAX_LABEL);
        assert_eq!((ends("äöüß", 4).as_str(), ends("äöüßx", 3).as_str()), ("äöüß", "ä…x"));
    }
}
