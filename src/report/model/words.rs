//! The words that a report uses besides its kind and verdict: the kinds of stacks, and the activities of the work.

use serde::{Deserialize, Serialize};

/// What a stack is a stack of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StackKind {
    /// An await point: from the waiting future (first frame) to the work's outermost future.
    Await,
    /// A thread inside the work's poll (or inside its child work).
    Thread,
    /// A thread that holds a worker which the starved request needs.
    Culprit,
}

/// What the work did during a part of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// It waited to be woken.
    Waiting,
    /// It was inside a poll: on a CPU, or blocked there.
    Running,
    /// Heeler had woken it, and it waited to be polled. A wake by anything else isn't seen.
    Runnable,
    /// It had woken itself and waited to be polled again.
    Yielding,
    /// It was not observed.
    #[serde(other)]
    Unobserved,
}

/// Reads the words of a report that a later version wrote. An unknown word becomes the most common one.
pub(in crate::report) mod lenient {
    use serde::de::IgnoredAny;
    use serde::{Deserialize, Deserializer};

    use super::StackKind;
    use crate::inflight::Ended;
    use crate::monitor::Kind;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word<T> {
        Known(T),
        Unknown(IgnoredAny),
    }

    fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D, fallback: T) -> Result<T, D::Error> {
        Ok(match Word::deserialize(deserializer)? {
            Word::Known(word) => word,
            Word::Unknown(_) => fallback,
        })
    }

    pub(in crate::report) fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        word(deserializer, Kind::SlowRequest)
    }

    pub(in crate::report) fn ended<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ended, D::Error> {
        word(deserializer, Ended::Unknown)
    }

    pub(in crate::report) fn stack_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StackKind, D::Error> {
        word(deserializer, StackKind::Await)
    }
}
