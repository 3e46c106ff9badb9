//! Labels: their names, how many values they have, and how long these are.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::capture::PerProcess;
use crate::error::{Error, Result};
use crate::sync::lock_std;
use crate::text::escape;

/// How many labels a user can set. A server accepts 30 with its own and heeler's.
const MAX_LABELS: usize = 16;

/// The most bytes of a label's name, and of a value that a user sets. A server accepts 1,024 and 2,048.
const MAX_NAME: usize = 128;
const MAX_TEXT: usize = 1024;

/// How many routes and jobs are told apart. Each is a series of its own in each state.
const MAX_VALUES: usize = 200;
/// The value that the others have.
const OTHERS: &str = "other";
/// The most characters of one.
const MAX_VALUE: usize = 200;

/// The labels that heeler sets itself.
const OURS: [&str; 8] = ["service_name", "source", "route", "job", "state", "trace_id", "span_id", "pyroscope_spy"];

/// Returns a problem of the labels that a user sets, which contains none of their values.
pub(super) fn check(labels: &[(String, String)], ingest: bool) -> Result<()> {
    if labels.len() > MAX_LABELS {
        return Err(Error::config(format!("Pyroscope's labels are more than {MAX_LABELS}")));
    }
    let mut names = HashSet::new();
    for (name, value) in labels {
        if name.len() > MAX_NAME || !is_name(name) {
            // It may be a value in the wrong place.
            return Err(Error::config(
                "the name of one of Pyroscope's labels isn't of letters, digits and `_`, or begins with a digit or `__`",
            ));
        }
        if OURS.contains(&name.as_str()) {
            return Err(Error::config(format!("Pyroscope's label `{name}` cannot be set: it is heeler's own")));
        }
        if !names.insert(name) {
            return Err(Error::config(format!("Pyroscope's label `{name}` is set twice")));
        }
        if value.is_empty() || value.len() > MAX_TEXT {
            return Err(Error::config(format!(
                "the value of Pyroscope's label `{name}` is empty or longer than {MAX_TEXT} bytes"
            )));
        }
        // The query parameter that has the labels knows no escapes.
        if ingest && (value.contains([',', '}']) || value.trim() != value) {
            return Err(Error::config(format!(
                "the value of Pyroscope's label `{name}` has a comma, a brace or spaces around it: `/ingest` cannot have that"
            )));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let (first, rest) = (name.as_bytes().first(), name.as_bytes());
    first.is_some_and(is_letter)
        && rest.iter().all(|byte| is_letter(byte) || byte.is_ascii_digit())
        && !name.starts_with("__")
}

/// The routes and jobs that are told apart.
pub(super) struct Values(PerProcess<Mutex<HashSet<String>>>);

impl Values {
    pub(super) const fn new() -> Self {
        Self(PerProcess::new(Mutex::default))
    }

    /// Returns the value as a label has it, or `other` if there are too many.
    pub(super) fn bounded(&self, value: &str) -> String {
        let value = escape(value, MAX_VALUE).into_owned();
        let mut known = lock_std(self.0.get());
        if known.contains(&value) || known.len() < MAX_VALUES {
            known.insert(value.clone());
            return value;
        }
        OTHERS.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    /// Guards: what the server would refuse with each push is an error at once. It contains no value.
    #[test]
    fn unusable_labels_are_errors() {
        assert!(check(&label("region", "eu, {west} "), false).is_ok());
        for name in ["", "1a", "a-b", "a.b", "__name__", "ä", "hunter2 x", &"a".repeat(200), "route", "service_name"] {
            let error = check(&label(name, "hunter3"), false).unwrap_err().to_string();
            assert!(!error.contains("hunter"), "{error}");
        }
        let long = "x".repeat(MAX_TEXT + 1);
        for (value, ingest) in [("", false), (&*long, false), ("a,b", true), ("a}", true), (" a", true)] {
            assert!(check(&label("region", value), ingest).is_err(), "{value}");
        }
        assert!(check(&[label("a", "1"), label("a", "2")].concat(), false).is_err());
        let many: Vec<_> = (0..=MAX_LABELS).flat_map(|number| label(&format!("a{number}"), "1")).collect();
        assert!(check(&many, false).is_err() && check(&many[1..], false).is_ok());
    }

    /// Guards: an application whose jobs have ever new names does not fill the server with series.
    #[test]
    fn only_so_many_values_are_told_apart() {
        let values = Values::new();
        let seen: HashSet<String> = (0..1_000).map(|number| values.bounded(&format!("import {number}"))).collect();
        assert_eq!(seen.len(), MAX_VALUES + 1);
        assert_eq!((&*values.bounded("import 7"), &*values.bounded("import 999")), ("import 7", OTHERS));
        assert!(Values::new().bounded(&"x".repeat(10_000)).len() < 2 * MAX_VALUE);
    }
}
