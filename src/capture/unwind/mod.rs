//! From a copied stack to addresses, on the reporter's thread.

#[cfg(heeler_copies)]
mod copied;
#[cfg(heeler_copies)]
mod guess;
#[cfg(not(heeler_copies))]
mod portable;

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
    /// The unwinder came as far as the poll's own frame.
    pub(crate) complete: bool,
}
