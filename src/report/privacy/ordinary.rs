//! Values that aren't secret stay readable: a list of ordinary values, and random ones of ordinary kinds.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::redactor::MAX_VALUE;
use super::*;

/// Guards: none of these is changed. A few ordinary values may still be taken for secrets: runs of 40 or more random
/// characters in both cases (ids of Google's documents, hashes in base58), and ids and hashes right after the name of a
/// secret (`/sessions/67e55044-..`).
#[test]
fn ordinary_values_stay_readable() {
    let redactor = Redactor::default();
    let lines: Vec<&str> = include_str!("ordinary.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 200, "{}", lines.len());
    let changed: Vec<String> = lines
        .into_iter()
        .filter_map(|line| {
            let (kind, value) = line.split_once('\t').expect("a kind and a value");
            let shown = match kind.split_once(' ') {
                None if kind == "uri" => redactor.uri(value),
                None if kind == "code" => redactor.code(value, MAX_VALUE),
                None => redactor.text(value, MAX_VALUE),
                Some(("field", name)) => redactor.field(name, value, MAX_VALUE),
                Some((_, name)) => {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    redactor.any_header(&name, &HeaderValue::from_str(value).unwrap())
                }
            };
            (shown != value).then(|| format!("{kind}: {value} → {shown}"))
        })
        .collect();
    assert!(changed.is_empty(), "{}\n{}", changed.len(), changed.join("\n"));
}

/// A segment of an ordinary path.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,12}",
        1 => "[0-9]{1,12}",
        1 => "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[0-9a-f]{40}|[0-9a-f]{64}",
        1 => "[a-z]{2,9}(-[a-z]{2,9}){1,6}(-20[0-9]{2})?",
        1 => "[A-Za-z0-9_-]{5,24}",
        1 => "[0-9A-HJKMNP-TV-Z]{26}",
        1 => "[a-z]{1,8}\\.(html|js|css|png|pdf)",
    ]
}

proptest! {
    #![proptest_config(planted::config(1))]

    /// Guards: ids, hashes and slugs in paths and queries stay readable, unless they follow the name of a secret.
    #[test]
    fn ordinary_uris_stay_readable(
        segments in prop::collection::vec(segment(), 1..6),
        query in prop::collection::vec(("(page|sort|q|id|filter|lang|from|size)", segment()), 0..4),
    ) {
        let names = super::names::SecretNames::default();
        let is_known = |text: &String| names.contain(text) || text.starts_with("eyJ") || text.starts_with("sk-");
        prop_assume!(!segments.iter().any(is_known));
        let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let uri = format!("/x/{}{}{}", segments.join("/"), if query.is_empty() { "" } else { "?" }, query.join("&"));
        prop_assert_eq!(Redactor::default().uri(&uri), &*uri);
        let text = format!("GET {uri} took 2.5 s");
        prop_assert_eq!(Redactor::default().text(&text, 4096), &*text);
    }
}
