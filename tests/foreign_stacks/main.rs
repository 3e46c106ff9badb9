//! Stacks that heeler does not know: fibers, small coroutines, threads without an alternate signal stack; and processes that
//! may not make every system call.
#![cfg(all(feature = "watchdog", feature = "timebox"))]
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code, reason = "switches stacks, makes threads of its own, and filters system calls")]

#[path = "../common/mod.rs"]
mod common;
mod fiber;
mod filters;
mod polls;
mod sandboxes;
mod seccomp;
mod small;

/// For [`seccomp::filter`]: every thread, those that are to come included.
const ALL: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_TSYNC;
