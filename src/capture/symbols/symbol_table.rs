//! Function names from the linker's table, for code without debug information.
//!
//! It is read from start to end for each handful of addresses. That takes some milliseconds in a large binary. An index
//! would take megabytes that are kept for nothing.

use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::Sym as _;
use object::{NativeEndian, Object as _, ObjectSymbol as _};

use super::object_file::ObjectFile;

/// Calls `found` for each of `addresses` (of the file, ascending) that a function covers, with its index and the
/// function's mangled name.
pub(super) fn search<'a>(file: &'a ObjectFile, addresses: &[u64], mut found: impl FnMut(usize, &'a str)) {
    let mut is_known = vec![false; addresses.len()];
    each_function(file, |start, size, name| {
        let from = addresses.partition_point(|address| *address < start);
        for (at, address) in addresses.iter().enumerate().skip(from) {
            if address - start >= size {
                break;
            }
            if !std::mem::replace(&mut is_known[at], true) {
                found(at, name);
            }
        }
        true
    });
}

/// Calls `visit` with each function's address, size and mangled name, until it has seen enough.
pub(super) fn each_function<'a>(file: &'a ObjectFile, mut visit: impl FnMut(u64, u64, &'a str) -> bool) {
    let Some(elf) = file.elf() else { return };
    // A stripped library still has the functions that other modules may call.
    for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
        let raw = symbol.elf_symbol();
        let is_function = matches!(raw.st_type(), STT_FUNC | STT_GNU_IFUNC) && !raw.is_undefined(NativeEndian);
        if is_function
            && symbol.size() > 0
            && let Ok(name) = symbol.name()
            && !visit(symbol.address(), symbol.size(), name)
        {
            return;
        }
    }
}
