//! The name of a piece of work that has, or had, a row.

/// A row's number together with its generation. It names one piece of work for ever.
///
/// The row's number has the number of its process in its upper bits. So a name that a child of `fork` has inherited
/// doesn't reach any of the child's own rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RowId(u64);

impl RowId {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | (index as u64 + 1))
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the row's number, or `None` for [`RowId::NONE`].
    pub(crate) const fn index(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
