//! How memory is read: decided here, once, for the whole crate. The `// SAFETY:` comments beside the reads refer to it.
//!
//! | memory | its life is held by | read |
//! |---|---|---|
//! | the running thread's own stack, from the stack pointer up to a frame that encloses the reader, both within its bounds | the thread itself, which stands in that frame | in place |
//! | tables and code of the executable, and of the module that heeler is linked into | the code that asks | in place |
//! | headers of a library | the loader's lock, while `dl_iterate_phdr` calls back | in place |
//! | tables of a library | the loader's lock; a file that was cut short while it is loaded faults, here as in the program | in place, and kept as a copy |
//! | another thread's own stack | that thread's life, whose lock is held: only its stack, and only if it ends as threads do | [`Memory::read`]; where there is none, in place |
//! | a stack that is not the thread's own: a fiber's, or beyond the bounds that are known | nothing | [`Memory::read`] |
//! | the file of a module, mapped to look up names | the mapping; a file that was cut short meanwhile faults, here as in the program | in place |
//! | anything else | nothing | never |
//!
//! [`Memory::read`] is `pread64` on `/proc/self/mem`: it fails where nothing is mapped. (A guard page reads as zeros.) Not `process_vm_readv`, which
//! seccomp filters are more likely to answer with the end of the process. It is called without the C library, so that it can
//! be used in the signal handler and under a leaf future's lock.
//!
//! The descriptor is opened outside of both. One that was inherited by `fork` reads the parent's memory, and one may be closed
//! by a program that closes all it does not know: so it is checked each time a thread is asked, by
//! reading back what was just written. If it is closed between that check and a read, the read fails, or reads another file, whose
//! bytes are taken for a stack: the stack is wrong, but nothing faults.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fork::PerProcess;
use super::sys;
use super::thread::MAX_COPY;

/// How much is read, in bytes, of a stack of which nothing says where it ends: for a thread, and for an await, of which there
/// may be many in one poll.
pub(super) const THREAD_APART: usize = 64 * 1024;
pub(super) const AWAIT_APART: usize = 32 * 1024;

/// Fewer words than these are no stack.
pub(super) const LEAST: usize = 4;

/// Reads of this process's memory that fail instead of faulting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory(i32);

/// The descriptor and the process that has opened it; zero for none.
static READY: AtomicU64 = AtomicU64::new(0);
/// Written anew for each check, and read back through the descriptor: the process, and a number.
static MARK: AtomicU64 = AtomicU64::new(0);
/// One check at a time. Never waited for.
static CHECKING: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);

fn pack(memory: Memory) -> u64 {
    u64::from(sys::process_id() as u32) << 32 | u64::from(memory.0 as u32)
}

impl Memory {
    /// Opens the descriptor unless it is open and still what it was. Not for the signal handler, and not under locks of
    /// others. `None` where the system does not allow it.
    pub(super) fn prepare() -> Option<Self> {
        let Ok(_checking) = CHECKING.get().try_lock() else { return Self::prepared() };
        let ready = READY.load(Ordering::Relaxed);
        if ready != 0 {
            let memory = Self(ready as u32 as i32);
            let (mark, found) = memory.check();
            if found == Some(mark) {
                return Some(memory);
            }
            if found.is_some_and(|found| found >> 32 == ready >> 32 && found >> 32 != mark >> 32) {
                // SAFETY: it reads the memory of the process that this one was forked from: nobody else has opened it.
                drop(unsafe { OwnedFd::from_raw_fd(memory.0) });
            }
            // Else it was closed by others, and is by now what they have made of the number.
        }
        let opened = File::open("/proc/self/mem").ok().and_then(|file| {
            let (mark, found) = Self(file.as_raw_fd()).check();
            (found == Some(mark)).then(|| Self(file.into_raw_fd()))
        });
        READY.store(opened.map_or(0, pack), Ordering::Relaxed);
        opened
    }

    /// Writes a new mark, and what is found in its place.
    fn check(self) -> (u64, Option<u64>) {
        let number = (MARK.load(Ordering::Relaxed) as u32).wrapping_add(1);
        let mark = u64::from(sys::process_id() as u32) << 32 | u64::from(number);
        MARK.store(mark, Ordering::Relaxed);
        let mut found = [0];
        // SAFETY: one word of room.
        let read = unsafe { self.read((&raw const MARK).addr(), found.as_mut_ptr(), 1) };
        (mark, (read == 1).then_some(found[0]))
    }

    /// The descriptor that [`Memory::prepare`] has opened, if this process has. Takes no lock.
    pub(super) fn prepared() -> Option<Self> {
        let ready = READY.load(Ordering::Relaxed);
        let memory = Self(ready as u32 as i32);
        (ready != 0 && pack(memory) == ready).then_some(memory)
    }

    /// As a number that the handler can be given; negative for none.
    pub(super) fn to_bits(memory: Option<Self>) -> i32 {
        memory.map_or(-1, |memory| memory.0)
    }

    pub(super) fn from_bits(bits: i32) -> Option<Self> {
        (bits >= 0).then_some(Self(bits))
    }

    /// Reads words from an address upwards, up to the first that cannot be read; says how many. Async-signal-safe: system
    /// calls, and nothing else; `errno` is not touched.
    ///
    /// # Safety
    ///
    /// `to` is writable for `count` words, and nobody else's. Nothing is asked of `from`.
    pub(super) unsafe fn read(self, from: usize, to: *mut u64, count: usize) -> usize {
        let wanted = count * 8;
        let mut done = 0;
        while done < wanted {
            let at = (from as u64).wrapping_add(done as u64);
            // SAFETY: the caller's promise, for what is left of the room.
            let read = unsafe { sys::read_at(self.0, to.cast::<u8>().add(done), wanted - done, at) };
            // What cannot be read ends it, and so does a descriptor that is something else.
            let Ok(read) = usize::try_from(read) else { break };
            if read == 0 {
                break;
            }
            done += read.min(wanted - done);
        }
        done / 8
    }
}

/// How many bytes to read from `sp` upwards on a stack that is not known: up to the poll's own frame where that lies close
/// above (the poll itself is made on a fiber; the main thread's stack has grown beyond the bounds that were known), else no
/// more than `most`.
pub(super) fn extent(sp: usize, frame: usize, most: usize) -> usize {
    if reaches(sp, frame, MAX_COPY) { frame - sp } else { most }
}

/// Whether so many bytes from `sp` upwards reach the poll's own frame.
pub(super) fn reaches(sp: usize, frame: usize, bytes: usize) -> bool {
    sp < frame && (frame - sp) & !7 <= bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: usize, count: usize) -> Vec<u64> {
        let mut words = vec![0; count];
        // SAFETY: room for `count` words.
        let read = unsafe { Memory::prepare().unwrap().read(from, words.as_mut_ptr(), count) };
        words.truncate(read);
        words
    }

    /// Guards: mapped memory is read, up to where it ends.
    #[test]
    fn a_read_ends_where_memory_ends() {
        let page = 4096;
        // SAFETY: maps two pages and takes the second away again.
        let start = unsafe {
            let map = libc::mmap(
                std::ptr::null_mut(),
                2 * page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED);
            map.cast::<u64>().add(page / 8 - 1).write(77);
            assert_eq!(libc::munmap(map.byte_add(page), page), 0);
            map.addr()
        };
        assert_eq!(read(start + page - 16, 100), [0, 77]);
        assert!(read(start + page, 1).is_empty());
        assert!(read(8, 1).is_empty());
        // SAFETY: the page that is left.
        unsafe { libc::munmap(start as *mut _, page) };
    }

    /// Guards: copies go up to the poll's frame where that is near, and not far beyond the stack pointer where it is not.
    #[test]
    fn copies_of_unknown_stacks_are_bounded() {
        assert_eq!(extent(0x10_000, 0x10_800, THREAD_APART), 0x800);
        assert_eq!(extent(0x10_000, 0x10_000 + MAX_COPY, THREAD_APART), MAX_COPY);
        assert_eq!(extent(0x10_000, 0x20_000 + MAX_COPY, THREAD_APART), THREAD_APART);
        assert_eq!(extent(0x10_000, 0x8_000, AWAIT_APART), AWAIT_APART);
    }
}
