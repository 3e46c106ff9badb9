//! Each form is read back: by its real consumer if that is installed here, otherwise field by field.

#[cfg(feature = "callgraph")]
mod callgraph;
#[cfg(feature = "firefox")]
mod firefox;
mod hostile;
#[cfg(feature = "pprof")]
mod pprof;
mod text;

#[cfg(any(feature = "callgraph", feature = "pprof"))]
use std::path::Path;
#[cfg(any(feature = "callgraph", feature = "pprof"))]
use std::process::{Command, Stdio};

use super::*;
use crate::profile::form::Form;
use crate::profile::testing::{ProfileBuilder, library, own, remark};
use crate::profile::{Profile, State};
use crate::report::Frame;

/// 100 ms: 30 on the CPU in `parse`, 20 blocked, 45 waiting at two lines of `handler`, 5 not scheduled; 8 of a child.
fn sample() -> Profile {
    let mut builder = ProfileBuilder::new();
    let outer = [library("tokio::runtime::task::poll"), library("axum::handler::call")];
    let on = |inner: &[Frame]| [&outer[..], inner].concat();
    let inlined = Frame { inlined: true, ..own("app::digit", 7) };
    for _ in 0..3 {
        let parse = on(&[own("app::handler", 1), own("app::parse", 5), inlined.clone()]);
        builder.slice(State::OnCpu, 10_000_000, 10, &parse);
        let sleep = on(&[own("app::handler", 3), library("tokio::time::sleep::Sleep::poll")]);
        builder.slice(State::Waiting, 10_000_000, 1, &sleep);
    }
    builder.slice(State::Blocked, 20_000_000, 20, &on(&[own("app::handler", 2), library("std::fs::read")]));
    builder.slice(State::Runnable, 5_000_000, 0, &[remark("[not scheduled]")]);
    let nameless = Frame { function: None, file: None, line: None, module: Some("libc.so.6".to_owned()), ..own("", 0) };
    builder.slice(State::Waiting, 15_000_000, 1, &on(&[own("app::handler", 4), nameless]));
    builder.beside(State::OnCpu, 8_000_000, 8, &[own("app::child", 1)]);
    let mut profile = builder.build();
    profile.notes.push("a note".to_owned());
    profile
}

fn bytes(form: Form, profile: &Profile) -> Vec<u8> {
    render(form, profile).expect("a file for a program").expect("it can be written")
}

fn text(form: Form, profile: &Profile) -> String {
    String::from_utf8(bytes(form, profile)).expect("UTF-8")
}

/// Returns what `program` writes for `args` and the file, or `None`, with a message, if that program isn't installed
/// here.
#[cfg(any(feature = "callgraph", feature = "pprof"))]
fn consume(program: &str, args: &[&str], file: &Path) -> Option<String> {
    let run = Command::new(program).args(args).arg(file).stdin(Stdio::null()).output();
    let Ok(output) = run else {
        eprintln!("skipped: there is no `{program}` here");
        return None;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Guards: names and types of the files. A form without its feature is refused with a message that says so.
#[test]
fn every_form_renders_or_names_its_feature() {
    let profile = sample();
    for form in Form::ALL {
        match render(form, &profile) {
            None => assert!(matches!(form, Form::Svg | Form::Html)),
            Some(Ok(bytes)) => assert!(!bytes.is_empty() && is_available(form)),
            Some(Err(error)) => {
                assert!(!is_available(form), "{error}");
                assert!(error.to_string().contains("feature"), "{error}");
            }
        }
        assert!(content_type(form).contains('/') && !extension(form).starts_with('.'));
    }
    let empty = ProfileBuilder::new().build();
    for form in Form::ALL.into_iter().filter(|&form| is_available(form)) {
        assert!(render(form, &empty).is_none_or(|result| result.is_ok()), "{form} of no time");
    }
}
