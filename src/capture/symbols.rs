//! Addresses → functions, files and lines.
//!
//! Naming is the slow part of a report: the first one reads the executable's debug information, which takes up to
//! hundreds of milliseconds. It happens on the reporter thread alone, and every address is named once.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::crates::is_own;
use super::frame::Frame;
use super::names::readable;

/// How many addresses are remembered. A service has a few thousand places at which it waits or blocks, and an entry is
/// some 500 bytes. When it is full, all is forgotten at once: a program that reaches this many has no small working set
/// that an LRU order would keep, and naming an address again costs microseconds, for the parsed debug information stays.
const MAX_CACHED: usize = 16_384;

/// An executable or library.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ModuleName {
    /// The file's name, or `[vdso]`.
    pub(crate) name: String,
    /// The file's path.
    pub(crate) path: String,
    /// The GNU build id, hexadecimal.
    pub(crate) build_id: Option<String>,
}

/// A place in the code of this process.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The program counter.
    pub(crate) pc: u64,
    /// Whether `pc` is a return address, so that the place is the call before it. The first frame of a thread's stack
    /// is none.
    pub(crate) is_return: bool,
    /// The module that `pc` is in, if known.
    pub(crate) module: Option<Arc<ModuleName>>,
    /// `pc` relative to that module's start (to its lowest mapped address), which is what tools take for offline naming.
    pub(crate) relative: u64,
}

/// Names addresses, and remembers them. Belongs to the reporter thread.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: HashMap<(u64, bool), Known>,
    broken: bool,
}

#[derive(Debug)]
struct Known {
    // A library can be unloaded, and another be loaded to the same addresses: a name is good for its module only.
    module: Option<Arc<ModuleName>>,
    frames: Arc<[Frame]>,
}

impl Symbols {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The frames at `address`, innermost first: the functions inlined there, then the one that has the code. At least
    /// one, if only with an address. `source` is not filled in: that is done for the reports that go out.
    pub(crate) fn name(&mut self, address: &Address) -> Arc<[Frame]> {
        let key = (address.pc, address.is_return);
        if let Some(known) = self.known.get(&key)
            && known.module == address.module
        {
            return Arc::clone(&known.frames);
        }
        let frames: Arc<[Frame]> = self.look_up(address).into();
        if self.known.len() >= MAX_CACHED {
            self.known.clear();
        }
        self.known.insert(key, Known { module: address.module.clone(), frames: Arc::clone(&frames) });
        frames
    }

    /// Forgets everything, the list of loaded libraries included: to be called when one was loaded or unloaded.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        backtrace::clear_symbol_cache();
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, address: &Address) -> Vec<Frame> {
        let module = address.module.as_deref();
        let bare = Frame {
            module: module.map(|module| module.name.clone()),
            build_id: module.and_then(|module| module.build_id.clone()),
            address: format!("{:#x}", address.relative),
            ..Frame::default()
        };
        let mut frames = Vec::new();
        if !self.broken {
            // `resolve` takes one off what it is given, for it expects a return address.
            let pc = if address.is_return { address.pc } else { address.pc.saturating_add(1) };
            let found = catch_unwind(AssertUnwindSafe(|| {
                backtrace::resolve(std::ptr::without_provenance_mut(pc as usize), |symbol| {
                    let function = symbol.name().and_then(|name| readable(&format!("{name:#}")));
                    let file = symbol.filename().map(|path| path.to_string_lossy().into_owned());
                    let path = module.map(|module| module.path.as_str());
                    let own = is_own(function.as_deref(), file.as_deref(), path);
                    frames.push(Frame { function, file, line: symbol.lineno(), own, inlined: true, ..bare.clone() });
                });
            }));
            // Debug information that makes its parser panic would do so again, and leaves its lock poisoned.
            self.broken = found.is_err();
        }
        if frames.is_empty() {
            frames.push(bare);
        }
        if let Some(physical) = frames.last_mut() {
            physical.inlined = false;
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(pc: usize, is_return: bool) -> Address {
        let module =
            ModuleName { name: "unit".to_owned(), path: "/opt/unit".to_owned(), build_id: Some("ab".to_owned()) };
        Address { pc: pc as u64, is_return, module: Some(Arc::new(module)), relative: 0x1f00 }
    }

    #[inline(never)]
    fn target(input: u64) -> u64 {
        std::hint::black_box(input) + 1
    }

    /// Guards: an exact address is not taken for a return address, at a function's very first instruction, where one
    /// less is another function.
    #[test]
    fn names_the_first_instruction() {
        target(1);
        let mut symbols = Symbols::new();
        let frames = symbols.name(&address(target as fn(u64) -> u64 as usize, false));
        let frame = frames.last().unwrap();
        assert_eq!(frame.function.as_deref(), Some("heeler::capture::symbols::tests::target"));
        assert!(frame.file.as_deref().unwrap().ends_with("src/capture/symbols.rs"));
        assert!(frame.line.is_some());
        assert!(!frame.own, "heeler's code is not the application's");
        assert!(!frame.inlined);
        assert_eq!((frame.module.as_deref(), frame.build_id.as_deref()), (Some("unit"), Some("ab")));
        assert_eq!(frame.address, "0x1f00");
    }

    #[test]
    fn names_a_return_address() {
        let mut here = Vec::new();
        backtrace::trace(|frame| {
            here.push(frame.ip() as usize);
            true
        });
        let mut symbols = Symbols::new();
        let frames: Vec<Frame> = here.iter().flat_map(|&ip| symbols.name(&address(ip, true)).to_vec()).collect();
        let this = "heeler::capture::symbols::tests::names_a_return_address";
        assert!(frames.iter().any(|frame| frame.function.as_deref() == Some(this)), "{frames:#?}");
    }

    #[test]
    fn remembers_and_forgets() {
        let mut symbols = Symbols::new();
        let at = address(target as fn(u64) -> u64 as usize, false);
        let first = symbols.name(&at);
        assert!(Arc::ptr_eq(&first, &symbols.name(&at)));
        // Another library at the same address.
        let mut other = at.clone();
        other.module = None;
        assert_eq!(symbols.name(&other).last().unwrap().module, None);
        symbols.forget();
        assert!(!Arc::ptr_eq(&first, &symbols.name(&at)));
    }

    /// Guards: an address of nothing is a frame with an address, and the cache is bounded.
    #[test]
    fn unknown_addresses_and_the_bound() {
        let mut symbols = Symbols::new();
        for pc in [0, 1, usize::MAX] {
            for is_return in [true, false] {
                let frames = symbols.name(&address(pc, is_return));
                assert_eq!(frames.len(), 1);
                assert_eq!(frames[0].function, None);
            }
        }
        symbols.broken = true;
        for pc in 0..=MAX_CACHED {
            symbols.name(&address(pc, true));
        }
        assert!(symbols.known.len() <= MAX_CACHED);
    }
}
