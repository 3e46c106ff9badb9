//! The alternate stack that the handler runs on (`SA_ONSTACK`), so that the kernel's frame does not land on a
//! coroutine's or a nearly full stack.
//!
//! Threads that Rust's standard library starts have one, and so has the main thread of a Rust program. Other threads
//! need not have one. With much CPU state, the standard library's may have room for the kernel's frame and nothing
//! more. Only the thread itself can look at it, or change it.

use std::ptr::null_mut;

/// What the handler needs in addition to the kernel's frame, in bytes.
const HANDLER: usize = 4 * 1024;
/// Kernels before 5.14 do not tell how large their frame is. With AVX-512 it is some 3.5 KiB.
const FRAME: usize = if libc::MINSIGSTKSZ > 4096 { libc::MINSIGSTKSZ } else { 4096 };
/// Other handlers of the application that ask for the alternate stack will run on this one, too.
const SIZE: usize = 64 * 1024;

/// The stack that a thread has for handlers. Must be dropped on that thread, when it ends.
#[derive(Debug)]
pub(crate) struct SignalStack {
    /// Whether there is room, on the thread's own or on one of heeler's. Otherwise the thread must not be signalled.
    is_enough: bool,
    /// Kept only to be dropped.
    #[cfg_attr(not(test), allow(dead_code, reason = "its destructor takes it back"))]
    ours: Option<Installed>,
}

/// One of heeler's stacks, in use on this thread.
#[derive(Debug)]
struct Installed {
    map: *mut libc::c_void,
    len: usize,
    guard: usize,
    before: libc::stack_t,
}

impl SignalStack {
    /// Makes sure that the calling thread has one that is large enough.
    pub(crate) fn ensure() -> Self {
        let Some(current) = current() else { return Self { is_enough: false, ours: None } };
        if current.ss_flags & libc::SS_DISABLE == 0 && current.ss_size >= needed() {
            return Self { is_enough: true, ours: None };
        }
        let ours = Installed::new(current);
        Self { is_enough: ours.is_some(), ours }
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.is_enough
    }

    /// Returns whether it is one of heeler's.
    #[cfg(test)]
    pub(crate) fn is_ours(&self) -> bool {
        self.ours.is_some()
    }
}

/// Returns the least size that a stack must have.
fn needed() -> usize {
    // SAFETY: looks up a number.
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    frame.max(FRAME) + HANDLER
}

fn current() -> Option<libc::stack_t> {
    let mut current = std::mem::MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: writes what is set for this thread into `current`, or fails.
    let read = unsafe { libc::sigaltstack(std::ptr::null(), current.as_mut_ptr()) } == 0;
    // SAFETY: filled in by the call, which has succeeded.
    read.then(|| unsafe { current.assume_init() })
}

impl Installed {
    fn new(before: libc::stack_t) -> Option<Self> {
        // SAFETY: a fresh mapping, whose lowest page stays without access. It is this thread's alternate stack until
        // `drop`, on the same thread, takes it back. The call fails if the thread runs on its alternate stack right
        // now.
        unsafe {
            let guard = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).ok()?;
            let size = needed().max(SIZE).next_multiple_of(guard);
            let len = guard + size;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            if map == libc::MAP_FAILED {
                return None;
            }
            let stack = libc::stack_t { ss_sp: map.byte_add(guard), ss_flags: 0, ss_size: size };
            let writable = libc::mprotect(stack.ss_sp, size, libc::PROT_READ | libc::PROT_WRITE) == 0;
            if !writable || libc::sigaltstack(&raw const stack, null_mut()) != 0 {
                libc::munmap(map, len);
                return None;
            }
            Some(Self { map, len, guard, before })
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let Some(current) = current() else { return };
        let is_disabled = current.ss_flags & libc::SS_DISABLE != 0;
        // SAFETY: puts back what was there. It unmaps only what the thread does not use any more, and what nobody can
        // put back. Somebody who has set another stack in the meantime could.
        unsafe {
            if !is_disabled {
                let is_ours = current.ss_sp == self.map.byte_add(self.guard);
                if !is_ours || libc::sigaltstack(&raw const self.before, null_mut()) != 0 {
                    return;
                }
            }
            libc::munmap(self.map, self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets a stack of that size, or none.
    fn set(size: usize) -> libc::stack_t {
        let room: &'static mut [u8] = Box::leak(vec![0; size.max(1)].into());
        let flags = if size == 0 { libc::SS_DISABLE } else { 0 };
        let stack = libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: flags, ss_size: size };
        // SAFETY: the room is never freed.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, null_mut()) }, 0);
        stack
    }

    fn on_a_thread(body: impl FnOnce() + Send + 'static) {
        std::thread::spawn(move || {
            body();
            // As the standard library expects, which unmaps its own when the thread ends.
            set(0);
        })
        .join()
        .unwrap();
    }

    /// Guards: a signal stack that is large enough is left alone.
    #[test]
    fn a_large_signal_stack_is_left_alone() {
        on_a_thread(|| {
            let theirs = set(needed());
            let stack = SignalStack::ensure();
            assert!(stack.is_enough() && !stack.is_ours());
            drop(stack);
            assert_eq!(current().unwrap().ss_sp, theirs.ss_sp);
        });
    }

    /// Guards: a missing or small signal stack is replaced, and restored at the end.
    #[test]
    fn a_small_signal_stack_is_replaced_and_restored() {
        on_a_thread(|| {
            for size in [0, needed() - 1] {
                let theirs = set(size);
                let stack = SignalStack::ensure();
                assert!(stack.is_enough() && stack.is_ours());
                let ours = current().unwrap();
                assert!(ours.ss_size >= needed() && ours.ss_flags & libc::SS_DISABLE == 0);
                drop(stack);
                let now = current().unwrap();
                assert_eq!(now.ss_flags & libc::SS_DISABLE != 0, size == 0);
                assert!(size == 0 || now.ss_sp == theirs.ss_sp);
            }
        });
    }

    /// Guards: a signal stack that the application has set in the meantime stays.
    #[test]
    fn a_signal_stack_set_meanwhile_stays() {
        on_a_thread(|| {
            set(0);
            let stack = SignalStack::ensure();
            let theirs = set(2 * SIZE);
            drop(stack);
            assert_eq!(current().unwrap().ss_sp, theirs.ss_sp);
        });
    }
}
