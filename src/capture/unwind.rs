//! From a copied stack to addresses, on the reporter's thread.

#[cfg(heeler_copies)]
pub(crate) use imp::Unwinder;
#[cfg(not(heeler_copies))]
pub(crate) use portable::Unwinder;

use super::symbols::Address;

/// An unwound stack.
#[derive(Debug, Clone)]
pub(crate) struct Unwound {
    /// Innermost first.
    pub(crate) addresses: Vec<Address>,
    /// The unwinder came as far as the poll's own frame.
    pub(crate) complete: bool,
}

/// The poll's own frame is cut by the copy's end; a frame larger than this is taken for a mistake of the unwinder.
#[cfg(heeler_copies)]
const LARGEST_FRAME: u64 = 256 * 1024;

/// More frames than any real stack has: a loop in a damaged one ends here.
const MAX_FRAMES: usize = 1024;

#[cfg(heeler_copies)]
mod imp {
    use std::sync::Arc;

    use framehop::{
        CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _,
        UnwinderNative,
    };

    use super::super::modules::{Bytes, Module, Modules};
    use super::super::snapshot::{Data, Origin, Registers, Snapshot};
    use super::{Address, LARGEST_FRAME, MAX_FRAMES, Unwound};

    /// Unwinds snapshots of this process's stacks.
    pub(crate) struct Unwinder {
        modules: Arc<Modules>,
        unwinder: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
        cache: CacheNative<MayAllocateDuringUnwind>,
    }

    impl std::fmt::Debug for Unwinder {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Unwinder").field("modules", &self.modules.list.len()).finish_non_exhaustive()
        }
    }

    /// The words of a copy, by address.
    struct Stack<'a> {
        words: &'a [u64],
        start: u64,
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
            let mut unwinder =
                Self { modules: Arc::default(), unwinder: UnwinderNative::new(), cache: CacheNative::new() };
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
                self.search(&mut stack)
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

        /// The stack of a thread that was interrupted where nothing says how to unwind: at the edges of a library that is
        /// being loaded or is gone by now, or in code written by hand or made at run time. Its caller's return address is
        /// on top of the stack, or not far below.
        fn step_over(&mut self, registers: &Registers, stack: &mut Stack<'_>) -> Option<Unwound> {
            const NEAR: usize = 32;
            for index in 0..NEAR.min(stack.words.len()) {
                let word = stack.words[index];
                let is_code = |module: &Module| module.code.iter().any(|code| code.contains(&(word - 1)));
                if word == 0 || !self.modules.find(word - 1).is_some_and(is_code) {
                    continue;
                }
                let Some(caller) = FrameAddress::from_return_address(word) else { continue };
                let at_call = Registers { pc: word, sp: stack.start + (index as u64 + 1) * 8, ..*registers };
                stack.reached_end = false;
                let mut unwound = self.walk(caller, &mut unwind_registers(&at_call), stack);
                if unwound.complete && unwound.addresses.iter().all(|address| address.module.is_some()) {
                    unwound.addresses.insert(0, self.address(registers.pc, false));
                    return Some(unwound);
                }
            }
            None
        }

        /// The stack of a thread whose panic is about to go on in one of its frames. The library that unwinds writes that
        /// frame's registers over those that it had saved in its own, and only then moves the stack pointer. Meanwhile a
        /// frame on the way has a frame pointer that is not its own, or is the one where the panic goes on, and lies
        /// further up: on top of it is the same return address, for it has made a call which will not return.
        fn land(&mut self, unwound: &Unwound, at_end: &UnwindRegsNative, stack: &mut Stack<'_>) -> Option<Unwound> {
            const MAX_TRIES: usize = 64;
            let known = unwound.addresses.iter().rposition(|address| address.module.is_some())?;
            let target = unwound.addresses.get(known).filter(|address| address.is_return)?.pc;
            let frame = FrameAddress::from_return_address(target)?;
            let (start, sp, fp) = (stack.start, at_end.sp(), frame_pointer(at_end));
            let address = |index: usize| start + index as u64 * 8;
            let words = stack.words;
            let further_up =
                (0..words.len()).filter(|index| words[*index] == target).map(|index| (address(index + 1), fp));
            let own_pointers = (1..words.len())
                .filter(|index| known + 1 == unwound.addresses.len() && address(*index - 1) >= sp)
                .filter(|index| self.modules.find(words[*index]).is_some())
                .map(|index| (sp, address(index - 1)));
            let tries: Vec<(u64, u64)> = own_pointers.take(MAX_TRIES).chain(further_up.take(MAX_TRIES)).collect();
            tries.into_iter().find_map(|(sp, fp)| {
                stack.reached_end = false;
                let rest = self.walk(frame, &mut unwind_registers(&Registers { pc: target, sp, fp, lr: 0 }), stack);
                let good = rest.complete && rest.addresses.iter().all(|address| address.module.is_some());
                good.then(|| {
                    let addresses = unwound.addresses[..known].iter().cloned().chain(rest.addresses);
                    Unwound { addresses: addresses.collect(), complete: true }
                })
            })
        }

        /// The deepest call that a finished poll has made, from the words it left: the first word that is a return
        /// address from which the remains unwind as far as the poll's own frame.
        fn search(&mut self, stack: &mut Stack<'_>) -> Unwound {
            let nothing = Unwound { addresses: Vec::new(), complete: false };
            let code = super::super::code_range();
            for index in 1..stack.words.len() {
                let word = stack.words[index];
                if !code.contains(&word) {
                    continue;
                }
                let Some(first) = FrameAddress::from_return_address(word) else { continue };
                // A function that uses a frame pointer saves its caller's right below the return address.
                let registers =
                    Registers { pc: word, sp: stack.start + (index as u64 + 1) * 8, fp: stack.words[index - 1], lr: 0 };
                stack.reached_end = false;
                let unwound = self.walk(first, &mut unwind_registers(&registers), stack);
                if stack.reached_end && unwound.addresses.iter().all(|address| address.module.is_some()) {
                    let mut addresses = unwound.addresses;
                    // The function that was called from there has left nothing, but the call says which one it is.
                    if let Some(callee) = callee(word, &code) {
                        addresses.insert(0, self.address(callee, false));
                    }
                    return Unwound { addresses, complete: true };
                }
            }
            nothing
        }

        fn address(&self, pc: u64, is_return: bool) -> Address {
            // A call at the very end of a function returns to an address that is another's.
            let lookup = pc - u64::from(is_return && pc > 0);
            let module = self.modules.find(lookup);
            let relative = module.map_or(pc, |module| pc.wrapping_sub(module.bias));
            Address { pc, is_return, module: module.map(|module| module.name.clone()), relative }
        }
    }

    /// Which function the direct call before that return address calls.
    #[cfg(target_arch = "x86_64")]
    fn callee(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
        const CALL_REL32: u8 = 0xe8;
        let start = return_address.checked_sub(5).filter(|start| code.contains(start))?;
        // SAFETY: within the code of the module that this function is in, too: mapped for as long as it can be asked.
        let call = unsafe { std::ptr::read_unaligned(start as *const [u8; 5]) };
        let offset = i32::from_le_bytes([call[1], call[2], call[3], call[4]]);
        let target = return_address.wrapping_add_signed(i64::from(offset));
        (call[0] == CALL_REL32 && code.contains(&target)).then_some(target)
    }

    #[cfg(target_arch = "aarch64")]
    fn callee(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
        let start = return_address.checked_sub(4).filter(|start| code.contains(start))?;
        // SAFETY: within the code of the module that this function is in, too: mapped for as long as it can be asked.
        let call = unsafe { std::ptr::read_unaligned(start as *const u32) };
        // BL: 26 bits, a signed number of instructions.
        let offset = i64::from((call << 6) as i32 >> 6) * 4;
        let target = start.wrapping_add_signed(offset);
        (call >> 26 == 0b100101 && code.contains(&target)).then_some(target)
    }

    #[cfg(target_arch = "x86_64")]
    fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
        registers.bp()
    }

    #[cfg(target_arch = "aarch64")]
    fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
        registers.fp()
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
}

#[cfg(not(heeler_copies))]
mod portable {
    use super::super::snapshot::{Data, Snapshot};
    use super::{Address, Unwound};

    /// Passes on what was walked.
    #[derive(Debug)]
    pub(crate) struct Unwinder;

    impl Unwinder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn refresh(&mut self) -> bool {
            false
        }

        pub(crate) fn unwind(&mut self, snapshot: &Snapshot) -> Unwound {
            let Data::Walked(addresses) = &snapshot.data else {
                return Unwound { addresses: Vec::new(), complete: false };
            };
            let addresses =
                addresses.iter().map(|pc| Address { pc: *pc, is_return: true, module: None, relative: *pc });
            Unwound { addresses: addresses.collect(), complete: !snapshot.truncated }
        }
    }
}
