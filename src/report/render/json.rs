//! The JSON form, for files and for people.

use serde::Serialize as _;

use super::layout::Layout;
use crate::report::Report;

impl Report {
    /// Returns this report as JSON, indented, for files and for people, with one line per frame and per stack: see
    /// [`SCHEMA`](crate::report::SCHEMA). For one line, or another format that has field names, serialize the report
    /// itself.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Vec::new();
        let written = self.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Layout::default()));
        // Fails only for maps with odd keys and for values that refuse to be serialized. A report has neither.
        match written {
            Ok(()) => String::from_utf8_lossy(&json).into_owned(),
            Err(error) => format!("{{\"error\": \"{error}\"}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::report::testing::report;

    /// Guards: the JSON keeps the names and units that readers of schema 2 rely on.
    #[test]
    fn json_keeps_the_names_of_schema_2() {
        let mut report = report();
        report.elapsed = Duration::from_micros(2_510_500);
        let value: Value = serde_json::from_str(&report.to_json()).unwrap();
        for (pointer, expected) in [
            ("/schema", json!(2)),
            ("/kind", json!("slow_request")),
            ("/verdict", json!("waiting")),
            ("/captured_at", json!("2025-01-01T00:00:02.510Z")),
            ("/elapsed_ms", json!(2510.5)),
            ("/threshold_ms", json!(2500.0)),
            ("/request/route", json!("/slow/{what}")),
            ("/request/headers/0", json!(["host", "localhost:3000"])),
            ("/process/pid", json!(4242)),
            ("/stacks/0/kind", json!("await")),
            ("/stacks/0/frames/3", json!(3)),
            ("/frames/3/function", json!("photos::wait_for_import")),
            ("/frames/3/own", json!(true)),
            ("/frames/3/address", json!("0x1f00")),
            ("/frames/3/module", json!(0)),
            ("/frames/3/inlined", Value::Null),
            ("/modules", json!([{"name": "photos", "build_id": null}])),
            ("/timeline/0", json!({"activity": "waiting", "stack": 0, "waits": 1, "ms": 2200.0})),
            ("/suppressed", json!(0)),
        ] {
            assert_eq!(value.pointer(pointer).unwrap_or(&Value::Null), &expected, "{pointer}");
        }
        assert_eq!(value["sentence"], report.sentence());
    }

    /// Guards: people can read the JSON. Each row of a table has its own line, and the numbers of frames share one.
    #[test]
    fn each_table_row_has_its_own_line() {
        let mut report = report();
        report.stacks[0].frames.truncate(2);
        report.process.executable = "[{\"\\".to_owned();
        let json = report.to_json();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), serde_json::to_value(&report).unwrap());
        let lines: Vec<&str> = json.lines().collect();
        assert_eq!(lines[..2], ["{", "  \"schema\": 2,"]);
        for line in [
            "  \"request\": {",
            "    \"headers\": [[\"host\",\"localhost:3000\"]]",
            "    {\"name\": \"photos\", \"build_id\": null}",
            "  \"notes\": [],",
            "    {\"activity\": \"waiting\", \"stack\": 0, \"waits\": 1, \"ms\": 2200.0},",
        ] {
            assert!(lines.contains(&line), "{line} in {json}");
        }
        assert!(lines.iter().any(|line| line.ends_with("\"frames\": [0,1]}")), "{json}");
        assert_eq!(lines.last(), Some(&"}"));
    }
}
