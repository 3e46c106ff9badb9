//! Addresses → functions, files and lines.
//!
//! Symbolizing is the slow part of a report. It happens on heeler's own threads, an address is symbolized once, and the
//! file of a module is mapped only during that. Only the names are kept, up to a limit.

#[cfg(heeler_copies)]
mod debug_information;
#[cfg(heeler_copies)]
mod lines;
mod names_kept;
#[cfg(heeler_copies)]
mod object_file;
#[cfg(heeler_copies)]
mod split;
mod survey;
#[cfg(heeler_copies)]
mod symbol_table;

#[cfg(heeler_copies)]
#[path = "from_files.rs"]
mod look_up;
#[cfg(not(heeler_copies))]
#[path = "portable.rs"]
mod look_up;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::names_kept::NamesKept;
use super::crates::is_own;
use super::frame::Frame;
use super::names::readable;

pub(crate) use survey::{DebugInformation, survey};

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
    /// isn't one.
    pub(crate) is_return: bool,
    /// The module that `pc` is in, if known.
    pub(crate) module: Option<Arc<ModuleName>>,
    /// `pc` as an address of that module's file, which is what `addr2line` takes.
    pub(crate) relative: u64,
    /// Whether it is the beginning of a function that has left the stack by a tail call.
    pub(crate) has_left: bool,
}

/// What is known about a place: a function, and the file and line in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Named {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    /// See [`Frame::identity`].
    identity: u64,
}

/// Returns a number for a function, from its mangled name.
#[cfg(heeler_copies)]
fn identity(mangled: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(mangled, &mut hasher);
    std::hash::Hasher::finish(&hasher).max(1)
}

/// Symbolizes addresses, and remembers the names. Belongs to one thread.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    kept: NamesKept,
    /// Modules whose debug information has made its reader panic, and would do so again.
    broken: HashSet<Arc<ModuleName>>,
}

impl Symbols {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Returns the frames at `addresses`, in their order. For each address they are innermost first: the functions
    /// inlined there, then the one that has the code. There is at least one each, even if only with an address.
    /// `source` is not filled in. That is done for the reports that are sent.
    ///
    /// Symbolizing many at once takes hardly longer than one.
    pub(crate) fn frames(&mut self, addresses: &[Address]) -> Vec<Frame> {
        self.learn(addresses);
        let mut frames: Vec<Frame> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if address.has_left {
                let inner = frames.last().and_then(|frame| frame.function.as_ref());
                // A part of a function that stands elsewhere, because it seldom runs, has that function's name.
                let part_of = |name: &str| inner.is_some_and(|inner| inner.trim_end_matches(".cold") == name);
                let is_another = |frame: &Frame| frame.function.as_deref().is_some_and(|name| !part_of(name));
                // What was inlined at its beginning need not have run.
                let function = self.kept.frames(address).last().filter(is_another);
                frames.extend(function);
            } else {
                frames.extend(self.kept.frames(address));
            }
        }
        frames
    }

    /// Symbolizes those of `addresses` that are not known, so that they are available until [`trim`](Self::trim).
    pub(crate) fn learn(&mut self, addresses: &[Address]) {
        let mut missing: Vec<&Address> = addresses.iter().filter(|address| !self.kept.has(address)).collect();
        if missing.is_empty() {
            return;
        }
        // This makes those of one module neighbours, in ascending order.
        let path = |address: &Address| address.module.as_ref().map(|module| Arc::as_ptr(module).addr());
        missing.sort_by_key(|address| (path(address), address.pc, address.is_return));
        missing.dedup_by_key(|address| (path(address), address.pc, address.is_return));
        for of_module in missing.chunk_by(|a, b| path(a) == path(b)) {
            let module = of_module[0].module.as_ref();
            let mut found = Vec::new();
            if !module.is_some_and(|module| self.broken.contains(module)) {
                found = catch_unwind(AssertUnwindSafe(|| look_up::look_up(of_module))).unwrap_or_else(|_| {
                    self.broken.extend(module.cloned());
                    Vec::new()
                });
            }
            found.resize_with(of_module.len(), Vec::new);
            for (address, places) in of_module.iter().zip(found) {
                self.kept.keep(address, &places);
            }
        }
    }

    /// Forgets everything. Must be called when a library was loaded or unloaded.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Forgets everything if it is too much to keep. Called after a report. A program with so many places has no small
    /// working set that a least-recently-used cache would keep.
    pub(crate) fn trim(&mut self) {
        if self.kept.is_too_much() {
            self.forget();
        }
    }
}

/// Returns a function's name for readers, from a mangled one.
fn demangled(name: &str) -> Option<String> {
    match rustc_demangle::try_demangle(name) {
        Ok(name) => readable(&format!("{name:#}")),
        Err(_) => readable(name),
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests;
