//! The names that were found, which are kept for the next report.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Address, Frame, ModuleName, Named, is_own};

/// How many bytes of names are kept. A service has a few thousand places at which it waits or blocks, with some 100
/// bytes each, because functions and files are shared.
const MAX_BYTES: usize = 1 << 20;

/// The program counter, and whether it is a return address.
type Key = (u64, bool);

#[derive(Debug, Default)]
pub(super) struct NamesKept {
    known: HashMap<Key, Known>,
    texts: HashSet<Arc<str>>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    // A library can be unloaded, and another, or the same elsewhere, be loaded at the same addresses.
    module: Option<Arc<ModuleName>>,
    relative: u64,
    /// Innermost first, and at least one.
    places: Box<[Place]>,
}

#[derive(Debug, Default)]
struct Place {
    function: Option<Arc<str>>,
    file: Option<Arc<str>>,
    line: Option<u32>,
    own: bool,
    identity: u64,
}

impl NamesKept {
    pub(super) fn has(&self, address: &Address) -> bool {
        self.find(address).is_some()
    }

    fn find(&self, address: &Address) -> Option<&Known> {
        let known = self.known.get(&(address.pc, address.is_return))?;
        (known.relative == address.relative && known.module == address.module).then_some(known)
    }

    /// Returns the frames at an address. Without a name, there is one with only the address.
    pub(super) fn frames(&self, address: &Address) -> impl Iterator<Item = Frame> {
        let unknown: &[Place] = &[Place { function: None, file: None, line: None, own: false, identity: 0 }];
        let places = self.find(address).map_or(unknown, |known| &known.places);
        let module = address.module.clone();
        let (relative, has_left) = (address.relative, address.has_left);
        places.iter().enumerate().map(move |(at, place)| Frame {
            function: place.function.as_deref().map(str::to_owned),
            file: place.file.as_deref().map(str::to_owned),
            line: place.line,
            source: None,
            module: module.as_ref().map(|module| module.name.clone()),
            build_id: module.as_ref().and_then(|module| module.build_id.clone()),
            address: format!("{relative:#x}"),
            own: place.own,
            inlined: at + 1 < places.len(),
            tail_call: has_left,
            identity: place.identity,
        })
    }

    /// Returns whether there is more than should be kept for the next report.
    pub(super) fn is_too_much(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    /// Keeps what was found at an address, innermost first.
    pub(super) fn keep(&mut self, address: &Address, found: &[Named]) {
        let path = address.module.as_ref().map(|module| module.path.as_str());
        let mut places: Vec<Place> = Vec::with_capacity(found.len().max(1));
        for place in found {
            let own = is_own(place.function.as_deref(), place.file.as_deref(), path);
            let [function, file] =
                [&place.function, &place.file].map(|text| text.as_deref().map(|text| self.text(text)));
            places.push(Place { function, file, line: place.line, own, identity: place.identity });
        }
        if places.is_empty() {
            places.push(Place::default());
        }
        // Hash tables have room for twice what is in them.
        self.bytes += 2 * size_of::<(Key, Known)>() + size_of_val(&*places);
        let known = Known { module: address.module.clone(), relative: address.relative, places: places.into() };
        self.known.insert((address.pc, address.is_return), known);
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.bytes += 4 * size_of::<usize>() + 2 * size_of::<Arc<str>>() + text.len();
        self.texts.insert(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(pc: u64) -> Address {
        Address { pc, is_return: true, module: None, relative: pc, has_left: false }
    }

    /// Guards: texts are stored once, and it is noticed when there are too many.
    #[test]
    fn each_text_is_stored_and_counted_once() {
        let mut kept = NamesKept::default();
        let mut count = 0;
        while !kept.is_too_much() {
            let function = Some(format!("app::f{count}"));
            kept.keep(
                &address(count),
                &[Named { function, file: Some("src/a.rs".to_owned()), line: Some(1), ..Named::default() }],
            );
            count += 1;
        }
        assert!((1_000..20_000).contains(&count), "{count}");
        let files: HashSet<*const u8> =
            kept.known.values().map(|known| known.places[0].file.as_ref().unwrap().as_ptr()).collect();
        assert_eq!(files.len(), 1);
        let first: Vec<Frame> = kept.frames(&address(0)).collect();
        assert_eq!(first[0].function.as_deref(), Some("app::f0"));
    }

    /// Guards: the same library at another address has another function there.
    #[test]
    fn names_belong_to_a_place_in_a_module() {
        let mut kept = NamesKept::default();
        kept.keep(&address(7), &[]);
        assert!(kept.has(&address(7)));
        assert!(!kept.has(&Address { relative: 8, ..address(7) }));
    }
}
