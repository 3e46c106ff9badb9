//! Turns function names as the compiler wrote them into names that a reader knows.
//!
//! The body of an `async fn load` is a closure-like item *inside* `load`, named `app::load::{{closure}}` (legacy
//! mangling), `app::load::{closure#0}` (v0) or, without a linkage name, `{async_fn#0}`. A reader looks for `app::load`.

/// The longest name that [`readable`] returns, in characters.
pub(crate) const MAX_NAME: usize = 200;

/// A generic argument list longer than this many bytes becomes `<..>`.
const MAX_GENERICS: usize = 40;

/// More of a demangled name is not read. Some are megabytes long, and the front says what it is.
const MAX_INPUT: usize = 16 * 1024;

/// Returns the function in a demangled name, or `None` if it contains nothing that a reader would know.
///
/// Closure and async-block segments and legacy hashes are dropped, long generic arguments are shortened to `<..>`, and
/// `<app::Photo>::load` is written `app::Photo::load`. At most [`MAX_NAME`] characters.
pub(crate) fn readable(demangled: &str) -> Option<String> {
    let input = without_hash(front(demangled, MAX_INPUT));
    let named = without_closures(input);
    let short = unwrap_self_type(shorten(&named, MAX_GENERICS));
    if short.is_empty() {
        return None;
    }
    if short.chars().nth(MAX_NAME).is_none() {
        return Some(short);
    }
    let shorter = shorten(&short, 0);
    match shorter.char_indices().nth(MAX_NAME - 1) {
        Some((cut, _)) if shorter.len() > cut + 1 => Some(format!("{}…", &shorter[..cut])),
        _ => Some(shorter),
    }
}

/// Returns the first `max` bytes of `text`, or a few less so as not to split a character.
pub(crate) fn front(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// `app::load::h0123456789abcdef` → `app::load`.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest,
        _ => name,
    }
}

/// Drops the segments that stand for closures, async blocks and their environments, wherever they are, with their
/// generic arguments and the `::` before them.
fn without_closures(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(open) = rest.find('{') {
        let group = &rest[open..open + braces(&rest[open..])];
        out.push_str(&rest[..open]);
        rest = &rest[open + group.len()..];
        if !is_closure(group) {
            out.push_str(group);
            continue;
        }
        for prefix in ["<", "::<"] {
            if rest.starts_with(prefix) {
                rest = &rest[prefix.len() - 1..];
                rest = &rest[angles(rest)..];
            }
        }
        if out.ends_with("::") {
            out.truncate(out.len() - 2);
        } else if let Some(inner) = rest.strip_prefix("::") {
            rest = inner;
        }
    }
    out.push_str(rest);
    out
}

/// Returns the length of the brace group at the start of `text`, or of all of it if the group does not end.
fn braces(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the `<..>` group at the start of `text`, or of all of it if the group does not end.
fn angles(text: &str) -> usize {
    let mut depth = 0usize;
    let mut before = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before == b'-' => {}
            b'>' if depth == 1 => return at + 1,
            b'>' => depth -= 1,
            _ => {}
        }
        before = byte;
    }
    text.len()
}

/// `{{closure}}`, `{closure#0}`, `{async_fn#0}`, `{async_block_env#1}`, .. but not `{{vtable.shim}}` or
/// `{shim:vtable#0}`.
fn is_closure(group: &str) -> bool {
    let inner = group.trim_matches(['{', '}']);
    let kind = inner.split_once('#').map_or(inner, |(kind, _)| kind);
    let kind = kind.strip_suffix("_env").unwrap_or(kind);
    matches!(
        kind,
        "closure"
            | "coroutine"
            | "coroutine-closure"
            | "extern"
            | "async_fn"
            | "async_block"
            | "async_closure"
            | "gen_fn"
            | "gen_block"
            | "gen_closure"
            | "async_gen_fn"
            | "async_gen_block"
            | "async_gen_closure"
    )
}

/// Replaces generic argument lists of more than `max` bytes by `<..>`, inner ones first.
///
/// `<T as Trait>` and `<impl Trait for T>` aren't argument lists. They name the function, and stay.
fn shorten(name: &str, max: usize) -> String {
    let mut out = String::with_capacity(name.len());
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut before = ' ';
    for (at, c) in name.char_indices() {
        match c {
            '<' => {
                let names =
                    matches!(before, ' ' | '<' | '(' | '[' | '&' | ',' | '*') || name[at + 1..].starts_with("impl ");
                open.push((out.len(), names));
                out.push(c);
            }
            '>' if before != '-' => {
                out.push(c);
                if let Some((start, names)) = open.pop()
                    && !names
                    && out.len() - start > max.max("<..>".len())
                {
                    out.truncate(start);
                    out.push_str("<..>");
                }
            }
            _ => out.push(c),
        }
        before = c;
    }
    out
}

/// `<app::Photo>::load` (v0's way to write an inherent method) → `app::Photo::load`. Anything else stays as it is.
fn unwrap_self_type(name: String) -> String {
    if !name.starts_with('<') {
        return name;
    }
    let end = angles(&name);
    let inner = name[..end].strip_suffix('>').map_or("", |group| &group[1..]);
    let is_path = inner.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !["dyn ", "fn(", "unsafe ", "extern ", "impl "].iter().any(|start| inner.starts_with(start))
        && !inner.contains(" as ");
    if is_path { format!("{inner}{}", &name[end..]) } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demangled(mangled: &str) -> String {
        format!("{:#}", backtrace::SymbolName::new(mangled.as_bytes()))
    }

    /// Guards: what a reader sees in front of `file:line`, for names as rustc and DWARF really spell them.
    #[test]
    fn names_are_shortened_for_readers() {
        let table = [
            // Legacy mangling, as in debug info with "limited".
            ("app::load::{{closure}}", "app::load"),
            ("app::load::{{closure}}::{{closure}}::{{closure}}", "app::load"),
            ("app::load::h0123456789abcdef", "app::load"),
            (
                "<s::app::Photo<T> as s::app::Store>::get::{{closure}}::{{closure}}",
                "<s::app::Photo<T> as s::app::Store>::get",
            ),
            ("s::app::Photo<T>::mine::{{closure}}", "s::app::Photo<T>::mine"),
            (
                "app::store::<impl app::Trait for alloc::vec::Vec<T>>::get",
                "app::store::<impl app::Trait for alloc::vec::Vec<T>>::get",
            ),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            ),
            ("tokio::sync::mutex::Mutex<T>::lock::{{closure}}::{{closure}}", "tokio::sync::mutex::Mutex<T>::lock"),
            (
                "<core::pin::Pin<P> as core::future::future::Future>::poll",
                "<core::pin::Pin<P> as core::future::future::Future>::poll",
            ),
            // v0 mangling.
            ("s::app::inner::<alloc::string::String>::{closure#0}", "s::app::inner::<alloc::string::String>"),
            ("<s::app::Photo<alloc::string::String>>::mine::{closure#0}", "s::app::Photo<alloc::string::String>::mine"),
            (
                "<s::app::Photo<alloc::string::String> as s::app::Store>::get::{closure#0}::{closure#0}",
                "<s::app::Photo<alloc::string::String> as s::app::Store>::get",
            ),
            (
                "<fn() as core::ops::function::FnOnce<()>>::call_once",
                "<fn() as core::ops::function::FnOnce<()>>::call_once",
            ),
            ("<str>::trim", "str::trim"),
            ("<[u8]>::len", "<[u8]>::len"),
            ("<dyn app::Store>::get", "<dyn app::Store>::get"),
            (
                "std::panicking::catch_unwind::<isize, std::rt::lang_start_internal::{closure#0}>",
                "std::panicking::catch_unwind::<isize, std::rt::lang_start_internal>",
            ),
            (
                "std::panicking::catch_unwind::<i32, &dyn core::ops::function::Fn<(), Output = i32> + core::marker::Sync>",
                "std::panicking::catch_unwind::<..>",
            ),
            (
                "<F as core::ops::function::FnOnce<()>>::call_once::{shim:vtable#0}",
                "<F as core::ops::function::FnOnce<()>>::call_once::{shim:vtable#0}",
            ),
            // DWARF names without a linkage name.
            ("poll<app::load::{async_fn_env#0}>", "poll<app::load>"),
            (
                "poll<alloc::boxed::Box<app::load::{async_fn_env#0}<alloc::string::String>, alloc::alloc::Global>>",
                "poll<..>",
            ),
            (
                "drop_in_place<core::option::Option<app::load::{async_block_env#3}>>",
                "drop_in_place<core::option::Option<app::load>>",
            ),
            ("call_once<fn(usize) -> u8, ()>", "call_once<fn(usize) -> u8, ()>"),
            ("thumbnail_cache_entry", "thumbnail_cache_entry"),
            ("app::{impl#3}::method", "app::{impl#3}::method"),
            ("{closure#0}::inner", "inner"),
            // C, and C++ as it is.
            ("__futex_abstimed_wait_common64", "__futex_abstimed_wait_common64"),
            ("_ZNSt6thread4joinEv", "_ZNSt6thread4joinEv"),
        ];
        for (input, expected) in table {
            assert_eq!(readable(input).as_deref(), Some(expected), "{input}");
        }
        for nothing in [
            "",
            "{async_fn#0}",
            "{async_fn#0}<alloc::string::String>",
            "{async_block#0}",
            "{{closure}}",
            "{closure_env#0}<T>",
        ] {
            assert_eq!(readable(nothing), None, "{nothing}");
        }
    }

    /// Guards: the same for names that the linker sees, through the demangler in use.
    #[test]
    fn mangled_names_are_made_readable() {
        let table = [
            ("_ZN3app4load28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE", "app::load"),
            (
                "_ZN4core3ops8function6FnOnce40call_once$u7b$$u7b$vtable.shim$u7d$$u7d$17h0123456789abcdefE",
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            ),
            (
                "_ZN57_$LT$app..Photo$LT$T$GT$$u20$as$u20$app..store..Store$GT$3get17h0123456789abcdefE",
                "<app::Photo<T> as app::store::Store>::get",
            ),
            ("_RNCNvCs1234_3app4load0", "app::load"),
            ("_RNCNCNvCs1234_3app4load00", "app::load"),
            ("_RNvMCs1234_3appNtB2_5Photo4load", "app::Photo::load"),
            ("_RNvXCs1234_3appNtB2_5PhotoNtB2_5Store3get", "<app::Photo as app::Store>::get"),
        ];
        for (input, expected) in table {
            assert_eq!(readable(&demangled(input)).as_deref(), Some(expected), "{input} {}", demangled(input));
        }
    }

    /// Guards: a huge generic name, or one from a hostile library, stays on one line and costs no time.
    #[test]
    fn long_names_are_cut() {
        let deep = format!("app::run::{}u8{}", "<alloc::vec::Vec".repeat(20_000), ">".repeat(20_000));
        assert_eq!(readable(&deep).map(|name| name.chars().count() <= MAX_NAME), Some(true));
        let long = "ä".repeat(100_000);
        let cut = readable(&long).unwrap();
        assert_eq!(cut.chars().count(), MAX_NAME);
        assert!(cut.ends_with('…'));
        let trait_for_long = format!("<{} as app::Store>::get", "a::".repeat(100));
        assert_eq!(readable(&trait_for_long).unwrap().chars().count(), MAX_NAME);
        assert_eq!(readable(&"x".repeat(MAX_NAME)).unwrap(), "x".repeat(MAX_NAME));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_bounded_name(input in "\\PC*") {
            prop_assert!(readable(&input).is_none_or(|name| !name.is_empty() && name.chars().count() <= MAX_NAME));
        }

        #[test]
        fn any_name_like_text_gives_a_bounded_name(
            parts in proptest::collection::vec(
                prop::sample::select(vec!["<", ">", "::", "{", "}", "{{closure}}", "{closure#0}", "{async_fn_env#0}", " as ", "->", "a", "impl ", "&", "é"]),
                0..60,
            )
        ) {
            let input = parts.concat();
            prop_assert!(readable(&input).is_none_or(|name| !name.is_empty() && name.chars().count() <= MAX_NAME));
        }
    }
}
