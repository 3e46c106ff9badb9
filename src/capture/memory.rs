//! How memory is read, decided here for the whole crate. The `// SAFETY:` comments beside the reads refer to it.
//!
//! | memory | what keeps it alive | read |
//! |---|---|---|
//! | the running thread's own stack, from the stack pointer up to a frame that encloses the reader, both within its bounds | the thread itself, which is in that frame | in place |
//! | tables and code of the executable, and of the module that heeler is linked into | the code that asks | in place |
//! | headers of a library | the loader's lock, while `dl_iterate_phdr` calls back | in place |
//! | tables of a library | the loader's lock; a file that was cut short while it is loaded faults, here as in the program | in place, and kept as a copy |
//! | another thread's own stack | that thread's life, whose lock is held: only its stack, and only if it ends as threads do | [`Memory::read`], or in place where that is not available |
//! | a stack that is not the thread's own: a fiber's, or beyond the bounds that are known | nothing | [`Memory::read`] |
//! | the file of a module, mapped to look up names | the mapping; a file that is cut short meanwhile faults, here as in the program | in place |
//! | anything else | nothing | never |
//!
//! [`Memory::read`] is `pread64` on `/proc/self/mem`, which fails where nothing is mapped. (A guard page reads as
//! zeros.) It isn't `process_vm_readv`, because seccomp filters are more likely to end the process for that. It is
//! called without the C library, so that it can be used in the signal handler and under a leaf future's lock.
//!
//! The descriptor is opened outside of both. One that was inherited by `fork` reads the parent's memory, and a program
//! that closes all descriptors it does not know may close it. So it is checked each time a thread is asked, by reading
//! back what was just written. If it is closed between that check and a read, the read fails, or reads another file,
//! whose bytes are taken for a stack. Then the stack is wrong, but nothing faults.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fork::PerProcess;
use super::sys;
use super::thread::MAX_COPY;

/// How many bytes to read of a stack whose end is unknown: for a thread, and for an await, of which there may be many
/// in one poll.
pub(super) const THREAD_APART: usize = 64 * 1024;
pub(super) const AWAIT_APART: usize = 32 * 1024;

/// Fewer words than these are not a stack.
pub(super) const LEAST: usize = 4;

/// Reads of this process's memory that fail instead of faulting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory(i32);

/// The descriptor and the process that opened it, or zero for none.
static READY: AtomicU64 = AtomicU64::new(0);
/// The process and a number. Written anew for each check, and read back through the descriptor.
static MARK: AtomicU64 = AtomicU64::new(0);
/// Held during a check. Never waited for.
static CHECKING: PerProcess<Mutex<()>> = PerProcess::new(Mutex::default);

fn pack(memory: Memory) -> u64 {
    u64::from(sys::process_id() as u32) << 32 | u64::from(memory.0 as u32)
}

impl Memory {
    /// Opens the descriptor unless it is open and still the same. Must not be called in the signal handler, or under
    /// other people's locks. `None` if the system does not allow it.
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
                // SAFETY: it reads the memory of the process that this one was forked from, so nothing else has opened
                // it.
                drop(unsafe { OwnedFd::from_raw_fd(memory.0) });
            }
            // Otherwise others have closed it, and the number is now whatever they have opened.
        }
        let opened = File::open("/proc/self/mem").ok().and_then(|file| {
            let (mark, found) = Self(file.as_raw_fd()).check();
            (found == Some(mark)).then(|| Self(file.into_raw_fd()))
        });
        READY.store(opened.map_or(0, pack), Ordering::Relaxed);
        opened
    }

    /// Writes a new mark. Returns it, and what is found in its place.
    fn check(self) -> (u64, Option<u64>) {
        let number = (MARK.load(Ordering::Relaxed) as u32).wrapping_add(1);
        let mark = u64::from(sys::process_id() as u32) << 32 | u64::from(number);
        MARK.store(mark, Ordering::Relaxed);
        let mut found = [0];
        // SAFETY: one word of room.
        let read = unsafe { self.read((&raw const MARK).addr(), found.as_mut_ptr(), 1) };
        (mark, (read == 1).then_some(found[0]))
    }

    /// Returns the descriptor that [`Memory::prepare`] has opened, if it was in this process. Takes no lock.
    pub(super) fn prepared() -> Option<Self> {
        let ready = READY.load(Ordering::Relaxed);
        let memory = Self(ready as u32 as i32);
        (ready != 0 && pack(memory) == ready).then_some(memory)
    }

    /// Converts to a number that the handler can be given, negative for none.
    pub(super) fn to_bits(memory: Option<Self>) -> i32 {
        memory.map_or(-1, |memory| memory.0)
    }

    pub(super) fn from_bits(bits: i32) -> Option<Self> {
        (bits >= 0).then_some(Self(bits))
    }

    /// Reads words from an address upwards, up to the first that cannot be read. Returns how many. It is
    /// async-signal-safe: it makes system calls and nothing else, and `errno` is not touched.
    ///
    /// # Safety
    ///
    /// `to` is writable for `count` words, and nothing else uses it. `from` may be anything.
    pub(super) unsafe fn read(self, from: usize, to: *mut u64, count: usize) -> usize {
        let wanted = count * 8;
        let mut done = 0;
        while done < wanted {
            let at = (from as u64).wrapping_add(done as u64);
            // SAFETY: the caller's promise, for what is left of the room.
            let read = unsafe { sys::read_at(self.0, to.cast::<u8>().add(done), wanted - done, at) };
            // A word that cannot be read ends it, and so does a descriptor of something else.
            let Ok(read) = usize::try_from(read) else { break };
            if read == 0 {
                break;
            }
            done += read.min(wanted - done);
        }
        done / 8
    }
}

/// Returns how many bytes to read from `sp` upwards on an unknown stack. Reads up to the poll's own frame if that is
/// close above (because the poll itself is made on a fiber, or the main thread's stack has grown beyond its known
/// bounds), otherwise no more than `most`.
pub(super) fn extent(sp: usize, frame: usize, most: usize) -> usize {
    if reaches(sp, frame, MAX_COPY) { frame - sp } else { most }
}

/// Returns whether that many bytes from `sp` upwards reach the poll's own frame.
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

    /// Guards: copies go up to the poll's frame if that is near, otherwise not far beyond the stack pointer.
    #[test]
    fn copies_of_unknown_stacks_are_bounded() {
        assert_eq!(extent(0x10_000, 0x10_800, THREAD_APART), 0x800);
        assert_eq!(extent(0x10_000, 0x10_000 + MAX_COPY, THREAD_APART), MAX_COPY);
        assert_eq!(extent(0x10_000, 0x20_000 + MAX_COPY, THREAD_APART), THREAD_APART);
        assert_eq!(extent(0x10_000, 0x8_000, AWAIT_APART), AWAIT_APART);
    }
}
