//! Patterns of paths that contain secrets.

use std::borrow::Cow;

use super::found::Found;
use super::names::decode;
use crate::error::{Error, Result};
use crate::text::escape;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;

/// How many segments of a path are searched at most for a pattern that may begin anywhere.
const MAX_SEGMENTS: usize = 64;

/// The patterns of [`secret_paths`](crate::ReportsBuilder::secret_paths).
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretPaths(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    /// It begins where the path does.
    anchored: bool,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone)]
enum Segment {
    /// This segment, in any case.
    Literal(String),
    /// Any segment.
    Any,
    /// Any segment that begins and ends like this. What is in between is hidden.
    Secret { before: String, after: String },
    /// Everything from here on is hidden.
    Rest,
}

impl SecretPaths {
    /// Adds patterns.
    ///
    /// # Errors
    ///
    /// Fails if a pattern hides nothing, or cannot be read.
    pub(crate) fn extend(&mut self, patterns: &[String]) -> Result<()> {
        for pattern in patterns {
            self.0.push(Pattern::parse(pattern)?);
        }
        Ok(())
    }

    /// Finds what the patterns hide in a path without its host, which begins at `base`.
    pub(super) fn find(&self, path: &str, base: usize, found: &mut Found) {
        if self.0.is_empty() {
            return;
        }
        let mut at = 0;
        let mut segments: Vec<(usize, &str, Cow<'_, str>)> = Vec::new();
        for segment in path.split('/') {
            if !segment.is_empty() {
                segments.push((at, segment, decode(segment)));
            }
            at += segment.len() + 1;
            if segments.len() >= MAX_SEGMENTS * 4 {
                break;
            }
        }
        for pattern in &self.0 {
            let last = if pattern.anchored { 1 } else { segments.len().min(MAX_SEGMENTS) };
            for from in 0..last.min(segments.len()) {
                pattern.find(&segments[from..], path, base, found);
            }
        }
    }
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self> {
        let bad = |why: &str| Error::config(format!("the secret path `{}` {why}", escape(pattern, 64)));
        if pattern.len() > MAX_PATTERN {
            return Err(bad("is too long"));
        }
        let mut segments = Vec::new();
        for segment in pattern.split('/').filter(|segment| !segment.is_empty()) {
            if matches!(segments.last(), Some(Segment::Rest)) {
                return Err(bad("goes on after `{*..}`"));
            }
            segments.push(match (segment.split_once('{'), segment) {
                (None, "*") => Segment::Any,
                (None, _) if segment.contains('}') => return Err(bad("has a `}` without a `{`")),
                (None, _) => Segment::Literal(decode(segment).into_owned()),
                (Some((before, rest)), _) => match rest.split_once('}') {
                    None => return Err(bad("has a `{` without a `}`")),
                    Some((_, after)) if after.contains(['{', '}']) => {
                        return Err(bad("has more than one placeholder between two slashes"));
                    }
                    Some((name, after)) if name.starts_with('*') => {
                        if !before.is_empty() || !after.is_empty() {
                            return Err(bad("has a `{*..}` beside something else"));
                        }
                        Segment::Rest
                    }
                    Some((_, after)) => Segment::Secret { before: before.to_owned(), after: after.to_owned() },
                },
            });
        }
        if !segments.iter().any(|segment| matches!(segment, Segment::Secret { .. } | Segment::Rest)) {
            return Err(bad("hides nothing: it has no placeholder such as `{token}`"));
        }
        Ok(Self { anchored: pattern.starts_with('/'), segments })
    }

    /// Finds the secrets of this pattern, also in a path that continues after it.
    fn find(&self, path: &[(usize, &str, Cow<'_, str>)], whole: &str, base: usize, found: &mut Found) {
        let matches = path.len() >= self.segments.len()
            && self.segments.iter().zip(path).all(|(segment, (_, raw, decoded))| match segment {
                Segment::Literal(literal) => literal.eq_ignore_ascii_case(decoded),
                Segment::Secret { before, after } => within(raw, before, after).is_some(),
                Segment::Any | Segment::Rest => true,
            });
        if !matches {
            return;
        }
        for (segment, (at, raw, _)) in self.segments.iter().zip(path) {
            match segment {
                Segment::Literal(_) | Segment::Any => {}
                Segment::Secret { before, after } => {
                    if let Some((start, end)) = within(raw, before, after) {
                        found.hide(base + at + start, base + at + end);
                    }
                }
                Segment::Rest => found.hide(base + at, base + whole.len()),
            }
        }
    }
}

/// Returns what is between the two in a segment. A route template, which has a placeholder itself, isn't a secret.
fn within(segment: &str, before: &str, after: &str) -> Option<(usize, usize)> {
    let is = |part: Option<&str>, wanted: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(wanted));
    let end = segment.len().checked_sub(after.len()).filter(|end| *end > before.len())?;
    let fits = is(segment.get(..before.len()), before) && is(segment.get(end..), after);
    let inside = segment.get(before.len()..end)?;
    (fits && !(inside.starts_with('{') && inside.ends_with('}'))).then_some((before.len(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(pattern: &str, path: &str) -> String {
        let mut paths = SecretPaths::default();
        paths.extend(&[pattern.to_owned()]).unwrap();
        let mut found = Found::default();
        paths.find(path, 0, &mut found);
        found.write(path, usize::MAX, path.len())
    }

    #[test]
    fn values_of_path_placeholders_are_redacted() {
        let table = [
            ("/reset/{token}", "/reset/abc", "/reset/[redacted]"),
            ("/reset/{}", "/RESET//a%62c/", "/RESET//[redacted]/"),
            ("/reset/{token}", "/r%65set/abc/confirm", "/r%65set/[redacted]/confirm"),
            ("/reset/{token}", "/app/reset/abc", "/app/reset/abc"),
            ("reset/{token}", "/app/reset/abc", "/app/reset/[redacted]"),
            ("/u/*/keys/{key}", "/u/7/keys/abc", "/u/7/keys/[redacted]"),
            ("/bot{token}/send", "/bot123:abc/send", "/bot[redacted]/send"),
            ("/f/{id}.pdf", "/f/abc.pdf", "/f/[redacted].pdf"),
            ("/f/{id}.pdf", "/f/.pdf", "/f/.pdf"),
            ("/s/{*rest}", "/s/a/b/c", "/s/[redacted]"),
            ("/reset/{token}", "/reset/{token}", "/reset/{token}"),
            ("/reset/{token}", "/reset/", "/reset/"),
            ("/reset/{token}", "", ""),
            ("/reset/{token}", "/reset/ä", "/reset/[redacted]"),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(hidden(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn bad_patterns_are_errors() {
        for pattern in ["", "/", "/reset", "/a/{", "/a/}", "/a/{b}{c}", "/{*a}/b", "/x{*a}", &"/{a}".repeat(200)] {
            let error = SecretPaths::default().extend(&[pattern.to_owned()]).unwrap_err();
            assert!(error.is_config(), "{error}");
        }
    }
}
