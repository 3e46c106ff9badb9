//! What there can be too little of.

#![allow(unsafe_code, reason = "the limits of file descriptors and of addresses")]

use std::fs;
use std::time::Instant;

use super::{PATIENCE, ms};

#[derive(Debug, Clone, Copy)]
enum Limit {
    FileDescriptors,
    /// Of addresses.
    Bytes,
}

impl Limit {
    /// What `body` returns while there may be `most`.
    fn within<T>(self, most: libc::rlim_t, body: impl FnOnce() -> T) -> T {
        let before = self.set(most);
        let done = body();
        self.set(before);
        done
    }

    /// How many there could be before.
    fn set(self, most: libc::rlim_t) -> libc::rlim_t {
        let resource = match self {
            Self::FileDescriptors => libc::RLIMIT_NOFILE,
            Self::Bytes => libc::RLIMIT_AS,
        };
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is valid for both calls, which keep nothing of it.
        unsafe {
            assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
            let before = limit.rlim_cur;
            limit.rlim_cur = most;
            assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
            before
        }
    }
}

/// What `body` returns while no file can be opened.
pub(crate) fn without_file_descriptors<T>(body: impl FnOnce() -> T) -> T {
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    Limit::FileDescriptors.within(open as libc::rlim_t - 1, body)
}

/// What `body` returns while there is room for so many bytes beside those that are mapped.
pub(crate) fn with_room_for<T>(bytes: u64, body: impl FnOnce() -> T) -> T {
    Limit::Bytes.within(mapped() + bytes, body)
}

/// How many bytes are mapped, once threads that are just ending have given back their stacks.
fn mapped() -> u64 {
    let read = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")).unwrap();
        kib.parse::<u64>().unwrap() << 10
    };
    let (began, mut since, mut bytes) = (Instant::now(), Instant::now(), read());
    while since.elapsed() < ms(100) && began.elapsed() < PATIENCE {
        std::thread::sleep(ms(5));
        let now = read();
        if now != bytes {
            (since, bytes) = (Instant::now(), now);
        }
    }
    bytes
}
