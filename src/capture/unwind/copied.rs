//! By the tables that the compiler made for it, from a copy of the stack.

use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _,
    UnwinderNative,
};

use super::{Address, Unwound};
use crate::capture::modules::{Bytes, Module, Modules};
use crate::capture::snapshot::{Data, Origin, Registers, Snapshot};

/// The poll's own frame is cut by the copy's end; a frame larger than this is taken for a mistake of the unwinder.
const LARGEST_FRAME: u64 = 256 * 1024;

/// More frames than any real stack has: a loop in a damaged one ends here.
const MAX_FRAMES: usize = 1024;

/// Unwinds snapshots of this process's stacks.
pub(crate) struct Unwinder {
    pub(super) modules: Arc<Modules>,
    unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
}

impl std::fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwinder").field("modules", &self.modules.list.len()).finish_non_exhaustive()
    }
}

/// The words of a copy, by address.
pub(super) struct Stack<'a> {
    pub(super) words: &'a [u64],
    pub(super) start: u64,
    /// A read beyond the end: the unwinder has come to the poll's own frame.
    reached_end: bool,
}

impl Stack<'_> {
    fn read(&mut self, address: u64) -> Result<u64, ()> {
        let index = address.checked_sub(self.start).ok_or(())? / 8;
        let word = self.words.get(index as usize).copied();
        // A frame that begins in the copy ends not far behind it; an address far away is no frame's.
        let over = index.saturating_sub(self.words.len() as u64) * 8;
        self.reached_end |= word.is_none() && over < LARGEST_FRAME;
        word.ok_or(())
    }
}

impl Unwinder {
    pub(crate) fn new() -> Self {
        let mut unwinder = Self { modules: Arc::default(), unwinder: UnwinderNative::new(), cache: CacheNative::new() };
        unwinder.refresh();
        unwinder
    }

    /// Notices what was loaded or unloaded since the last time; true if anything was.
    pub(crate) fn refresh(&mut self) -> bool {
        let modules = Modules::current();
        if Arc::ptr_eq(&modules, &self.modules) {
            return false;
        }
        self.modules = modules;
        self.unwinder = UnwinderNative::new();
        self.cache = CacheNative::new();
        for module in &self.modules.list {
            self.unwinder.add_module(describe(module));
        }
        true
    }

    /// Unwinds by what the modules say, and by nothing else.
    pub(crate) fn unwind_strictly(&mut self, snapshot: &Snapshot) -> Unwound {
        self.run(snapshot, |_, unwound, _, _, _| unwound)
    }

    /// Unwinds. Where the modules do not say how, what lies on the stack may.
    pub(crate) fn unwind(&mut self, snapshot: &Snapshot) -> Unwound {
        self.run(snapshot, |this, unwound, registers, at_end, stack| {
            if unwound.complete || snapshot.truncated {
                return unwound;
            }
            let lost = |address: &Address| address.module.is_none();
            let found = if unwound.addresses.len() == 1 || unwound.addresses.iter().take(2).any(lost) {
                this.step_over(registers, stack)
            } else {
                this.land(&unwound, at_end, stack)
            };
            found.unwrap_or(unwound)
        })
    }

    fn run(
        &mut self,
        snapshot: &Snapshot,
        amend: impl FnOnce(&mut Self, Unwound, &Registers, &UnwindRegsNative, &mut Stack<'_>) -> Unwound,
    ) -> Unwound {
        let (registers, words) = match &snapshot.data {
            Data::Copied { registers, words } => (registers, words),
            Data::Walked(addresses) => {
                let addresses = addresses.iter().map(|pc| self.address(*pc, true)).collect();
                return Unwound { addresses, complete: !snapshot.truncated };
            }
        };
        let mut stack = Stack { words, start: registers.sp & !7, reached_end: false };
        let mut unwound = if snapshot.origin == Origin::Residue {
            self.search(registers, &mut stack)
        } else {
            let first = FrameAddress::from_instruction_pointer(registers.pc);
            let mut at_end = unwind_registers(registers);
            let unwound = self.walk(first, &mut at_end, &mut stack);
            amend(self, unwound, registers, &at_end, &mut stack)
        };
        if snapshot.origin == Origin::Waker && !unwound.addresses.is_empty() {
            // The callback's own frame.
            unwound.addresses.remove(0);
        }
        unwound.complete &= !snapshot.truncated;
        unwound
    }

    /// Walks from a guessed frame.
    pub(super) fn walk_anew(&mut self, first: FrameAddress, registers: &Registers, stack: &mut Stack<'_>) -> Unwound {
        stack.reached_end = false;
        self.walk(first, &mut unwind_registers(registers), stack)
    }

    /// Leaves in `registers` those of the last frame.
    fn walk(&mut self, first: FrameAddress, registers: &mut UnwindRegsNative, stack: &mut Stack<'_>) -> Unwound {
        let mut addresses = Vec::with_capacity(48);
        let mut frame = first;
        loop {
            addresses.push(self.address(frame.address(), frame.is_return_address()));
            let read = &mut |address| stack.read(address);
            match self.unwinder.unwind_frame(frame, registers, &mut self.cache, read) {
                Ok(Some(next)) if addresses.len() < MAX_FRAMES => match FrameAddress::from_return_address(next) {
                    Some(next) => frame = next,
                    None => return Unwound { addresses, complete: false },
                },
                Ok(Some(_)) => return Unwound { addresses, complete: false },
                // Also where the unwinder takes a zero for the end of the stack: that is not in the copy.
                Ok(None) | Err(_) => return Unwound { addresses, complete: stack.reached_end },
            }
        }
    }

    pub(super) fn address(&self, pc: u64, is_return: bool) -> Address {
        // A call at the very end of a function returns to an address that is another's.
        let lookup = pc - u64::from(is_return && pc > 0);
        let module = self.modules.find(lookup);
        let relative = module.map_or(pc, |module| pc.wrapping_sub(module.bias));
        Address { pc, is_return, module: module.map(|module| module.name.clone()), relative }
    }
}

#[cfg(target_arch = "x86_64")]
fn unwind_registers(registers: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.pc, registers.sp, registers.fp)
}

#[cfg(target_arch = "aarch64")]
fn unwind_registers(registers: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.lr, registers.sp, registers.fp)
}

fn describe(module: &Module) -> framehop::Module<Bytes> {
    let section = |(address, bytes): &(u64, Bytes)| {
        let start = address.wrapping_sub(module.bias);
        (!bytes.is_empty()).then(|| (start..start + bytes.len() as u64, bytes.clone()))
    };
    let (header_range, header) = section(&module.header).unzip();
    let (frames_range, frames) = section(&module.frames).unzip();
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame_hdr_svma: header_range,
        eh_frame_hdr: header,
        eh_frame_svma: frames_range,
        eh_frame: frames,
        ..Default::default()
    };
    framehop::Module::new(module.name.name.clone(), module.range.clone(), module.bias, sections)
}
