//! Stacks that are not their thread's own, by `ucontext`.

use std::cell::Cell;
use std::ptr::null_mut;

/// A mapping to put a stack in.
pub(crate) struct Map {
    start: *mut u8,
    len: usize,
}

impl Map {
    pub(crate) fn new(len: usize) -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping.
        let start = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), len }
    }

    /// Takes the access to the lowest bytes away.
    pub(crate) fn guarded(self, len: usize) -> Self {
        // SAFETY: part of the mapping, which nobody uses yet.
        assert_eq!(unsafe { libc::mprotect(self.start.cast(), len, libc::PROT_NONE) }, 0);
        self
    }

    pub(crate) fn fill(&mut self, len: usize, with: u8) {
        assert!(len <= self.len);
        // SAFETY: part of the mapping, which nobody uses yet.
        unsafe { self.start.write_bytes(with, len) };
    }

    /// How many of the lowest bytes are not that one.
    pub(crate) fn others(&self, len: usize, than: u8) -> usize {
        // SAFETY: part of the mapping, which nobody writes to.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, len.min(self.len)) };
        bytes.iter().filter(|byte| **byte != than).count()
    }

    /// Runs `body` on the bytes from `from` upwards; it is given the lowest address of its stack.
    pub(crate) fn run<T>(&mut self, from: usize, body: impl FnOnce(usize) -> T) -> T {
        let (mut result, mut body) = (None, Some(body));
        // SAFETY: the part of the mapping that is its stack, which lives until it has returned.
        unsafe {
            let base = self.start.add(from);
            let mut run = || result = body.take().map(|body| body(base.addr()));
            switch(base, self.len - from, &mut run);
        }
        result.unwrap()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; nothing runs on it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Runs `body` on a stack of one MiB above bytes that nobody may touch.
pub(crate) fn on_fiber<T>(body: impl FnOnce() -> T) -> T {
    const GUARD: usize = 1 << 16;
    Map::new(GUARD + (1 << 20)).guarded(GUARD).run(GUARD, |_| body())
}

thread_local! {
    static RUN: Cell<Option<*mut (dyn FnMut() + 'static)>> = const { Cell::new(None) };
}

extern "C" fn entry() {
    let run = RUN.take().unwrap();
    // SAFETY: lives in `switch`'s caller, which waits for this to return.
    unsafe { (*run)() };
}

/// # Safety
///
/// `stack` has `size` bytes that nobody uses meanwhile.
unsafe fn switch(stack: *mut u8, size: usize, run: &mut dyn FnMut()) {
    let run: *mut (dyn FnMut() + '_) = run;
    // SAFETY: zeros are valid contexts until they are filled in. `entry` takes no arguments; when it returns, it goes on in
    // `here`. The lifetime is forgotten only until then.
    unsafe {
        RUN.set(Some(std::mem::transmute::<*mut (dyn FnMut() + '_), *mut (dyn FnMut() + 'static)>(run)));
        let (mut here, mut there): (libc::ucontext_t, libc::ucontext_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::getcontext(&raw mut there);
        there.uc_stack.ss_sp = stack.cast();
        there.uc_stack.ss_size = size;
        there.uc_link = &raw mut here;
        libc::makecontext(&raw mut there, entry, 0);
        libc::swapcontext(&raw mut here, &raw const there);
    }
}

/// Goes down the stack until there are no more than `left` bytes of it, and runs `body` there.
#[inline(never)]
pub(crate) fn with_little_left(base: usize, left: usize, body: &mut dyn FnMut()) {
    let room = std::hint::black_box([0_u8; 128]);
    if std::ptr::from_ref(&room).addr() - base > left {
        with_little_left(base, left, body);
    } else {
        body();
    }
    std::hint::black_box(&room);
}
