//! `go tool pprof` and the messages themselves.

use std::collections::HashSet;
use std::io::Read as _;

use ::pprof::protos::{self, Message as _};

use super::*;

fn message(profile: &Profile) -> protos::Profile {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&bytes(Form::Pprof, profile)[..]).read_to_end(&mut message).unwrap();
    protos::Profile::decode(&message[..]).unwrap()
}

/// Checks what pprof's own `CheckValid` asks for, and more: every reference is valid, no id is zero or used twice, and
/// addresses are inside their mappings, which do not overlap.
pub(super) fn check(profile: &Profile) -> protos::Profile {
    let message = message(profile);
    let text = |at: i64| message.string_table.get(usize::try_from(at).unwrap()).expect("a text");
    assert_eq!(message.string_table[0], "");
    assert_eq!(message.string_table.iter().collect::<HashSet<_>>().len(), message.string_table.len());
    for (at, mapping) in message.mapping.iter().enumerate() {
        assert_eq!(mapping.id, at as u64 + 1);
        assert!(mapping.memory_start < mapping.memory_limit);
        let before = at.checked_sub(1).map_or(0, |before| message.mapping[before].memory_limit);
        assert!(before <= mapping.memory_start);
        text(mapping.filename);
        text(mapping.build_id);
    }
    for (at, function) in message.function.iter().enumerate() {
        assert_eq!(function.id, at as u64 + 1);
        assert!(!text(function.name).is_empty() && text(function.filename).len() <= 16_000);
        assert_ne!(function.system_name, function.name, "pprof would take it for a C++ name");
    }
    for (at, location) in message.location.iter().enumerate() {
        assert_eq!(location.id, at as u64 + 1);
        assert!(!location.line.is_empty() || location.mapping_id > 0);
        assert!(location.line.iter().all(|line| (1..=message.function.len() as u64).contains(&line.function_id)));
        if location.mapping_id > 0 {
            let mapping = &message.mapping[location.mapping_id as usize - 1];
            assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
        }
    }
    for sample in &message.sample {
        assert_eq!(sample.value.len(), message.sample_type.len());
        assert!(sample.location_id.iter().all(|id| (1..=message.location.len() as u64).contains(id)));
        let keys = ["state", "trace_id", "span_id"];
        assert!(sample.label.iter().all(|label| keys.contains(&&**text(label.key)) && !text(label.str).is_empty()));
    }
    assert!(message.comment.iter().all(|&comment| !text(comment).is_empty()));
    message
}

/// Guards: values, modules with their build ids, inlined functions, and frames without names that can be named later.
#[test]
fn the_pprof_profile_has_every_field() {
    let profile = sample();
    let message = check(&profile);
    let text = |at: i64| message.string_table[at as usize].as_str();
    let types: Vec<_> = message.sample_type.iter().map(|one| (text(one.ty), text(one.unit))).collect();
    assert_eq!(types, [("samples", "count"), ("wall", "nanoseconds"), ("beside", "nanoseconds")]);
    assert_eq!(text(message.default_sample_type), "wall");
    assert_eq!((message.duration_nanos, message.period), (100_000_000, 1_000_000));
    assert_eq!(message.time_nanos, 1_735_689_600_000_000_000);
    let sum = |at: usize| message.sample.iter().map(|sample| sample.value[at]).sum::<i64>();
    assert_eq!((sum(0), sum(1), sum(2)), (54, 100_000_000, 8_000_000));
    assert_eq!(message.comment.iter().map(|&at| text(at)).collect::<Vec<_>>(), ["GET /slow/lock: 100 ms", "a note"]);

    let modules: Vec<_> = message.mapping.iter().map(|one| (text(one.filename), text(one.build_id))).collect();
    let build_id = "abcdef0123456789abcdef0123456789abcdef01";
    assert_eq!(modules, [("photos", build_id), ("libc.so.6", build_id)]);
    assert!(message.mapping[0].has_functions && message.mapping[0].has_inline_frames);
    assert!(!message.mapping[1].has_functions);

    let location = &message.location[message.sample[0].location_id[0] as usize - 1];
    let lines: Vec<_> = location.line.iter().map(|line| (line.function_id, line.line)).collect();
    let name = |id: u64| text(message.function[id as usize - 1].name);
    assert_eq!(
        lines.iter().map(|&(id, line)| (name(id), line)).collect::<Vec<_>>(),
        [("app::digit", 7), ("app::parse", 5)]
    );
    assert_eq!(location.address - message.mapping[0].memory_start, 0x1f05);
    assert!(message.location.iter().any(|one| one.line.is_empty() && one.mapping_id == 2));
}

/// Guards: Go's pprof reads the profile, takes wall time by default, and filters by state.
#[test]
fn go_tool_pprof_reads_the_profile() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("profile.pb.gz");
    std::fs::write(&file, bytes(Form::Pprof, &sample())).unwrap();
    // `-symbolize=none`: as a server would show it, without access to the program.
    let top = ["tool", "pprof", "-top", "-symbolize=none", "-nodecount=50"];
    let Some(all) = consume("go", &top, &file) else { return };
    assert!(all.contains("Type: wall") && all.contains("Duration: 100ms, Total samples = 100ms"), "{all}");
    assert!(
        all.contains("File: photos") && all.contains("Build ID: abcdef0123456789abcdef0123456789abcdef01"),
        "{all}"
    );
    let row = |text: &str, function: &str| {
        let row = text.lines().find(|line| line.split_whitespace().nth(5) == Some(function));
        row.map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let cells = |function: &str| row(&all, function).unwrap_or_else(|| panic!("no {function} in {all}"));
    let (digit, handler) = (cells("app::digit"), cells("app::handler"));
    assert_eq!((&*digit[0], &*digit[3]), ("30ms", "30ms"), "{all}");
    assert_eq!((&*handler[0], &*handler[3]), ("0", "95ms"), "{all}");

    let waiting = [&top[..], &["-tagfocus=state=waiting"]].concat();
    let waiting = consume("go", &waiting, &file).unwrap();
    assert_eq!(row(&waiting, "tokio::time::sleep::Sleep::poll").map(|row| row[0].clone()), Some("30ms".to_owned()));
    assert_eq!(row(&waiting, "app::digit"), None, "{waiting}");
    let counts = consume("go", &[&top[..], &["-sample_index=samples"]].concat(), &file).unwrap();
    assert_eq!(row(&counts, "app::digit").map(|row| row[0].clone()), Some("30".to_owned()));
    consume("go", &["tool", "pprof", "-raw", "-symbolize=none"], &file).unwrap();
}

/// Guards: Go's pprof leaves names as they are, with their types and traits.
#[test]
fn go_tool_pprof_keeps_angle_brackets() {
    let names =
        ["<app::User as app::Load>::get_user", "app::call::<alloc::vec::Vec<u8>>", "<F as core::ops::Fn>::call"];
    let mut builder = ProfileBuilder::new();
    for name in names {
        builder.slice(State::OnCpu, 10_000_000, 10, &[own("app::handler", 1), own(name, 2)]);
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("profile.pb.gz");
    std::fs::write(&file, bytes(Form::Pprof, &builder.build())).unwrap();
    let top = ["tool", "pprof", "-top", "-symbolize=none", "-nodecount=50"];
    let Some(all) = consume("go", &top, &file) else { return };
    for name in names {
        assert!(all.lines().any(|line| line.ends_with(name)), "no {name} in {all}");
    }
}

/// Guards: a server takes the profile however long it is, with all of its time, and the stacks in which most of that went.
#[cfg(feature = "pyroscope")]
#[test]
fn a_huge_profile_is_pushed_within_a_servers_limits() {
    let mut builder = ProfileBuilder::new();
    let names = "app::a_function_with_quite_a_long_name".repeat(5);
    for number in 0..20_000_u32 {
        let state = if number % 2 == 0 { State::OnCpu } else { State::Waiting };
        let nanos = u64::from(number) + 1;
        builder.slice(state, nanos, 1, &[own("app::handler", 1), own(&format!("{names}_{number}"), number)]);
    }
    builder.beside(State::OnCpu, 8_000_000, 8, &[own("app::child", 1)]);
    let profile = builder.build();
    let message = crate::profile::format::bounded_pprof(&profile, &[("route", "/slow/{what}"), ("trace_id", "")]);
    assert!(message.encoded_len() <= 4 << 20 && message.sample.len() <= 16_000, "{}", message.encoded_len());
    let sum = |at: usize| message.sample.iter().map(|sample| sample.value[at]).sum::<i64>();
    assert_eq!((sum(0), sum(1), sum(2)), (20_000, i64::try_from(profile.wall_nanos).unwrap(), 8_000_000));
    let text = |at: i64| message.string_table[at as usize].as_str();
    let name = |sample: &protos::Sample| {
        let line = &message.location[sample.location_id[0] as usize - 1].line[0];
        text(message.function[line.function_id as usize - 1].name)
    };
    let others: Vec<_> = message.sample.iter().filter(|sample| name(sample) == "[other stacks]").collect();
    assert_eq!(others.len(), 2, "one for each state");
    assert!(message.sample.iter().any(|sample| name(sample).ends_with("_19999")), "the longest is there");
    assert!(!message.sample.iter().any(|sample| name(sample).ends_with("name_0")), "the shortest is not");
    let labels = |sample: &protos::Sample| sample.label.iter().map(|label| text(label.key)).collect::<Vec<_>>();
    assert!(message.sample.iter().all(|sample| labels(sample) == ["state", "route"]), "an empty label is none");

    let small = crate::profile::format::bounded_pprof(&sample(), &[]);
    assert!(small.comment.is_empty() && !small.string_table.iter().any(|text| text.contains("/slow/lock")));
    assert_eq!(small.sample.len(), check(&sample()).sample.len());
}
