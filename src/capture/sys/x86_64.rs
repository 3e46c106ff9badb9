//! Registers of x86_64.

use std::arch::asm;

use crate::capture::snapshot::Registers;

/// Returns the caller's own registers, at this very place.
#[inline(always)]
pub(crate) fn registers() -> Registers {
    let (pc, sp, fp): (u64, u64, u64);
    // SAFETY: reads three registers and writes nothing but its outputs.
    unsafe {
        asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {fp}, rbp",
            pc = out(reg) pc, sp = out(reg) sp, fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    Registers { pc, sp, fp, lr: 0 }
}

/// Returns the stack pointer of the function that this is inlined into.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register and writes nothing but its output.
    unsafe { asm!("mov {sp}, rsp", sp = out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Returns the interrupted thread's registers.
///
/// # Safety
///
/// `context` is the third argument of a handler installed with `SA_SIGINFO`.
pub(crate) unsafe fn interrupted(context: *const libc::c_void) -> Registers {
    // SAFETY: the kernel passes a `ucontext_t` there, which outlives the handler's call.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    Registers {
        pc: registers[libc::REG_RIP as usize] as u64,
        sp: registers[libc::REG_RSP as usize] as u64,
        fp: registers[libc::REG_RBP as usize] as u64,
        lr: 0,
    }
}

/// Copies `count` words without calling anything, so that no frame overwrites what is read.
///
/// # Safety
///
/// `from` is readable and `to` is writable for `count` words; the two do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_words(from: *const u64, to: *mut u64, count: usize) {
    // SAFETY: the caller's promise. The direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsq",
            inout("rcx") count => _, inout("rsi") from => _, inout("rdi") to => _,
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
    // SAFETY: the caller's promise. The kernel changes the registers named and writes to `to`. It leaves the stack
    // alone.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_pread64 as isize => result,
            in("rdi") descriptor as isize, in("rsi") to, in("rdx") len, in("r10") offset,
            lateout("rcx") _, lateout("r11") _,
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
    // stack pointer, including the red zone. The direction flag is clear by the ABI.
    unsafe {
        asm!(
            "mov rcx, rsp",
            "sub rcx, rdi",
            "shr rcx, 3",
            "rep stosq",
            out("rcx") _, inout("rdi") lowest => _, in("rax") 0_u64,
        );
    }
}
