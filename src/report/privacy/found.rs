//! The secrets found in a text, and the text without them.

use crate::text::escape::{push_cut, push_escaped};

/// Replaces a value that isn't shown.
pub(crate) const REDACTED: &str = "[redacted]";

/// The parts of a text that must not be shown.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Stretch>);

#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: usize,
    end: usize,
    /// Left out without a replacement.
    silent: bool,
}

impl Found {
    /// Replaces the bytes from `start` to `end`.
    pub(super) fn hide(&mut self, start: usize, end: usize) {
        self.0.push(Stretch { start, end: end.max(start), silent: false });
    }

    /// Leaves out the bytes from `start` to `end`: the user and password of a URI.
    pub(super) fn leave_out(&mut self, start: usize, end: usize) {
        self.0.push(Stretch { start, end: end.max(start), silent: true });
    }

    /// Adds what was found in a part of the text that begins at `base`.
    pub(super) fn add(&mut self, part: Self, base: usize) {
        let moved = |stretch: Stretch| Stretch { start: base + stretch.start, end: base + stretch.end, ..stretch };
        self.0.extend(part.0.into_iter().map(moved));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `text` without the stretches, escaped, and at most `max` characters of it. It is marked as cut if it has
    /// more than `max` characters, or if not all of its `bytes` bytes were searched.
    pub(super) fn write(mut self, text: &str, max: usize, bytes: usize) -> String {
        self.0.sort_unstable_by_key(|stretch| (stretch.start, stretch.end));
        let mut out = Limited::new(text.len().min(max) + 16, max);
        let mut at = 0;
        let mut stretches = self.0.into_iter().peekable();
        while let Some(mut stretch) = stretches.next() {
            // Stretches that overlap or touch are one.
            while let Some(next) = stretches.next_if(|next| next.start <= stretch.end) {
                stretch.end = stretch.end.max(next.end);
                stretch.silent &= next.silent;
            }
            let (start, end) = (floor(text, stretch.start), ceil(text, stretch.end));
            out.push(&text[at.min(start)..start]);
            if out.is_full() {
                break;
            }
            if !stretch.silent {
                // Half of the word would be taken for a value when it is read again.
                out.push_whole(REDACTED);
            }
            if out.is_full() {
                break;
            }
            at = end;
        }
        if !out.is_full() {
            out.push(&text[at.min(text.len())..]);
        }
        out.finish(text.len() < bytes, bytes)
    }
}

/// Returns where the character at `at` begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Returns where the character at `at` ends.
fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// Text that is escaped as it is built, up to a limit.
struct Limited {
    text: String,
    left: usize,
    cut: bool,
}

impl Limited {
    fn new(expected: usize, max: usize) -> Self {
        Self { text: String::with_capacity(expected), left: max, cut: false }
    }

    fn is_full(&self) -> bool {
        self.cut
    }

    fn push_whole(&mut self, text: &str) {
        if text.len() > self.left {
            self.cut = true;
        } else {
            self.push(text);
        }
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if self.left == 0 {
                self.cut = true;
                return;
            }
            self.left -= 1;
            push_escaped(&mut self.text, c);
        }
    }

    fn finish(mut self, more: bool, bytes: usize) -> String {
        if self.cut || more {
            push_cut(&mut self.text, bytes);
        }
        self.text
    }
}
