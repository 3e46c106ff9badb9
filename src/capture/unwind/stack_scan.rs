//! Stacks that the modules say nothing about, or too little. The words on them may tell more.

use framehop::{FrameAddress, UnwindRegsNative};

use super::copied::{Stack, Unwinder};
use super::instructions::{callee, follows_call, jumps};
use super::{Address, End, Unwound};
use crate::capture::dead_frames::DEPTH;
use crate::capture::snapshot::Registers;

impl Unwinder {
    /// Finds the stack of a thread that was interrupted where nothing says how to unwind. That is at the edges of a
    /// library that is being loaded or is gone by now, or in code that was written by hand or made at run time. The
    /// caller's return address is in the link register, on top of the stack, or not far below.
    pub(super) fn step_over(&mut self, registers: &Registers, stack: &mut Stack<'_>) -> Option<Unwound> {
        const NEAR: usize = 32;
        // If the processor has one, the link register may still have it.
        self.continue_at(registers.lr, stack.start, registers, stack)
            .or_else(|| (0..NEAR.min(stack.words.len())).find_map(|index| self.step_to(index, registers, stack)))
    }

    /// Returns the stack from the return address with that index, if it leads to the end.
    pub(super) fn step_to(&mut self, index: usize, registers: &Registers, stack: &mut Stack<'_>) -> Option<Unwound> {
        self.continue_at(stack.words[index], stack.start + (index as u64 + 1) * 8, registers, stack)
    }

    fn continue_at(&mut self, word: u64, sp: u64, registers: &Registers, stack: &mut Stack<'_>) -> Option<Unwound> {
        let word = self.plain(word);
        if word == 0 || !self.is_code(word - 1) {
            return None;
        }
        let at_call = Registers { pc: word, sp, ..*registers };
        let mut unwound = self.walk_anew(FrameAddress::from_return_address(word)?, &at_call, stack);
        (unwound.complete && self.is_all_code(&unwound.addresses)).then(|| {
            unwound.addresses.insert(0, self.address(registers.pc, false));
            unwound
        })
    }

    /// Finds the stack of a thread whose panic is about to go on in one of its frames. The unwinding library writes
    /// that frame's registers over those that it had saved in its own, and only then moves the stack pointer. During
    /// that time, a frame on the way has a frame pointer that isn't its own. Or the frame is the one where the panic
    /// goes on, and is further up. On top of it is the same return address, because it has made a call which will not
    /// return.
    pub(super) fn land(
        &mut self,
        unwound: &Unwound,
        at_end: &UnwindRegsNative,
        stack: &mut Stack<'_>,
    ) -> Option<Unwound> {
        const MAX_TRIES: usize = 64;
        let known = unwound.addresses.iter().rposition(|address| address.module.is_some())?;
        let target = unwound.addresses.get(known).filter(|address| address.is_return)?.pc;
        let frame = FrameAddress::from_return_address(target)?;
        let (start, sp, fp) = (stack.start, at_end.sp(), frame_pointer(at_end));
        let address = |index: usize| start + index as u64 * 8;
        let words = stack.words;
        let further_up =
            (0..words.len()).filter(|index| self.plain(words[*index]) == target).map(|index| (address(index + 1), fp));
        let own_pointers = (1..words.len())
            .filter(|index| known + 1 == unwound.addresses.len() && address(*index - 1) >= sp)
            .filter(|index| self.modules.find(self.plain(words[*index])).is_some())
            .map(|index| (sp, address(index - 1)));
        let tries: Vec<(u64, u64)> = own_pointers.take(MAX_TRIES).chain(further_up.take(MAX_TRIES)).collect();
        tries.into_iter().find_map(|(sp, fp)| {
            let rest = self.walk_anew(frame, &Registers { pc: target, sp, fp, lr: 0 }, stack);
            (rest.complete && self.is_all_code(&rest.addresses)).then(|| {
                let addresses = unwound.addresses[..known].iter().cloned().chain(rest.addresses);
                Unwound { addresses: addresses.collect(), complete: true, end: End::Known }
            })
        })
    }

    /// Finds the deepest call that a finished poll has made, from the words it left. That is the first word that is a
    /// return address from which the dead frames unwind through the frame that polled, as far as the traced poll's own.
    /// If a poll has made no call, its caller is all that can be found.
    ///
    /// What one part of the work has left further down may lead into what another has left since. Then a frame doesn't
    /// belong to the function that the frame around it has called. The dead frames with the fewest such are taken, and
    /// the deepest of those.
    pub(super) fn search(&mut self, polling: &Registers, stack: &mut Stack<'_>) -> Unwound {
        let code = crate::capture::code_range();
        let mut best: Option<(usize, u64, Unwound)> = None;
        for index in 1..DEPTH.min(stack.words.len()) {
            let word = self.plain(stack.words[index]);
            if !code.contains(&word) {
                continue;
            }
            let Some(first) = FrameAddress::from_return_address(word) else { continue };
            // A function that uses a frame pointer saves its caller's right below the return address.
            let registers =
                Registers { pc: word, sp: stack.start + (index as u64 + 1) * 8, fp: stack.words[index - 1], lr: 0 };
            let unwound = self.walk_anew(first, &registers, stack);
            let found = &unwound.addresses;
            let is_good = unwound.complete && self.is_all_code(found) && self.follow_calls(found);
            if is_good && self.leads_through_function_at(polling.pc, found) {
                let wrong = self.wrong_calls(&unwound.addresses, &code);
                if best.as_ref().is_none_or(|(fewest, ..)| wrong < *fewest) {
                    best = Some((wrong, word, unwound));
                }
                if wrong == 0 {
                    break;
                }
            }
        }
        if let Some((_, word, mut unwound)) = best {
            // The function that was called from there has left nothing, but the call says which one it is.
            if let Some(called) = self.called_function(word, &code) {
                unwound.addresses.insert(0, self.address(called, false));
            }
            return unwound;
        }
        let registers = Registers { sp: stack.start + DEPTH as u64 * 8, ..*polling };
        let mut unwound = self.walk_anew(FrameAddress::from_instruction_pointer(polling.pc), &registers, stack);
        unwound.addresses.remove(0);
        unwound
    }

    /// Returns whether all addresses are code. A word that merely looks like code is often the address of a table.
    fn is_all_code(&self, addresses: &[Address]) -> bool {
        addresses.iter().all(|address| self.is_code(address.pc.saturating_sub(u64::from(address.is_return))))
    }

    /// Returns whether those addresses that should be return addresses follow a call. That can only be checked in the
    /// application's own module.
    fn follow_calls(&self, addresses: &[Address]) -> bool {
        let code = crate::capture::code_range();
        let is_own = |address: &&Address| address.is_return && code.contains(&address.pc.wrapping_sub(1));
        addresses.iter().filter(is_own).all(|address| follows_call(address.pc, &code))
    }

    /// Returns whether the function with the code at that address is among those of the stack, as far as the tables
    /// tell. Otherwise a left-over word was taken for a frame's pointer, and leads past the copy's end by mistake.
    fn leads_through_function_at(&self, address: u64, addresses: &[Address]) -> bool {
        let function = |address: u64| self.modules.find(address)?.function_at(address);
        let Some(wanted) = function(address) else { return true };
        addresses.iter().any(|address| function(address.pc - 1) == Some(wanted))
    }

    fn is_code(&self, address: u64) -> bool {
        self.modules.find(address).is_some_and(|module| module.is_code(address))
    }

    /// Returns how many of these return addresses, innermost first, belong to a direct call of a function other than
    /// that of the inner frame.
    fn wrong_calls(&self, addresses: &[Address], code: &std::ops::Range<u64>) -> usize {
        let is_wrong = |pair: &[Address]| {
            let within = pair[0].pc - 1;
            let is = code.contains(&within).then(|| self.modules.find(within)?.function_at(within)).flatten();
            let called = self.called_function(pair[1].pc, code);
            matches!((called, is), (Some(called), Some(is)) if called != is && !self.jumps_to(called, is, code))
        };
        addresses.windows(2).filter(|pair| is_wrong(pair)).count()
    }

    /// Returns whether a function jumps to another one: a tail call, which puts the other in its place on the stack.
    pub(super) fn jumps_to(&self, function: u64, other: u64, code: &std::ops::Range<u64>) -> bool {
        /// A function that does little more than to call another is much shorter.
        const LONGEST: usize = 4096;
        let Some(range) = self.modules.find(function).and_then(|module| module.code_of(function)) else { return false };
        if !code.contains(&range.start) || range.end > code.end {
            return false;
        }
        let length = ((range.end - range.start) as usize).min(LONGEST);
        // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be called.
        let bytes = unsafe { std::slice::from_raw_parts(range.start as *const u8, length) };
        jumps(bytes, range.start).any(|target| target == other)
    }

    /// Returns the function that the direct call before that address calls, if the tables know it. An entry of the table
    /// that leads to libraries isn't a function: what was called there, mostly `memcpy`, ran after everything that the
    /// dead frames show, and left nothing.
    pub(super) fn called_function(&self, return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
        let called = callee(return_address, code)?;
        let function = self.modules.find(called)?.function_at(called)?;
        (function == called).then_some(called)
    }
}

#[cfg(target_arch = "x86_64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.bp()
}

#[cfg(target_arch = "aarch64")]
fn frame_pointer(registers: &UnwindRegsNative) -> u64 {
    registers.fp()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    type Kind = fn(&mut dyn FnMut());

    fn directly(work: &mut dyn FnMut()) {
        through_a_table(work);
    }

    #[inline(never)]
    fn through_a_table(work: &mut dyn FnMut()) {
        black_box(work)();
    }

    /// Guards: every way to call is recognised as a call, so that no true stack is refused.
    #[test]
    fn a_return_address_follows_a_call() {
        let unwinder = Unwinder::new();
        let code = crate::capture::code_range();
        for kind in black_box([directly as Kind, through_a_table]) {
            let mut seen = 0;
            kind(&mut || {
                backtrace::trace(|frame| {
                    let pc = frame.ip() as u64;
                    // The first of them is the current position, and libc's start isn't ours.
                    if frame.symbol_address() as u64 != pc && code.contains(&pc) {
                        seen += 1;
                        assert!(unwinder.follow_calls(&[unwinder.address(pc, true)]), "{pc:#x}");
                    }
                    true
                });
            });
            assert!(seen > 5, "{seen}");
        }
    }

    /// Guards: addresses of tables and of functions, of which dead frames are full, are not taken for a stack.
    #[test]
    fn what_nobody_returns_to_is_refused() {
        static TABLE: [fn(&mut dyn FnMut()); 2] = [directly, through_a_table];
        let unwinder = Unwinder::new();
        let table = unwinder.address(&raw const TABLE as u64, true);
        assert!(table.module.is_some() && !unwinder.is_all_code(&[table]));
        // Behind the first instructions: before a function there may be another that ends in a call.
        let prologue = directly as *const () as u64 + 4;
        let function = unwinder.address(prologue, true);
        assert!(unwinder.is_all_code(std::slice::from_ref(&function)) && !unwinder.follow_calls(&[function]));
        // What was interrupted has called nobody.
        assert!(unwinder.follow_calls(&[unwinder.address(prologue, false)]));
    }

    #[cfg(target_arch = "x86_64")]
    std::arch::global_asm!(
        ".pushsection .text.heeler_test_first, \"ax\", @progbits",
        "heeler_test_first: .cfi_startproc",
        "nop",
        "je heeler_test_second",
        "jmp heeler_test_third",
        ".cfi_endproc",
        ".popsection",
        ".pushsection .text.heeler_test_second, \"ax\", @progbits",
        "heeler_test_second: .cfi_startproc",
        "ret",
        ".cfi_endproc",
        ".popsection",
        ".pushsection .text.heeler_test_third, \"ax\", @progbits",
        "heeler_test_third: .cfi_startproc",
        "call heeler_test_second",
        "ret",
        ".cfi_endproc",
        ".popsection",
    );

    /// Guards: a function that a tail call has put in the place of another is known to be there.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tail_calls_are_found() {
        unsafe extern "C" {
            fn heeler_test_first();
            fn heeler_test_second();
            fn heeler_test_third();
        }
        let [first, second, third] =
            [heeler_test_first as *const (), heeler_test_second as *const (), heeler_test_third as *const ()];
        let (unwinder, code) = (Unwinder::new(), crate::capture::code_range());
        let jumps = |from: *const (), to: *const ()| unwinder.jumps_to(from as u64, to as u64, &code);
        assert!(jumps(first, second) && jumps(first, third));
        assert!(!jumps(third, second) && !jumps(second, first) && !jumps(third, first));
    }
}
