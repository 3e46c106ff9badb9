//! Finds out how much debug information the program has, without reading much of it.

#[cfg(heeler_copies)]
use std::path::Path;

/// What a report can name in the application's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DebugInformation {
    /// Functions, including inlined ones, files and lines.
    Full,
    /// Files and lines. Inlined functions have no full names.
    Lines,
    /// There is debug information, but not in a form that heeler reads.
    Unreadable,
    /// Functions that were not inlined.
    SymbolTable,
    Nothing,
}

/// Looks at the one unit of the debug information that has the application's `main`, or, in a library, heeler's own
/// code.
///
/// Headers alone are not enough. Every binary that was not stripped has some debug information, because the standard
/// library has.
#[cfg(heeler_copies)]
pub(crate) fn survey() -> DebugInformation {
    let here = survey as *const () as u64;
    let modules = crate::capture::modules::Modules::current();
    let module = modules.find(here);
    module.map_or(DebugInformation::Nothing, |module| survey_of(&module.name, here.wrapping_sub(module.bias)))
}

/// Does the same for a module. `other` is an address in its file, for modules without `main`.
#[cfg(heeler_copies)]
pub(super) fn survey_of(module: &super::ModuleName, other: u64) -> DebugInformation {
    use super::debug_information::has_full_names;
    use super::object_file::ObjectFile;
    use super::symbol_table::each_function;

    let Some(mut file) = ObjectFile::open(module) else { return DebugInformation::Nothing };
    let mut separate = if file.has_debug_information() { None } else { file.open_separate(module) };
    let (mut main, mut has_symbols) = (None, false);
    for file in separate.iter().chain([&file]) {
        each_function(file, |address, _, name| {
            // A stripped program has the names of what it calls, and of what is called in it. Those don't count.
            has_symbols |= rustc_demangle::try_demangle(name).is_ok();
            if is_main(name) {
                main = Some(address);
            }
            main.is_none()
        });
    }
    let with_debug_information = separate.as_mut().unwrap_or(&mut file);
    let is_readable = with_debug_information.inflate().is_ok();
    let sections = with_debug_information.sections(|id| Some(id.name()));
    let full = || has_full_names(&sections, Path::new(&module.path), main.unwrap_or(other));
    match (is_readable, is_readable.then(full).flatten()) {
        (_, Some(true)) => DebugInformation::Full,
        (_, Some(false)) => DebugInformation::Lines,
        (false, None) => DebugInformation::Unreadable,
        (true, None) if has_symbols => DebugInformation::SymbolTable,
        (true, None) => DebugInformation::Nothing,
    }
}

/// Returns whether a mangled name is that of `main` in the root of a crate.
#[cfg(heeler_copies)]
fn is_main(name: &str) -> bool {
    name.contains("4main")
        && rustc_demangle::try_demangle(name).is_ok_and(|name| {
            let name = format!("{name:#}");
            name.strip_suffix("::main").is_some_and(|root| !root.contains(':'))
        })
}

/// Looks at what is known about one of heeler's own functions.
#[cfg(not(heeler_copies))]
pub(crate) fn survey() -> DebugInformation {
    let (mut has_line, mut has_name) = (false, false);
    let look = |symbol: &backtrace::Symbol| {
        has_line |= symbol.lineno().is_some();
        has_name |= symbol.name().is_some();
    };
    crate::capture::unforked::unforked(|| {
        backtrace::resolve(survey as *mut std::ffi::c_void, look);
        // It was read only for this.
        backtrace::clear_symbol_cache();
    });
    match (has_line, has_name) {
        (true, _) => DebugInformation::Full,
        (false, true) => DebugInformation::SymbolTable,
        (false, false) => DebugInformation::Nothing,
    }
}

#[cfg(all(test, heeler_copies))]
mod tests {
    use super::*;

    #[test]
    fn recognises_the_main_function() {
        for (name, expected) in [
            ("_ZN3app4main17h0123456789abcdefE", true),
            ("_RNvCs1234_3app4main", true),
            ("_ZN3app3cli4main17h0123456789abcdefE", false),
            ("main", false),
            ("_ZN3app6domain4load17h0123456789abcdefE", false),
        ] {
            assert_eq!(is_main(name), expected, "{name}");
        }
    }
}
