//! The bodies that are posted.

use serde::Serialize;
use serde_json::Value;

use super::slack;
use crate::report::model::schema::Short;
use crate::report::{Digest, Report, SCHEMA, Verdict};
use crate::text::time::in_millis;
use crate::text::time::timestamp;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON, without the less significant stacks and frames.
    Short,
    /// JSON, with everything.
    Whole,
    Slack,
}

impl Form {
    pub(super) fn report(self, report: &Report) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Short => serde_json::to_vec(&Short(report)),
            Self::Whole => serde_json::to_vec(report),
            Self::Slack => serde_json::to_vec(&slack::report(report)),
        }
    }

    pub(super) fn digest(self, digest: &Digest) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Short | Self::Whole => serde_json::to_vec(&json_digest(digest)),
            Self::Slack => serde_json::to_vec::<Value>(&slack::digest(digest)),
        }
    }
}

/// The JSON form of a digest.
#[derive(Serialize)]
struct JsonDigest<'a> {
    schema: u32,
    kind: &'static str,
    since: String,
    until: String,
    hostname: &'a str,
    service: Option<&'a str>,
    reports: u64,
    held_back: u64,
    others: u64,
    lost: u64,
    entries: Vec<JsonEntry<'a>>,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    fingerprint: &'a str,
    count: u64,
    what: &'a str,
    verdict: Verdict,
    place: Option<&'a str>,
    worst_ms: f64,
    worst_id: &'a str,
}

fn json_digest(digest: &Digest) -> JsonDigest<'_> {
    let entries = digest.entries().into_iter().map(|entry| JsonEntry {
        fingerprint: &entry.fingerprint,
        count: entry.count,
        what: &entry.what,
        verdict: entry.verdict,
        place: entry.place.as_deref(),
        worst_ms: in_millis(entry.worst),
        worst_id: &entry.worst_id,
    });
    JsonDigest {
        schema: SCHEMA,
        kind: "digest",
        since: timestamp(digest.since),
        until: timestamp(digest.until),
        hostname: &digest.hostname,
        service: digest.service.as_deref(),
        reports: digest.reports,
        held_back: digest.held_back,
        others: digest.others,
        lost: digest.lost,
        entries: entries.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::testing::report;

    #[test]
    fn a_whole_report_is_one_line() {
        let report = report();
        let body = Form::Whole.report(&report).unwrap();
        assert!(!body.contains(&b'\n'));
        let expected: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    /// Guards: the JSON keeps the names that receivers rely on.
    #[test]
    fn the_json_of_a_digest_keeps_its_names() {
        let mut report = report();
        report.fingerprint = "81d7".to_owned();
        report.suppressed = 2;
        let mut digest = Digest::of(&report);
        digest.add(&report);
        let body: Value = serde_json::from_slice(&Form::Short.digest(&digest).unwrap()).unwrap();
        let expected = json!({
            "schema": 2, "kind": "digest", "since": "2025-01-01T00:00:02.510Z", "until": "2025-01-01T00:00:02.510Z",
            "hostname": "web1", "service": null, "reports": 2, "held_back": 4, "others": 0, "lost": 0,
            "entries": [{"fingerprint": "81d7", "count": 6, "what": "GET /slow/{what}", "verdict": "waiting", "place": null,
                         "worst_ms": 2510.0, "worst_id": "8f14e45fceea167a-17"}],
        });
        assert_eq!(body, expected);
    }
}
