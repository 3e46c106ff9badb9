//! Stacks of threads in code without tables: all of musl, and much that is written by hand.
//!
//! There may be several calls within such code, and its frames hold words that earlier calls have left. The way out of
//! it is a return address in code that has tables, right behind a call of code that has none. From there on the tables
//! say how to go on.

use super::Unwound;
use super::copied::{Stack, Unwinder};
use super::instructions::callee;
use crate::capture::snapshot::{Data, Registers, Snapshot};
use crate::capture::symbols::Address;

/// How many words at the top of the stack are searched. musl's functions that sleep have frames of some hundred bytes.
const NEAR: usize = 128;

/// How many frame pointers are tried.
const MAX_TRIES: usize = 64;

impl Unwinder {
    /// Returns the possible stacks, each with the frame pointer that led to it, if the thread is in such code.
    pub(crate) fn unwind_out_of_untabled(&mut self, snapshot: &Snapshot, pointers: &[u64]) -> Vec<(u64, Unwound)> {
        let Data::Copied { registers, words } = &snapshot.data else { return Vec::new() };
        if snapshot.foreign || snapshot.truncated || !self.is_untabled(registers.pc) {
            return Vec::new();
        }
        let mut stack = Stack::new(registers.sp & !7, words);
        let mut found = Vec::new();
        for index in self.ways_out(words) {
            for fp in pointers {
                let registers = Registers { fp: *fp, ..*registers };
                let unwound = self.step_to(index, &registers, &mut stack);
                found.extend(unwound.filter(|unwound| self.is_certain(unwound)).map(|unwound| (*fp, unwound)));
            }
        }
        found
    }

    /// Returns the most likely of them. The frame pointer may have been put on the stack.
    pub(super) fn step_out(&mut self, registers: &Registers, stack: &mut Stack<'_>) -> Option<Unwound> {
        let (start, words) = (stack.start, stack.words);
        let code = crate::capture::code_range();
        let pushed =
            (1..words.len()).filter(|index| code.contains(&words[*index])).map(|index| start + (index as u64 - 1) * 8);
        let pointers: Vec<u64> = std::iter::once(registers.fp).chain(pushed.take(MAX_TRIES)).collect();
        for index in self.ways_out(words) {
            for fp in &pointers {
                let unwound = self.step_to(index, &Registers { fp: *fp, ..*registers }, stack);
                if let Some(unwound) = unwound.filter(|unwound| self.is_certain(unwound)) {
                    return Some(unwound);
                }
            }
        }
        None
    }

    /// Returns whether the tables say how to unwind from each of the addresses except for the innermost.
    pub(crate) fn is_certain(&self, unwound: &Unwound) -> bool {
        let place = |address: &Address| address.pc - u64::from(address.is_return && address.pc > 0);
        unwound.addresses.iter().skip(1).all(|address| !self.is_untabled(place(address)))
    }

    /// Returns whether it is code of a module whose tables do not say how to unwind from there.
    pub(super) fn is_untabled(&self, pc: u64) -> bool {
        self.modules.find(pc).is_some_and(|module| !module.is_described(pc))
    }

    /// Returns which words are return addresses that lead out of it.
    fn ways_out(&self, words: &[u64]) -> Vec<usize> {
        let code = crate::capture::code_range();
        let leads_out = |word: u64| {
            code.contains(&word)
                && !self.is_untabled(word - 1)
                && called(word, &code).is_some_and(|to| self.is_untabled(to))
        };
        (0..words.len().min(NEAR)).filter(|index| leads_out(words[*index])).collect()
    }
}

/// Returns the function that the call before that return address calls, even through the table of addresses that the
/// loader fills in.
#[cfg(target_arch = "x86_64")]
fn called(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
    use crate::capture::memory::Memory;
    const CALL_INDIRECT: [u8; 2] = [0xff, 0x15];
    const JUMP_INDIRECT: [u8; 2] = [0xff, 0x25];
    // Six bytes: two that say what it is, and the distance of the place from what comes next.
    let indirect = |start: u64, what: [u8; 2]| {
        if !code.contains(&start) || !code.contains(&(start + 6)) {
            return None;
        }
        // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be
        // called.
        let [first, second, offset @ ..] = unsafe { std::ptr::read_unaligned(start as *const [u8; 6]) };
        let place = (start + 6).wrapping_add_signed(i32::from_le_bytes(offset).into());
        if [first, second] != what {
            return None;
        }
        let mut found = [0];
        // SAFETY: room for one word.
        let read = unsafe { Memory::prepare()?.read(place as usize, found.as_mut_ptr(), 1) };
        (read == 1).then_some(found[0])
    };
    match callee(return_address, code) {
        Some(direct) => indirect(direct, JUMP_INDIRECT).or(Some(direct)),
        None => indirect(return_address.checked_sub(6)?, CALL_INDIRECT),
    }
}

#[cfg(target_arch = "aarch64")]
fn called(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
    callee(return_address, code)
}
