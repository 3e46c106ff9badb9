//! Registers of aarch64. Written with the same care as x86_64, but not tested on hardware.

use std::arch::asm;

use crate::capture::snapshot::Registers;

/// The caller's own registers, at this very place.
#[inline(always)]
pub(crate) fn registers() -> Registers {
    let (pc, sp, fp, lr): (u64, u64, u64, u64);
    // SAFETY: reads four registers and writes nothing but its outputs.
    unsafe {
        asm!(
            // First, for any of the others may be put into x30.
            "mov {lr}, x30",
            "adr {pc}, .",
            "mov {sp}, sp",
            "mov {fp}, x29",
            lr = out(reg) lr, pc = out(reg) pc, sp = out(reg) sp, fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    Registers { pc, sp, fp, lr }
}

/// The interrupted thread's registers.
///
/// # Safety
///
/// `context` is the third argument of a handler installed with `SA_SIGINFO`.
pub(crate) unsafe fn interrupted(context: *const libc::c_void) -> Registers {
    // SAFETY: the kernel passes a `ucontext_t` there, which outlives the handler's call.
    let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    Registers { pc: context.pc, sp: context.sp, fp: context.regs[29], lr: context.regs[30] }
}

/// Copies `count` words without calling anything, so that no frame is laid over what is read.
///
/// # Safety
///
/// `from` is readable and `to` is writable for `count` words; the two do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_words(from: *const u64, to: *mut u64, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "2:",
            "cbz {count}, 3f",
            "ldr {word}, [{from}], #8",
            "str {word}, [{to}], #8",
            "sub {count}, {count}, #1",
            "b 2b",
            "3:",
            count = inout(reg) count => _, from = inout(reg) from => _, to = inout(reg) to => _, word = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Fills the words from `lowest` up to the stack pointer with zeros, without calling anything.
///
/// # Safety
///
/// All of them are writable and on this thread's stack.
#[inline(always)]
pub(crate) unsafe fn wipe_stack(lowest: *mut u64) {
    // SAFETY: the caller's promise, and that of an assembly block which is not `nostack`: what lies below the stack pointer is
    // its own.
    unsafe {
        asm!(
            "mov {end}, sp",
            "2:",
            "cmp {to}, {end}",
            "b.hs 3f",
            "str xzr, [{to}], #8",
            "b 2b",
            "3:",
            to = inout(reg) lowest => _, end = out(reg) _,
        );
    }
}
