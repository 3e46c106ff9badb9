//! Names that try to be something else go through every form, without breaking it.

use proptest::prelude::*;

use super::super::stacks::stacks;
use super::*;

const NASTY: [&str; 22] = [
    ";",
    "\"",
    "'",
    "<script>alert(1)</script>",
    "</title>",
    "&lt;",
    "&",
    "\u{202e}gnp.exe",
    "\u{200f}",
    "\n",
    "\r\n",
    "\0",
    "\\",
    "\\N",
    "\\\"",
    "{",
    "}",
    "|",
    " 17",
    "(a) Tj",
    "\u{1f4a9}",
    "]]>",
];

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => prop::sample::select(NASTY.to_vec()).prop_map(str::to_owned),
        2 => "[a-z]{1,8}(::[a-z]{1,8}){0,3}",
        1 => any::<String>(),
        1 => Just("alloc::vec::Vec<core::option::Option<u8>>, ".repeat(94)),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = || prop::option::of(name());
    let numbers = (prop::option::of(any::<u32>()), any::<bool>(), any::<bool>());
    let address = prop_oneof![Just(String::new()), any::<u64>().prop_map(|at| format!("{at:#x}")), name()];
    (text(), text(), text(), text(), address, numbers).prop_map(|(function, file, module, build_id, address, rest)| {
        let (line, own, inlined) = rest;
        Frame { function, file, module, build_id, address, line, own, inlined, ..Frame::default() }
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    let slice = (0usize..4, 0u64..1 << 40, 0u32..100, prop::collection::vec(0usize..6, 1..6), any::<bool>());
    (prop::collection::vec(frame(), 6), prop::collection::vec(slice, 0..12), name(), name()).prop_map(
        |(frames, slices, uri, note)| {
            let mut builder = ProfileBuilder::new();
            for (state, nanos, count, stack, beside) in slices {
                let stack: Vec<Frame> = stack.into_iter().map(|at| frames[at].clone()).collect();
                let state = Times::STATES[state];
                if beside {
                    builder.beside(state, nanos, count, &stack);
                } else {
                    builder.slice(state, nanos, count, &stack);
                }
            }
            let mut profile = builder.build();
            profile.process.executable = format!("/opt/{note}");
            profile.request.method = uri.clone();
            profile.request.uri = uri;
            profile.notes = vec![note];
            profile
        },
    )
}

/// Checks what must hold for every form, whatever the names.
fn check(profile: &Profile) {
    let is_bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{200f}' | '\u{feff}');
    let folded = text(Form::Folded, profile);
    let expected = stacks(profile, &profile.slices, true);
    let expected: Vec<_> = expected.iter().filter(|stack| stack.nanos > 0).collect();
    assert!(!folded.contains(is_bad));
    assert_eq!(folded.lines().count(), expected.len(), "{folded}");
    for (line, stack) in folded.lines().zip(expected) {
        let (frames, nanos) = line.rsplit_once(' ').unwrap();
        assert_eq!(nanos.parse(), Ok(stack.nanos));
        assert_eq!(frames.split(';').count(), stack.frames.len() + 1, "{line}");
    }

    let speedscope: serde_json::Value = serde_json::from_slice(&bytes(Form::Speedscope, profile)).unwrap();
    assert_eq!(speedscope["profiles"][0]["endValue"], profile.wall_nanos);
    let names = speedscope["shared"]["frames"].as_array().unwrap();
    assert!(names.iter().all(|frame| !frame["name"].as_str().unwrap().contains(is_bad)));
    let read: Profile = serde_json::from_slice(&bytes(Form::Json, profile)).unwrap();
    assert_eq!(format!("{read:?}"), format!("{profile:?}"));

    #[cfg(feature = "firefox")]
    {
        let firefox: serde_json::Value = serde_json::from_slice(&bytes(Form::Firefox, profile)).unwrap();
        let weights = firefox["threads"][0]["samples"]["weight"].as_array().unwrap();
        let sum: f64 = weights.iter().map(|weight| weight.as_f64().unwrap()).sum();
        assert!((sum - profile.wall_nanos as f64 / 1e6).abs() < 0.01);
        let names = firefox["threads"][0]["stringArray"].as_array().unwrap();
        assert!(names.iter().all(|name| !name.as_str().unwrap().contains(is_bad)), "{names:?}");
    }
    #[cfg(feature = "pprof")]
    {
        let message = super::pprof::check(profile);
        assert!(message.string_table.iter().all(|text| !text.contains(is_bad)));
        assert_eq!(message.sample.iter().map(|sample| sample.value[1]).sum::<i64>(), profile.wall_nanos as i64);
    }
    #[cfg(feature = "callgraph")]
    super::callgraph::check(profile);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Guards: no name forges a line, a frame or a field, reverses the text or ends the file, and no time is lost.
    #[test]
    fn hostile_names_forge_nothing(profile in profile()) {
        check(&profile);
    }
}

/// Guards: the same names, all in one profile, through the programs that read the forms.
#[test]
fn real_programs_read_hostile_names() {
    let mut builder = ProfileBuilder::new();
    let long = "alloc::vec::Vec<core::option::Option<u8>>, ".repeat(94);
    for (nasty, line) in NASTY.into_iter().chain([&*long]).zip(1..) {
        let name = format!("app::{nasty}::f{line}");
        builder.slice(State::Waiting, 1_000_000, 1, &[own("app::root", 1), own(&name, line)]);
    }
    let mut profile = builder.build();
    profile.request.uri = NASTY.concat();
    check(&profile);
    let place = tempfile::tempdir().unwrap();
    let write = |form: Form| {
        let file = place.path().join(extension(form));
        std::fs::write(&file, bytes(form, &profile)).unwrap();
        file
    };
    let _ = &write;
    #[cfg(feature = "pprof")]
    if let Some(top) =
        consume("go", &["tool", "pprof", "-top", "-symbolize=none", "-nodecount=99"], &write(Form::Pprof))
    {
        assert_eq!(top.lines().filter(|line| line.contains("1ms")).count(), NASTY.len() + 1, "{top}");
    }
    #[cfg(feature = "callgraph")]
    if let Some(plain) = consume("dot", &["-Tplain"], &write(Form::Dot)) {
        assert_eq!(plain.lines().filter(|line| line.starts_with("edge ")).count(), NASTY.len() + 1, "{plain}");
    }
    #[cfg(feature = "callgraph")]
    if let Some(text) = super::callgraph::pdf_text(&write(Form::Pdf)) {
        for line in 1..=NASTY.len() + 1 {
            assert!(text.contains(&format!("::f{line}")), "{line} in {text}");
        }
    }
}
