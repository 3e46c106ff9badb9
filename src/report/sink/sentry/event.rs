//! A report as an event.

use std::borrow::Cow;

use sentry::ClientOptions;
use sentry::protocol::{Context, Event, Exception, Level, Map, Mechanism, Uuid, Value};
use serde_json::json;

use super::request::{request, trace};
use super::stacks::{Images, MAIN, arranged, stacktrace};
use crate::report::assemble::route::{request_line, route_line};
use crate::report::render::timeline;
use crate::report::{Report, Verdict};
use crate::text::escape::escape;
use crate::text::time::in_millis;
use crate::text::time::timestamp;

/// Sentry's limit for the value of a tag, in characters.
const MAX_TAG: usize = 200;

/// Creates the event. `options` are those of the client that will send it.
pub(super) fn event(report: &Report, options: &ClientOptions) -> Event<'static> {
    let mut images = Images::default();
    let (main, threads) = arranged(report, &mut images);
    let sentence = report.sentence();
    let exception = Exception {
        ty: format!("{}, {}", report.kind.title(), report.verdict.as_str().replace('_', " ")),
        value: Some(sentence.clone()),
        // Never `None`, or the client might add the stack of the reporter's thread.
        stacktrace: Some(main.map(|stack| stacktrace(stack, &mut images)).unwrap_or_default()),
        thread_id: Some(MAIN),
        mechanism: Some(Mechanism { ty: "heeler".to_owned(), handled: Some(true), ..Mechanism::default() }),
        ..Exception::default()
    };
    let id = id_of(report);
    let mut contexts = Map::from([("heeler".to_owned(), Context::Other(details(report)))]);
    contexts.insert("trace".to_owned(), trace(report, id).into());
    let process = &report.process;
    let service = process.service.as_ref().map(|name| match &process.version {
        Some(version) => format!("{name}@{version}"),
        None => name.clone(),
    });
    Event {
        event_id: id,
        level: if report.verdict == Verdict::Abandoned { Level::Info } else { Level::Warning },
        fingerprint: Cow::Owned(vec![Cow::Owned(report.fingerprint.clone())]),
        transaction: Some(tag(&route_line(report))),
        message: Some(sentence),
        logger: Some("heeler".to_owned()),
        timestamp: report.captured_at,
        server_name: options.server_name.clone().or_else(|| Some(process.hostname.clone().into())),
        release: options.release.clone().or_else(|| service.map(Cow::Owned)),
        request: report.request.as_ref().map(|asked| request(asked, &process.hostname)),
        contexts,
        exception: vec![exception].into(),
        threads: threads.into(),
        tags: tags(report),
        debug_meta: Cow::Owned(images.into_meta()),
        ..Event::default()
    }
}

/// Returns the same id for the same report and update, in every process: FNV-1a with 128 bits.
fn id_of(report: &Report) -> Uuid {
    let text = format!("{}.{}", report.id, report.update);
    let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    // Marked as a version 4, which Sentry expects and which allows any 122 bits.
    let without_mark = hash & !(0xf000 << 64) & !(0xc000 << 48);
    Uuid::from_u128(without_mark | 0x4000 << 64 | 0x8000 << 48)
}

fn tags(report: &Report) -> Map<String, String> {
    let mut tags =
        Map::from([("verdict".to_owned(), report.verdict.to_string()), ("kind".to_owned(), report.kind.to_string())]);
    if let Some(request) = &report.request {
        tags.insert("route".to_owned(), tag(&request_line(request)));
    }
    if let Some(job) = &report.job {
        tags.insert("job".to_owned(), tag(job));
    }
    let process = &report.process;
    let incident = Some(report.incident.clone());
    for (name, value) in [("incident", &incident), ("instance", &process.instance), ("zone", &process.zone)] {
        tags.extend(value.as_ref().map(|value| (name.to_owned(), tag(value))));
    }
    // Sentry refuses an empty value.
    tags.retain(|_, value| !value.is_empty());
    tags
}

/// Makes it one line that is short enough for Sentry.
fn tag(text: &str) -> String {
    escape(text, usize::MAX).trim().chars().take(MAX_TAG).collect()
}

/// Returns the fields that have no place of their own in an event.
fn details(report: &Report) -> Map<String, Value> {
    let spans = report.spans.iter().map(|span| {
        let fields: Vec<String> = span.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{}{}", span.name, fields.concat())
    });
    let details = [
        ("report", json!(report.id)),
        ("update", json!(report.update)),
        ("started_at", json!(timestamp(report.started_at))),
        ("elapsed_ms", json!(in_millis(report.elapsed))),
        ("threshold_ms", json!(report.threshold.map(in_millis))),
        ("polls", json!(report.polls)),
        ("busy_ms", json!(in_millis(report.busy))),
        ("waiting_ms", json!(in_millis(report.waiting))),
        ("unobserved_ms", json!(in_millis(report.unobserved))),
        ("longest_poll_ms", json!(in_millis(report.longest_poll))),
        ("location", json!(report.location.as_ref().map(ToString::to_string))),
        ("uri", json!(report.request.as_ref().map(|request| &request.uri))),
        ("job", json!(report.job)),
        ("trace_url", json!(report.trace_url)),
        ("process", json!(format!("{} {}", report.process.pid, report.process.executable))),
        ("where_the_time_went", json!(timeline(report))),
        ("spans", json!(spans.collect::<Vec<_>>())),
        ("notes", json!(report.notes)),
        ("held_back", json!(report.suppressed)),
    ];
    let said = details.into_iter().filter(|(_, value)| !value.is_null() && *value != json!([]));
    said.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::report;

    fn made(report: &Report) -> Value {
        serde_json::to_value(event(report, &ClientOptions::new())).unwrap()
    }

    /// Guards: each field is where a reader of Sentry looks for it.
    #[test]
    fn an_event_has_each_field_in_its_place() {
        let mut report = report();
        report.fingerprint = "81d76b211c51e3c4".to_owned();
        report.process.service = Some("photos".to_owned());
        report.process.version = Some("1.2.0".to_owned());
        report.notes.push("at the same place as before".to_owned());
        let event = made(&report);
        for (pointer, expected) in [
            ("/level", json!("warning")),
            ("/fingerprint", json!(["81d76b211c51e3c4"])),
            ("/transaction", json!("GET /slow/{what}")),
            ("/timestamp", json!(1_735_689_602.51)),
            ("/server_name", json!("web1")),
            ("/release", json!("photos@1.2.0")),
            ("/tags", json!({"verdict": "waiting", "kind": "slow_request", "route": "GET /slow/{what}"})),
            ("/exception/values/0/type", json!("Slow request, waiting")),
            ("/exception/values/0/value", json!(report.sentence())),
            ("/exception/values/0/thread_id", json!(0)),
            ("/contexts/heeler/elapsed_ms", json!(2510.0)),
            ("/contexts/heeler/spans", json!(["request user=7"])),
            ("/contexts/heeler/where_the_time_went/1", json!("310 ms of 2.51 s not observed (12 %)")),
            ("/contexts/heeler/notes/0", json!("at the same place as before")),
        ] {
            assert_eq!(event.pointer(pointer), Some(&expected), "{pointer} of {event:#}");
        }
        report.verdict = Verdict::Abandoned;
        assert_eq!(made(&report).get("level"), Some(&json!("info")));
    }

    /// Guards: the application's Sentry options decide the release and the server.
    #[test]
    fn the_clients_options_win() {
        let options = ClientOptions::new().release("shop@7").server_name("eu-1");
        let mut report = report();
        report.process.service = Some("photos".to_owned());
        let event = event(&report, &options);
        assert_eq!((event.release.as_deref(), event.server_name.as_deref()), (Some("shop@7"), Some("eu-1")));
        assert_eq!(super::event(&report, &ClientOptions::new()).release.as_deref(), Some("photos"));
    }

    /// Guards: a report that is sent twice is one event. An update is another.
    #[test]
    fn a_repeated_report_is_the_same_event() {
        let first = report();
        let update = Report { update: 1, ..first.clone() };
        let other = Report { id: "8f14e45fceea167a-18".to_owned(), ..first.clone() };
        let ids = [&first, &update, &other].map(id_of);
        assert_eq!(ids[0], id_of(&first.clone()));
        assert_eq!(ids[0].get_version_num(), 4);
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        for number in 0..64 {
            let id = id_of(&Report { id: number.to_string(), ..first.clone() });
            assert!(
                id.to_string()[14..].starts_with('4') && id.to_string()[19..].starts_with(['8', '9', 'a', 'b']),
                "{id}"
            );
        }
        // The same from one version to the next as well.
        assert_eq!(ids[0].to_string(), "31ffccce-0c66-4e60-9ced-f289b5e932de");
    }

    /// Guards: nothing from a request is refused for its length or form.
    #[test]
    fn hostile_requests_fit_sentrys_limits() {
        let mut report = report();
        let evil = "/\r\n\u{202e}{{ default }}<script>\0".repeat(1_000);
        report.request.as_mut().unwrap().uri.clone_from(&evil);
        report.request.as_mut().unwrap().route = Some(evil.clone());
        report.request.as_mut().unwrap().headers =
            vec![("host".to_owned(), evil.clone()), ("traceparent".to_owned(), evil.clone())];
        report.job = Some(evil);
        let event = made(&report);
        for tag in event["tags"].as_object().unwrap().values() {
            let tag = tag.as_str().unwrap();
            assert!(tag.chars().count() <= MAX_TAG && !tag.contains(['\n', '\r', '\0']), "{tag}");
        }
        report.request.as_mut().unwrap().route = Some(String::new());
        report.request.as_mut().unwrap().method = String::new();
        report.stacks.clear();
        assert!(made(&report)["tags"].get("route").is_none());
    }
}
