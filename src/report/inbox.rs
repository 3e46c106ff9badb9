//! What waits for the reporter: bounded, and the oldest goes first when there is too much.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use crate::sync::lock_std;

/// A queue that is filled from any thread and emptied by one task.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    messages: Mutex<VecDeque<T>>,
    filled: Notify,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { messages: Mutex::default(), filled: Notify::new() }
    }
}

impl<T> Inbox<T> {
    /// Adds a message; never waits for room. If there are `capacity` messages of those that `may_go` already, the oldest of
    /// them is returned.
    #[must_use]
    pub(super) fn push(&self, message: T, capacity: usize, may_go: impl Fn(&T) -> bool) -> Option<T> {
        let mut messages = lock_std(&self.messages);
        let dropped = if messages.len() < capacity {
            None
        } else {
            let oldest = messages.iter().position(may_go);
            oldest.and_then(|oldest| messages.remove(oldest))
        };
        messages.push_back(message);
        drop(messages);
        self.filled.notify_one();
        dropped
    }

    /// The next message; `None` if there is none for so long. To be asked by one task at a time.
    pub(super) async fn next(&self, timeout: Duration) -> Option<T> {
        // Whoever else is on this runtime gets a turn, however many messages there are.
        tokio::task::yield_now().await;
        let message = async {
            loop {
                if let Some(message) = lock_std(&self.messages).pop_front() {
                    return message;
                }
                self.filled.notified().await;
            }
        };
        tokio::time::timeout(timeout, message).await.ok()
    }
}
