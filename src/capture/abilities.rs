//! What can be captured in this process. Sandboxes take parts of it away.

#[cfg(heeler_copies)]
use super::{memory::Memory, procfs::look, sys, thread};

/// See the module. Found out by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether threads can be sent a signal.
    pub(crate) signals: bool,
    /// Whether `/proc` tells what a thread is doing.
    pub(crate) threads: bool,
    /// Whether memory can be read in a way that fails instead of faulting.
    pub(crate) memory: bool,
}

/// Returns what works now. It exists only where stacks are copied, because elsewhere nothing can be taken away.
#[cfg(heeler_copies)]
pub(crate) fn abilities() -> Abilities {
    Abilities {
        signals: thread::sending().is_some(),
        threads: look(sys::thread_id()).state.is_some(),
        memory: Memory::prepare().is_some(),
    }
}

#[cfg(not(heeler_copies))]
pub(crate) fn abilities() -> Abilities {
    Abilities { signals: true, threads: true, memory: true }
}

impl Abilities {
    /// Returns what is lost, and why, with a sentence for each.
    pub(crate) fn losses(self) -> impl Iterator<Item = &'static str> {
        let signals = match self.threads {
            true => "the system refuses signals to threads: only those that sleep in a system call show their stacks",
            false => "the system refuses signals to threads, and /proc is not readable: no thread shows its stack",
        };
        let threads = "/proc is not readable: reports do not say what a thread is doing, and one that sleeps is woken to be asked";
        let memory = "/proc/self/mem is not readable: polls on stacks of their own (fibers) do not show them";
        let all = [(self.signals, signals), (self.threads || !self.signals, threads), (self.memory, memory)];
        all.into_iter().filter(|(has, _)| !has).map(|(_, loss)| loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: nothing is reported if everything works, and each missing ability is reported once.
    #[test]
    fn each_missing_ability_is_reported_once() {
        assert_eq!(abilities().losses().count(), 0, "{:?}", abilities());
        let none = Abilities { signals: false, threads: false, memory: false };
        assert_eq!(none.losses().count(), 2);
        let all = Abilities { signals: true, threads: true, memory: true };
        for one in [
            Abilities { signals: false, ..all },
            Abilities { threads: false, ..all },
            Abilities { memory: false, ..all },
        ] {
            assert_eq!(one.losses().count(), 1, "{one:?}");
        }
    }
}
