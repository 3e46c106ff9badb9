//! Finds secrets in a text of any kind: an error, a note, a field, a header.

use memchr::{memchr, memchr2, memmem};

use super::found::Found;
use super::looks::is_prose;
use super::names::{SecretNames, decode};
use super::paths::SecretPaths;
use super::{brackets, constraints, pairs, shapes, sql, uri};

/// How many levels of encoding are decoded and searched.
const DEPTH: u8 = 2;

/// What to search for. Each byte is examined a bounded number of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) names: &'a SecretNames,
    pub(super) paths: &'a SecretPaths,
    /// Whether long random strings are taken for secrets without a name. They aren't in a header of ids.
    pub(super) random: bool,
    /// Whether percent-encoded text is decoded and searched.
    decodes: bool,
    /// Whether the text is a string in source code, whose placeholders in braces are filled in later.
    pub(super) source: bool,
    depth: u8,
}

impl<'a> Scan<'a> {
    pub(super) fn new(names: &'a SecretNames, paths: &'a SecretPaths) -> Self {
        Self { names, paths, random: true, decodes: true, source: false, depth: 0 }
    }

    /// Sets whether long random strings are taken for secrets.
    pub(super) fn with_random(self, random: bool) -> Self {
        Self { random, ..self }
    }

    /// Returns a scan for strings in source code.
    pub(super) fn in_source(self) -> Self {
        Self { source: true, ..self }
    }

    /// Returns a scan for what was encoded in the text, or `None` if that is too deep.
    pub(super) fn inner(self) -> Option<Self> {
        (self.depth < DEPTH).then(|| Self { depth: self.depth + 1, ..self })
    }

    /// Returns whether anything in the text must not be shown.
    pub(super) fn has_any(self, text: &str) -> bool {
        let mut found = Found::default();
        self.text(text, false, &mut found);
        !found.is_empty()
    }

    /// Returns whether a value, percent-encoded or not, is or contains something that must not be shown. A value that
    /// is encoded too many times to be searched counts as such.
    pub(super) fn hides(self, value: &str) -> bool {
        if value.len() < 4 {
            return false;
        }
        let Some(inner) = self.inner() else { return self.decodes && value.contains('%') && decode(value) != value };
        if !self.decodes {
            return inner.has_any(value);
        }
        let decoded = decode(value);
        inner.has_any(&decoded) || (decoded != value && Self { decodes: false, ..inner }.has_any(value))
    }

    /// Finds everything. `cut` says that the text may continue, unseen.
    pub(super) fn text(self, text: &str, cut: bool, found: &mut Found) {
        if text.len() < 4 {
            return;
        }
        let bytes = text.as_bytes();
        let marked = bytes.iter().any(|byte| b"=:/?@%- >([,".contains(byte));
        if marked {
            pem(text, found);
            pairs::find(self, text, found);
            brackets::find(self, text, found);
            sql::find(self, text, found);
            constraints::find(self, text, found);
            credentials(text, found);
        }
        self.words(text, cut, found);
    }

    /// Searches the words between blanks and quotes.
    pub(super) fn words(self, text: &str, cut: bool, found: &mut Found) {
        let mut at = 0;
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '\\');
        for word in text.split(ends) {
            // The character that ends a word is skipped, whatever its length.
            let start = at;
            at += word.len();
            at += text[at..].chars().next().map_or(0, char::len_utf8);
            if word.len() < 6 {
                continue;
            }
            let bytes = word.as_bytes();
            let cut = cut && start + word.len() == text.len();
            if memchr2(b'/', b'?', bytes).is_some() || (memchr(b'&', bytes).is_some() && memchr(b'=', bytes).is_some())
            {
                uri::find(self, word, start, false, found);
            } else if memchr(b'%', bytes).is_some() && self.hides(word) {
                found.hide(start, start + word.len());
            } else {
                uri::without_scheme(word, start, found);
            }
            shapes::find(&self, word, start, cut, found);
        }
    }
}

/// Finds PEM blocks, also those that are cut at one end.
pub(super) fn pem(text: &str, found: &mut Found) {
    const BEGIN: &[u8] = b"-----BEGIN";
    const END: &[u8] = b"-----END";
    let bytes = text.as_bytes();
    let next = |of: &[u8], from: usize| memmem::find(&bytes[from..], of).map(|at| from + at);
    let mut at = 0;
    let mut begin = next(BEGIN, 0);
    loop {
        if begin.is_some_and(|begin| begin < at) {
            begin = next(BEGIN, at);
        }
        let end = next(END, at);
        let start = match (begin, end) {
            (None, None) => return,
            // A block whose beginning was cut off.
            (_, Some(end)) if begin.is_none_or(|begin| end < begin) => at,
            (begin, _) => begin.unwrap_or(at),
        };
        // The label is followed by dashes once more.
        let label = end.map(|end| end + END.len());
        at = label.map_or(bytes.len(), |label| next(b"-----", label).map_or(bytes.len(), |dashes| dashes + 5));
        found.hide(start, at);
    }
}

/// Finds `Bearer ..` and `Basic ..`, wherever they are.
pub(super) fn credentials(text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = memchr2(b'b', b'B', &bytes[at..]) {
        let start = at + next;
        at = start + 1;
        let Some(scheme) = ["bearer", "basic"].into_iter().find(|scheme| {
            let end = start + scheme.len();
            bytes.get(start..end).is_some_and(|word| word.eq_ignore_ascii_case(scheme.as_bytes()))
        }) else {
            continue;
        };
        let end = start + scheme.len();
        if start > 0 && bytes[start - 1].is_ascii_alphanumeric() {
            continue;
        }
        let token = end + bytes[end..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let ends = |byte: &u8| {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',' | b';' | b')' | b']' | b'}' | b'<' | b'\\')
        };
        let stop = token + bytes[token..].iter().take_while(|byte| !ends(byte)).count();
        let value = &text[token..stop];
        // A challenge has parameters: `Bearer realm="x"`.
        let challenge = bytes.get(stop) == Some(&b'"') && value.ends_with('=');
        let hole = value.starts_with('{');
        if token > end && value.len() >= 4 && !challenge && !hole && !value.contains("[redacted") && !is_prose(value) {
            found.hide(token, stop);
        }
        at = stop.max(at);
    }
}
