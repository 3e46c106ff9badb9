//! A dump as JSON.

use serde::Serialize;

use crate::report::Dump;

#[derive(Serialize)]
struct WithSentence<'a> {
    sentence: String,
    #[serde(flatten)]
    dump: &'a Dump,
}

impl Dump {
    /// Returns the dump as JSON, in one line: see [`DUMP_SCHEMA`](crate::report::DUMP_SCHEMA).
    #[must_use]
    pub fn to_json(&self) -> String {
        // Fails only for maps with odd keys and for values that refuse to be serialized. A dump has neither.
        serde_json::to_string(&WithSentence { sentence: self.sentence(), dump: self })
            .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}
