//! Names from the `backtrace` crate, on platforms whose executables heeler cannot read.

use super::{Address, Named, readable};
use crate::capture::unforked::unforked;

/// Returns what is known about each of `addresses`, innermost first.
pub(super) fn look_up(addresses: &[&Address]) -> Vec<Vec<Named>> {
    addresses.iter().map(|address| named(address)).collect()
}

fn named(address: &Address) -> Vec<Named> {
    // `resolve` subtracts one from what it is given, because it expects a return address.
    let pc = if address.is_return { address.pc } else { address.pc.saturating_add(1) };
    let mut found = Vec::new();
    let find = |symbol: &backtrace::Symbol| {
        let function = symbol.name().and_then(|name| readable(&format!("{name:#}")));
        let file = symbol.filename().map(|path| path.to_string_lossy().into_owned());
        found.push(Named { function, file, line: symbol.lineno(), ..Named::default() });
    };
    unforked(|| backtrace::resolve(std::ptr::without_provenance_mut(pc as usize), find));
    found
}
