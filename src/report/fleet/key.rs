//! Which reports of different processes are about one incident.

use crate::report::Report;
use crate::report::assemble::cause::members;
use crate::text::fnv::Fnv;

/// How the work of a holder begins that heeler does not watch. Then come the names of its thread and the number that the
/// kernel gave it.
const ON_THREAD: &str = "work on the thread ";

/// Returns the key of the report's incident: 16 hexadecimal digits, equal in all processes of a build.
///
/// It is the report's [`incident`](Report::incident), which is about the cause: the work that holds up the others, and where
/// that is. The cause's own report and those of its victims have the same one. If nothing is known of the place, it is the
/// fingerprint.
pub(super) fn key_of(report: &Report) -> String {
    if report.dump.is_some() {
        // No dump is like another. Those for one reason are.
        let mut hash = Fnv::default();
        hash.text("dump");
        hash.text(&without_numbers(report.notes.first().map_or("", |reason| reason)));
        return hash.finish();
    }
    let culprit = report.others.as_ref().and_then(|others| others.culprit());
    if let Some(holder) = culprit.filter(|_| members(report).is_none())
        && let Some(thread) = holder.work.strip_prefix(ON_THREAD)
    {
        let place = holder.location.as_ref();
        let mut hash = Fnv::default();
        hash.text(&without_numbers(thread));
        hash.text(place.and_then(|place| place.function.as_deref().or(place.file.as_deref())).unwrap_or_default());
        return hash.finish();
    }
    let is_known = culprit.is_some() || report.location.is_some();
    let key = if report.incident.is_empty() || !is_known { &report.fingerprint } else { &report.incident };
    if key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return key.clone();
    }
    // A report that was read from a file may have anything there, and this names a folder.
    let mut hash = Fnv::default();
    hash.text(key);
    hash.finish()
}

/// Returns a text up to what is in parentheses, without digits: these differ from process to process.
fn without_numbers(text: &str) -> String {
    text.split('(').next().unwrap_or_default().chars().filter(|char| !char.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;
    use crate::report::{Holder, Location, Others};

    const INCIDENT: &str = "5cf400b2380cbd97";

    fn held_by(work: &str) -> Report {
        let location = Some(Location::new(Some("app::import".to_owned()), None, None));
        let holders = vec![Holder { work: work.to_owned(), location, ..Holder::default() }];
        let others = Some(Others { holders, ..Others::default() });
        Report { others, incident: INCIDENT.to_owned(), ..report() }
    }

    /// Guards: the number of a thread or of a process does not make one incident many.
    #[test]
    fn no_number_of_a_process_is_in_the_key() {
        let on = |thread: &str| key_of(&held_by(&format!("work on the thread {thread}, which heeler does not watch")));
        assert_eq!(on("writer-1 (4242)"), on("writer-3 (17)"));
        assert_ne!(on("writer (1)"), on("reader (1)"));
    }

    #[test]
    fn victims_of_one_holder_are_one_incident() {
        assert_eq!(key_of(&held_by("GET /import")), INCIDENT, "as the pipeline has it");
        let unknown = Report { fingerprint: "00c0ffee00c0ffee".to_owned(), others: None, ..held_by("GET /import") };
        assert_eq!(key_of(&unknown), "00c0ffee00c0ffee", "nothing is known of the place");
        let hostile = Report { fingerprint: "../../told".to_owned(), ..unknown };
        assert!(key_of(&hostile).bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
