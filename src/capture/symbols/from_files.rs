//! Names from the files of the executable and the libraries, by heeler's own reader.
//!
//! `backtrace` would index all debug information of a file and keep it, under a lock that the application's own
//! backtraces wait for.

use std::path::Path;

use super::debug_information::{self, Name, Probe};
use super::object_file::ObjectFile;
use super::{Address, Named, demangled, identity, symbol_table};

/// Returns what is known about each of `addresses`, innermost first. They are of one module, and ascend.
pub(super) fn look_up(addresses: &[&Address]) -> Vec<Vec<Named>> {
    // A return address may belong to the next function, or the next line, because the call is before it.
    let address_of = |address: &&Address| address.relative.wrapping_sub(u64::from(address.is_return));
    let mut probes: Vec<Probe> =
        addresses.iter().map(|address| Probe { address: address_of(address), places: Vec::new() }).collect();
    let module = addresses.first().and_then(|address| address.module.as_deref());
    let Some((module, mut file)) = module.and_then(|module| Some((module, ObjectFile::open(module)?))) else {
        return Vec::new();
    };
    let mut order: Vec<usize> = (0..probes.len()).collect();
    order.sort_by_key(|at| probes[*at].address);
    probes.sort_by_key(|probe| probe.address);
    let mut separate = if file.has_debug_information() { None } else { file.open_separate(module) };
    let with_debug_information = separate.as_mut().unwrap_or(&mut file);
    if with_debug_information.inflate().is_ok() {
        let sections = with_debug_information.sections(|id| Some(id.name()));
        debug_information::name(&sections, Path::new(&module.path), &mut probes);
    }
    let mut named: Vec<Vec<Named>> = probes.iter_mut().map(readable_places).collect();
    for file in separate.iter().chain([&file]) {
        by_symbol_table(file, &probes, &mut named);
    }
    let mut in_order: Vec<Vec<Named>> = vec![Vec::new(); named.len()];
    for (at, places) in order.into_iter().zip(named) {
        in_order[at] = places;
    }
    in_order
}

fn readable_places(probe: &mut Probe) -> Vec<Named> {
    let places = probe.places.iter_mut().map(|place| Named {
        function: match &place.function {
            Some(Name::Linkage(name)) => demangled(name),
            Some(Name::Plain(name)) => super::readable(name),
            None => None,
        },
        file: place.file.take(),
        line: place.line,
        identity: match &place.function {
            Some(Name::Linkage(name)) => identity(name),
            Some(Name::Plain(_)) | None => 0,
        },
    });
    places.collect()
}

/// Fills in functions that the debug information does not name, or not in full.
fn by_symbol_table(file: &ObjectFile, probes: &[Probe], named: &mut [Vec<Named>]) {
    let is_full =
        |probe: &Probe| probe.places.last().is_some_and(|place| matches!(place.function, Some(Name::Linkage(_))));
    let unnamed: Vec<usize> = (0..probes.len()).filter(|at| !is_full(&probes[*at])).collect();
    if unnamed.is_empty() {
        return;
    }
    let addresses: Vec<u64> = unnamed.iter().map(|at| probes[*at].address).collect();
    symbol_table::search(file, &addresses, |found, name| {
        let places = &mut named[unnamed[found]];
        if places.is_empty() {
            places.push(Named::default());
        }
        let Some(physical) = places.last_mut() else { return };
        // A C function has one name there and another here, and neither is mangled.
        if physical.function.is_none() || rustc_demangle::try_demangle(name).is_ok() {
            physical.function = demangled(name).or(physical.function.take());
            physical.identity = identity(name);
        }
    });
}
