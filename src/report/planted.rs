//! Checks that a secret anywhere in a report is in none of its forms and in no store.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;

use super::model::Span;
use super::privacy::again;
use super::secrets::{Planted, config, line, redactor, text, uri};
use super::testing::{culprit, logged, own, report};
use super::{Digest, Report, Reports, Sink, sink};

/// A report before it is completed, with a secret at one place.
fn raw() -> impl Strategy<Value = (Report, Planted)> {
    let uri = (uri(), 0..8u8).prop_map(|(planted, place)| {
        let (mut report, text) = (report(), planted.text.clone());
        let request = report.request.as_mut().unwrap();
        match place {
            0..=2 => request.uri = text,
            3 => request.route = Some(text),
            4 => request.headers.push(("referer".to_owned(), text)),
            5 => request.headers.push(("x-original-uri".to_owned(), text)),
            6 => report.stacks.push(with_work(&format!("POST {text}"))),
            // As tower-http records it.
            _ => report.spans[0].fields.push(("uri".to_owned(), text)),
        }
        (report, planted)
    });
    let text = (text(), 0..9u8).prop_map(|(planted, place)| {
        let (mut report, text) = (report(), planted.text.clone());
        match place {
            0 => report.request.as_mut().unwrap().headers.push(("user-agent".to_owned(), text)),
            1 | 2 => (report.request, report.job) = (None, Some(text)),
            3 => report.notes.push(format!("in the timebox \"{text}\"")),
            4 => report.stacks.push(with_work(&text)),
            5 => {
                report.stacks.push(culprit(&[own("app::busy", 1)]));
                report.stacks.last_mut().unwrap().thread.as_mut().unwrap().name = text;
            }
            6 => report.spans.push(Span { name: text, fields: Vec::new() }),
            7 => report.spans[0].fields.push(("request".to_owned(), format!("Request {{ body: {text:?} }}"))),
            _ => report.spans[0].fields.push(("error".to_owned(), text)),
        }
        (report, planted)
    });
    // As in the spool of an earlier version. In this version, lines are redacted when they are read.
    let source = line().prop_map(|planted| {
        let mut report = report();
        report.stacks[0].frames[0].source = Some(planted.text.clone());
        (report, planted)
    });
    prop_oneof![3 => uri, 3 => text, 1 => source]
}

fn with_work(work: &str) -> super::Stack {
    super::Stack { work: Some(work.to_owned()), ..culprit(&[own("app::busy", 1)]) }
}

/// Appends the contents of all files in a directory, including its subdirectories.
fn contents(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        into.push_str(&path.to_string_lossy());
        if path.is_dir() {
            contents(&path, into);
        } else {
            into.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
    }
}

/// A sink that fails, and repeats the report's sentence and the given text.
struct Fails(Mutex<String>);

impl Sink for Fails {
    fn name(&self) -> &'static str {
        "fails"
    }

    fn deliver(&self, report: &Report) -> Result<(), crate::SinkError> {
        Err(io::Error::other(format!("{}: {}", report.sentence(), self.0.lock().unwrap())).into())
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn no_form_of_a_report_reveals_a_secret((raw, planted) in raw()) {
        let mut report = raw;
        redactor().report(&mut report);
        let digest = Digest::of(&report);
        let forms = vec![
            ("text", report.to_text()),
            ("JSON", report.to_json()),
            ("HTML", report.to_html()),
            ("SVG", report.to_svg()),
            ("sentence", report.sentence()),
            ("subject", report.subject()),
            #[cfg(feature = "email")]
            ("digest", format!("{} {} {}", digest.subject(), digest.to_text(), digest.to_html())),
            ("sinks", sink::printed(&report, &digest)),
        ];
        for (form, shown) in forms {
            prop_assert!(!planted.is_in(&shown), "{form}: {}", planted.text);
        }
        // As if it were read from a spool.
        let json = report.to_json();
        again(&mut report);
        prop_assert_eq!(report.to_json(), json);
    }
}

proptest! {
    #![proptest_config(config(160))]

    #[test]
    fn no_store_or_log_reveals_a_secret((raw, planted) in raw(), error in text()) {
        let place = tempfile::tempdir().unwrap();
        let fails = || Fails(Mutex::new(error.text.clone()));
        let builder = || Reports::builder().secret_paths(["/pattern/{token}"]).sink(fails());
        // Without a spool, only this thread calls the sinks.
        let mut told = logged(|| {
            let reports = builder().directory(place.path().join("reports")).build().unwrap();
            reports.deliver(raw.clone());
            reports.deliver(raw.clone());
        });
        prop_assert!(told.contains("WARN heeler") && told.contains("a report did not arrive"), "{}", told);
        let reports = builder().without_log().spool(place.path().join("spool")).build().unwrap();
        reports.deliver(raw);
        contents(&place.path().join("reports"), &mut told);
        let mut spooled = String::new();
        contents(&place.path().join("spool"), &mut spooled);
        prop_assert!(spooled.contains("\"schema\""), "it waits in the spool");
        told.push_str(&spooled);
        prop_assert!(told.contains("slow_request") || told.contains("slow_job"), "in the directory");
        for planted in [planted, error] {
            prop_assert!(!planted.is_in(&told), "{}\n{told}", planted.text);
        }
    }
}
