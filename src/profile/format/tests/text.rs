//! Folded stacks, speedscope, JSON.

use serde::Deserialize;

use super::*;

/// Guards: the lines sum to the wall time and keep the state as the outermost frame, and inferno reads them.
#[test]
fn folded_lines_sum_to_the_wall_time() {
    let profile = sample();
    let text = text(Form::Folded, &profile);
    let line = "on CPU;tokio::runtime::task::poll;axum::handler::call;app::handler;app::parse;app::digit 30000000\n";
    assert!(text.starts_with(line), "{text}");
    assert!(text.contains("woken, not polled;[not scheduled] 5000000\n"), "{text}");
    let sum: u64 = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, profile.wall_nanos);
    let mut svg = Vec::new();
    let mut options = inferno::flamegraph::Options::default();
    inferno::flamegraph::from_lines(&mut options, text.lines(), &mut svg).unwrap();
    assert!(String::from_utf8(svg).unwrap().contains("<title>app::digit (30,000,000 samples, 30.00%)</title>"));
}

#[test]
fn json_loses_nothing() {
    let profile = sample();
    let read: Profile = serde_json::from_slice(&bytes(Form::Json, &profile)).unwrap();
    assert_eq!(format!("{read:?}"), format!("{profile:?}"));
}

/// <https://www.speedscope.app/file-format-schema.json>, as far as `sampled` profiles go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "$schema")]
    schema: String,
    exporter: String,
    name: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared,
    profiles: Vec<Sampled>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shared {
    frames: Vec<Function>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampled {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    unit: String,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

fn speedscope(profile: &Profile) -> File {
    let file: File = serde_json::from_slice(&bytes(Form::Speedscope, profile)).unwrap();
    assert_eq!(file.schema, "https://www.speedscope.app/file-format-schema.json");
    assert!(file.active < file.profiles.len() && file.exporter.starts_with("heeler@"));
    for one in &file.profiles {
        assert_eq!((one.kind.as_str(), one.unit.as_str(), one.start), ("sampled", "nanoseconds", 0));
        assert_eq!(one.samples.len(), one.weights.len());
        assert_eq!(one.weights.iter().sum::<u64>(), one.end, "{}", one.name);
        assert!(one.samples.iter().flatten().all(|&frame| frame < file.shared.frames.len()));
    }
    file
}

/// Guards: the schema, the order and the weights. Each state has a profile at its true times, and what ran beside the request
/// is separate.
#[test]
fn speedscope_shows_each_state_in_its_time() {
    let profile = sample();
    let file = speedscope(&profile);
    assert_eq!(file.name, "GET /slow/lock: 100 ms");
    let names: Vec<&str> = file.profiles.iter().map(|one| one.name.as_str()).collect();
    let states = ["on CPU", "blocked in a poll", "waiting", "woken, not polled"];
    assert_eq!(names[0], file.name);
    assert_eq!(names[1..5], states);
    assert!(names[5].starts_with("spawned work"));
    assert_eq!(file.profiles[0].end, profile.wall_nanos);
    assert_eq!(file.profiles[0].weights.len(), profile.slices.len());
    let innermost = |sample: &[usize]| &file.shared.frames[*sample.last().unwrap()];
    let first = innermost(&file.profiles[0].samples[0]);
    assert_eq!((&*first.name, first.file.as_deref(), first.line), ("app::digit", Some("src/app.rs"), Some(7)));
    assert_eq!(file.shared.frames[file.profiles[0].samples[0][0]].name, "on CPU");
    // Blocked from the 60th to the 80th millisecond.
    assert_eq!(file.profiles[2].weights, [60_000_000, 20_000_000]);
    assert!(file.profiles[2].samples[0].is_empty() && innermost(&file.profiles[2].samples[1]).name == "std::fs::read");
    assert_eq!(file.profiles[5].end, 8_000_000);
}

/// Guards: ten minutes of samples do not make a file that no browser can open.
#[test]
fn many_slices_make_no_huge_speedscope_file() {
    let mut builder = ProfileBuilder::new();
    for at in 0..100_000 {
        builder.slice(State::OnCpu, 1_000, 1, &[own("app::handler", 1), own("app::work", at % 100)]);
    }
    let profile = builder.build();
    let file = speedscope(&profile);
    assert_eq!((file.profiles.len(), file.profiles[0].samples.len()), (1, 100));
    assert_eq!(file.profiles[0].end, profile.wall_nanos);
    assert!(file.profiles[0].name.ends_with("(not in order of time)"));
}
