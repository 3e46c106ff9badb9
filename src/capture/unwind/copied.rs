//! Unwinds a copy of the stack with the tables that the compiler made for that.

use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _,
    UnwinderNative,
};

use super::{Address, End, Unwound};
use crate::capture::modules::{Bytes, Module, Modules};
use crate::capture::snapshot::{Data, Origin, Registers, Snapshot};
#[cfg(target_arch = "aarch64")]
use crate::capture::{code_range, sys};

/// The poll's own frame is cut by the copy's end. A frame larger than this is taken for a mistake of the unwinder.
const LARGEST_FRAME: u64 = 256 * 1024;

/// The same at the end of a copy that was cut somewhere, on a stack whose end is unknown. What is further away is not
/// the next frame, but on another stack.
const LARGEST_CUT_FRAME: u64 = 16 * 1024;

/// More frames than any real stack has. A loop in a damaged one ends here.
const MAX_FRAMES: usize = 1024;

/// Unwinds snapshots of this process's stacks.
pub(crate) struct Unwinder {
    pub(super) modules: Arc<Modules>,
    unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// The bits of an address. In a signed return address (`paciasp`), the others hold the signature.
    address_bits: u64,
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
    /// Whether there was a read beyond the end, so the unwinder has come to the poll's own frame.
    reached_end: bool,
    /// Set if the stack isn't the thread's own, and ends before the poll's own frame. Tells whether the copy was cut
    /// before that.
    foreign: Option<bool>,
}

impl<'a> Stack<'a> {
    /// Creates the thread's own stack.
    pub(super) fn new(start: u64, words: &'a [u64]) -> Self {
        Self { words, start, reached_end: false, foreign: None }
    }
}

impl Stack<'_> {
    fn read(&mut self, address: u64) -> Result<u64, ()> {
        let index = address.checked_sub(self.start).ok_or(())? / 8;
        let word = self.words.get(index as usize).copied();
        // A frame that begins in the copy ends not far behind it. An address far away doesn't belong to a frame.
        let over = index.saturating_sub(self.words.len() as u64) * 8;
        self.reached_end |= word.is_none() && over < LARGEST_FRAME;
        word.ok_or(())
    }

    /// Returns whether unwinding has ended because a stack that isn't the thread's own has ended. `last` is the frame
    /// it came to.
    fn has_ended(&self, last: &Address, end: End) -> bool {
        let top = self.start + self.words.len() as u64 * 8;
        let is_next = matches!(end, End::Elsewhere(address) if address.wrapping_sub(top) < LARGEST_CUT_FRAME);
        // Without a module, it came there only by the frame pointer, or could not go on.
        self.foreign.is_some_and(|cut| last.module.is_some() && !(cut && is_next))
    }
}

impl Unwinder {
    pub(crate) fn new() -> Self {
        let mut unwinder = Self {
            modules: Arc::default(),
            unwinder: UnwinderNative::new(),
            cache: CacheNative::new(),
            address_bits: u64::MAX,
        };
        unwinder.refresh();
        unwinder
    }

    /// Notices what was loaded or unloaded since the last time. Returns true if anything was.
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
        self.address_bits = address_bits(&self.modules);
        true
    }

    /// Returns a return address without its signature, if it has one.
    pub(crate) fn plain(&self, word: u64) -> u64 {
        word & self.address_bits
    }

    /// Unwinds only by what the modules say.
    pub(crate) fn unwind_strictly(&mut self, snapshot: &Snapshot) -> Unwound {
        self.run(snapshot, |_, unwound, _, _, _| unwound)
    }

    /// Unwinds. If the modules do not say how, the contents of the stack may.
    pub(crate) fn unwind(&mut self, snapshot: &Snapshot) -> Unwound {
        self.run(snapshot, |this, unwound, registers, at_end, stack| {
            // Without tables it may seem to have come to the end, although it has left out frames.
            let is_own = !snapshot.truncated && !snapshot.foreign;
            if is_own
                && this.is_untabled(registers.pc)
                && !(unwound.complete && this.is_certain(&unwound))
                && let Some(found) = this.step_out(registers, stack)
            {
                return found;
            }
            // A guess is known to be right by where it ends. That is unknown for a stack that isn't the thread's own.
            if unwound.complete || snapshot.truncated || snapshot.foreign {
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
                return Unwound { addresses, complete: !snapshot.truncated, end: End::Known };
            }
        };
        let foreign = snapshot.foreign.then_some(snapshot.truncated);
        let mut stack = Stack { foreign, ..Stack::new(registers.sp & !7, words) };
        let mut unwound = if snapshot.origin == Origin::DeadFrames {
            self.search(registers, &mut stack)
        } else {
            let first = FrameAddress::from_instruction_pointer(registers.pc);
            let mut at_end = self.unwind_registers(registers);
            let unwound = self.walk(first, &mut at_end, &mut stack);
            amend(self, unwound, registers, &at_end, &mut stack)
        };
        if snapshot.origin == Origin::Waker && !unwound.addresses.is_empty() {
            // The callback's own frame.
            unwound.addresses.remove(0);
        }
        unwound.complete &= !snapshot.truncated || snapshot.foreign;
        unwound
    }

    /// Returns the return addresses of a copied stack, innermost first, with their positions in the copy. `None` unless
    /// the tables describe every frame up to the poll's own.
    pub(crate) fn return_addresses(&mut self, registers: &Registers, words: &[u64]) -> Option<Vec<(u32, u64)>> {
        let mut stack = Stack::new(registers.sp & !7, words);
        let mut at = self.unwind_registers(registers);
        let mut frame = FrameAddress::from_instruction_pointer(registers.pc);
        let mut found = Vec::with_capacity(48);
        while found.len() < MAX_FRAMES {
            if !self.modules.find(frame.address_for_lookup())?.is_described(frame.address_for_lookup()) {
                return None;
            }
            let mut reads = [(0, 0); 4];
            let mut count = 0;
            let mut read = |address: u64| {
                let word = stack.read(address)?;
                reads[count % reads.len()] = (((address - stack.start) / 8) as u32, word);
                count += 1;
                Ok(word)
            };
            match self.unwinder.unwind_frame(frame, &mut at, &mut self.cache, &mut read) {
                Ok(Some(next)) => {
                    let is_next = |(_, word): &&(u32, u64)| self.plain(*word) == next;
                    found.push(*reads[..count.min(reads.len())].iter().rev().find(is_next)?);
                    frame = FrameAddress::from_return_address(next)?;
                }
                _ => return stack.reached_end.then_some(found),
            }
        }
        None
    }

    /// Walks from a guessed frame.
    pub(super) fn walk_anew(&mut self, first: FrameAddress, registers: &Registers, stack: &mut Stack<'_>) -> Unwound {
        stack.reached_end = false;
        self.walk(first, &mut self.unwind_registers(registers), stack)
    }

    /// Walks, and leaves the registers of the last frame in `registers`.
    fn walk(&mut self, first: FrameAddress, registers: &mut UnwindRegsNative, stack: &mut Stack<'_>) -> Unwound {
        let mut addresses = Vec::with_capacity(48);
        let mut frame = first;
        loop {
            addresses.push(self.address(frame.address(), frame.is_return_address()));
            let read = &mut |address| stack.read(address);
            let next = match self.interrupted(frame, registers, read) {
                Some(context) if addresses.len() < MAX_FRAMES => {
                    *registers = self.unwind_registers(&context);
                    frame = FrameAddress::from_instruction_pointer(context.pc);
                    continue;
                }
                _ => self.unwinder.unwind_frame(frame, registers, &mut self.cache, read),
            };
            match next {
                Ok(Some(next)) if addresses.len() < MAX_FRAMES => match FrameAddress::from_return_address(next) {
                    Some(next) => frame = next,
                    None => return Unwound { addresses, complete: false, end: End::Known },
                },
                Ok(Some(_)) => return Unwound { addresses, complete: false, end: End::Known },
                ended if stack.foreign.is_some() => {
                    let end = match ended {
                        Ok(_) => End::Known,
                        Err(framehop::Error::CouldNotReadStack(address)) => End::Elsewhere(address),
                        Err(_) => End::Lost,
                    };
                    let complete = stack.has_ended(&addresses[addresses.len() - 1], end);
                    return Unwound { addresses, complete, end };
                }
                // Also if the unwinder takes a zero for the end of the stack, because that is not in the copy.
                Ok(None) | Err(_) => return Unwound { addresses, complete: stack.reached_end, end: End::Known },
            }
        }
    }

    pub(super) fn address(&self, pc: u64, is_return: bool) -> Address {
        // A call at the very end of a function returns to an address that belongs to another.
        let lookup = pc - u64::from(is_return && pc > 0);
        let module = self.modules.find(lookup);
        let relative = module.map_or(pc, |module| pc.wrapping_sub(module.bias));
        Address { pc, is_return, module: module.map(|module| module.name.clone()), relative, has_left: false }
    }
}

#[cfg(target_arch = "x86_64")]
impl Unwinder {
    fn unwind_registers(&self, registers: &Registers) -> UnwindRegsNative {
        UnwindRegsNative::new(registers.pc, registers.sp, registers.fp)
    }

    /// Returns nothing, because the trampoline to which a handler returns has tables that say how to unwind.
    fn interrupted(
        &self,
        _frame: FrameAddress,
        _registers: &UnwindRegsNative,
        _read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<Registers> {
        None
    }
}

#[cfg(target_arch = "aarch64")]
impl Unwinder {
    fn unwind_registers(&self, registers: &Registers) -> UnwindRegsNative {
        let mask = framehop::aarch64::PtrAuthMask(self.address_bits);
        UnwindRegsNative::new_with_ptr_auth_mask(mask, registers.lr, registers.sp, registers.fp)
    }

    /// Returns the registers that a signal has interrupted, if the frame is the trampoline to which its handler
    /// returns. The kernel's own has no tables for unwinding, because the unwinder is meant to recognise it by its
    /// instructions.
    fn interrupted(
        &self,
        frame: FrameAddress,
        registers: &UnwindRegsNative,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Option<Registers> {
        let pc = frame.address();
        // Neither is ever unmapped.
        let stays = |module: &Module| {
            matches!(&*module.name.name, "linux-vdso.so.1" | "[vdso]") || module.range.contains(&code_range().start)
        };
        let module = self.modules.find(pc).filter(|_| frame.is_return_address() && pc.is_multiple_of(4));
        let code = module.filter(|module| stays(module))?.code.iter().find(|code| code.contains(&pc))?;
        // SAFETY: within the code of a module that stays mapped.
        let is_trampoline = pc + 8 <= code.end && unsafe { sys::returns_from_signal(pc as *const u32) };
        is_trampoline.then(|| sys::saved_by_signal(registers.sp(), read)).flatten()
    }
}

/// Returns the only bits that an address in use has, of code or of a stack.
#[cfg(target_arch = "aarch64")]
fn address_bits(modules: &Modules) -> u64 {
    // The fewest that a kernel is built for.
    const LEAST: u64 = 1 << 38;
    let local = 0_u8;
    let stack = (&raw const local).addr() as u64;
    let highest = modules.list.iter().map(|module| module.range.end).chain([stack, LEAST]).max();
    u64::MAX >> highest.unwrap_or(LEAST).leading_zeros()
}

/// Return addresses are not signed.
#[cfg(target_arch = "x86_64")]
fn address_bits(_modules: &Modules) -> u64 {
    u64::MAX
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
