//! Registers of aarch64.

use std::arch::asm;

use crate::capture::snapshot::Registers;

/// Returns the caller's own registers, at this very place.
#[inline(always)]
pub(crate) fn registers() -> Registers {
    let (pc, sp, fp, lr): (u64, u64, u64, u64);
    // SAFETY: reads four registers and writes nothing but its outputs.
    unsafe {
        asm!(
            // This comes first, because any of the others may be put into x30.
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

/// Returns the stack pointer of the function that this is inlined into.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register and writes nothing but its output.
    unsafe { asm!("mov {sp}, sp", sp = out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Returns the interrupted thread's registers.
///
/// # Safety
///
/// `context` is the third argument of a handler installed with `SA_SIGINFO`.
pub(crate) unsafe fn interrupted(context: *const libc::c_void) -> Registers {
    // SAFETY: the kernel passes a `ucontext_t` there, which outlives the handler's call.
    let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    Registers { pc: context.pc, sp: context.sp, fp: context.regs[29], lr: context.regs[30] }
}

/// Returns whether these are the two instructions by which a handler's return ends the signal.
///
/// # Safety
///
/// Both can be read.
pub(crate) unsafe fn returns_from_signal(code: *const u32) -> bool {
    // mov x8, #139 (rt_sigreturn); svc #0
    const RETURN: [u32; 2] = [0xd280_1168, 0xd400_0001];
    // SAFETY: the caller's promise.
    RETURN == unsafe { [code.read(), code.add(1).read()] }
}

/// Returns the registers that the kernel has saved for a handler, whose stack began at `sp`.
pub(crate) fn saved_by_signal(sp: u64, read: &mut impl FnMut(u64) -> Result<u64, ()>) -> Option<Registers> {
    use std::mem::offset_of;
    // The kernel puts a `siginfo_t` there, and the `ucontext_t` behind it.
    let context = size_of::<libc::siginfo_t>() + offset_of!(libc::ucontext_t, uc_mcontext);
    let mut word = |offset: usize| read(sp.checked_add((context + offset) as u64)?).ok();
    let general = offset_of!(libc::mcontext_t, regs);
    Some(Registers {
        pc: word(offset_of!(libc::mcontext_t, pc))?,
        sp: word(offset_of!(libc::mcontext_t, sp))?,
        fp: word(general + 29 * 8)?,
        lr: word(general + 30 * 8)?,
    })
}

/// Copies `count` words without calling anything, so that no frame overwrites what is read.
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

/// Calls `pread64` without the C library, for the signal handler. Returns the number of bytes, or an error's negative
/// number.
///
/// # Safety
///
/// `to` is writable for `len` bytes.
#[inline(always)]
pub(crate) unsafe fn read_at(descriptor: i32, to: *mut u8, len: usize, offset: u64) -> isize {
    let result: isize;
    // SAFETY: the caller's promise. The kernel changes x0 and writes to `to`. It leaves the stack alone.
    unsafe {
        asm!(
            "svc 0",
            in("x8") libc::SYS_pread64 as isize,
            inlateout("x0") descriptor as isize => result,
            in("x1") to, in("x2") len, in("x3") offset,
            options(nostack),
        );
    }
    result
}

/// Fills the words from `lowest` up to the stack pointer with zeros, without calling anything.
///
/// # Safety
///
/// All of them are writable and on this thread's stack.
#[inline(always)]
pub(crate) unsafe fn wipe_stack(lowest: *mut u64) {
    // SAFETY: the caller's promise, and that of an assembly block which is not `nostack`: it owns what is below the
    // stack pointer.
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
