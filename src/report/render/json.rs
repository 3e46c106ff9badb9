//! The JSON form, schema 1.

use crate::report::Report;

impl Report {
    /// This report as JSON, indented, for files and for people. Durations are milliseconds, times are RFC 3339 in UTC; see
    /// [`SCHEMA`](crate::report::SCHEMA). For one line, or another format, serialize the report itself.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Fails for maps with odd keys and for values that refuse to be serialized: a report has neither.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::report::testing::report;

    /// Guards: the names and units that readers of schema 1 rely on.
    #[test]
    fn schema_1() {
        let mut report = report();
        report.elapsed_ms = 2_510.5;
        let value: Value = serde_json::from_str(&report.to_json()).unwrap();
        for (pointer, expected) in [
            ("/schema", json!(1)),
            ("/kind", json!("slow_request")),
            ("/verdict", json!("waiting")),
            ("/captured_at", json!("2025-01-01T00:00:02.510Z")),
            ("/elapsed_ms", json!(2510.5)),
            ("/threshold_ms", json!(2500.0)),
            ("/request/route", json!("/slow/{what}")),
            ("/request/headers/0", json!(["host", "localhost:3000"])),
            ("/process/pid", json!(4242)),
            ("/stacks/0/kind", json!("await")),
            ("/stacks/0/frames/3/function", json!("photos::wait_for_import")),
            ("/stacks/0/frames/3/own", json!(true)),
            ("/timeline/0", json!({"activity": "waiting", "stack": 0, "waits": 1, "ms": 2200.0})),
            ("/suppressed", json!(0)),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn odd_numbers_are_null() {
        let mut report = report();
        report.elapsed_ms = f64::NAN;
        assert!(report.to_json().contains("\"elapsed_ms\": null"));
    }
}
