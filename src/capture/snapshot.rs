//! A copied stack: registers and bytes, which are unwound later and elsewhere.

use std::sync::Arc;

/// The registers that an unwinder needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    /// `rbp` or `x29`.
    pub(crate) fp: u64,
    /// `x30`, or zero where there is none.
    pub(crate) lr: u64,
}

/// How a stack was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the tracing waker. The first frame is heeler's own.
    Waker,
    /// In the signal handler, or from a sleeping thread. The first frame is the interrupted function.
    Signal,
    /// What a finished poll left below its caller: no registers, only words.
    DeadFrames,
}

/// One stack as it was copied. Not `Debug`, because there may be anything on a stack.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) origin: Origin,
    pub(crate) data: Data,
    /// Whether the copy is shorter than the stack, or may be.
    pub(crate) truncated: bool,
    /// Whether the stack isn't the thread's own (a fiber's). Then it ends at that stack's entry, not at the poll's own
    /// frame.
    pub(crate) foreign: bool,
    /// Ids of the spans that were entered, outermost first.
    #[cfg_attr(not(feature = "spans"), allow(dead_code, reason = "always empty then"))]
    pub(crate) spans: Vec<u64>,
}

#[derive(Clone)]
pub(crate) enum Data {
    /// Words from `registers.sp` upwards.
    Copied { registers: Registers, words: Arc<[u64]> },
    /// Return addresses, innermost first, where stacks cannot be copied.
    Walked(Arc<[u64]>),
}

impl Snapshot {
    /// Returns how many bytes this snapshot holds.
    pub(crate) fn size(&self) -> usize {
        size_of_val(self.words())
    }

    /// Returns where these bytes are. Clones have them at the same address.
    pub(crate) fn address(&self) -> usize {
        self.words().as_ptr().addr()
    }

    /// Creates a stack of that many words.
    #[cfg(test)]
    pub(crate) fn of_zeros(words: usize) -> Self {
        let data = Data::Walked(vec![0; words].into());
        Self { origin: Origin::Signal, data, truncated: false, foreign: false, spans: Vec::new() }
    }

    fn words(&self) -> &[u64] {
        match &self.data {
            Data::Copied { words, .. } => words,
            Data::Walked(addresses) => addresses,
        }
    }
}
