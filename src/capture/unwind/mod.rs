//! Turns a copied stack into addresses, on the reporter's thread.

#[cfg(heeler_copies)]
mod copied;
#[cfg(heeler_copies)]
mod instructions;
#[cfg(not(heeler_copies))]
mod portable;
#[cfg(heeler_copies)]
mod stack_scan;
#[cfg(heeler_copies)]
mod tail_calls;
#[cfg(all(test, heeler_copies, target_arch = "aarch64"))]
mod tests;
#[cfg(heeler_copies)]
mod untabled;

#[cfg(heeler_copies)]
pub(crate) use copied::Unwinder;
#[cfg(not(heeler_copies))]
pub(crate) use portable::Unwinder;

use super::symbols::Address;

/// An unwound stack.
#[derive(Debug, Clone)]
pub(crate) struct Unwound {
    /// Innermost first.
    pub(crate) addresses: Vec<Address>,
    /// Whether the unwinder came as far as the poll's own frame, or to the end of a stack that isn't the thread's own.
    pub(crate) complete: bool,
    /// How such a stack ended.
    #[cfg_attr(not(heeler_copies), allow(dead_code, reason = "stacks are not copied"))]
    pub(crate) end: End,
}

/// How a stack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(heeler_copies), allow(dead_code, reason = "stacks are not copied"))]
pub(crate) enum End {
    /// At the poll's own frame, or where the modules say so.
    Known,
    /// It goes on at that address, on another stack.
    Elsewhere(u64),
    /// Nothing says how to go on from there, as at the entry of most fibers.
    Lost,
}
