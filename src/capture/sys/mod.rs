//! The differences between platforms, behind one interface.
//!
//! Linux on x86_64 and aarch64 copies stacks. Elsewhere, and with `HEELER_PORTABLE=1` at build time, the `backtrace`
//! crate walks await stacks and threads cannot be captured. Everything else works.

#[cfg(all(heeler_copies, target_arch = "aarch64"))]
#[path = "aarch64.rs"]
mod arch;
#[cfg(all(heeler_copies, target_arch = "x86_64"))]
#[path = "x86_64.rs"]
mod arch;
#[cfg(heeler_copies)]
mod linux;
#[cfg(heeler_copies)]
mod signal_stack;
#[cfg(not(heeler_copies))]
mod unsupported;

#[cfg(heeler_copies)]
pub(crate) use linux::*;
#[cfg(heeler_copies)]
pub(crate) use signal_stack::SignalStack;
#[cfg(not(heeler_copies))]
pub(crate) use unsupported::*;

/// Returns the user that this process acts as.
#[cfg(all(unix, feature = "console"))]
pub(crate) fn user_id() -> u32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::geteuid() }
}
