//! What the Firefox Profiler reads.

use serde_json::Value;

use super::*;

fn at<'a>(json: &'a Value, pointer: &str) -> &'a Value {
    json.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"))
}

fn numbers(json: &Value, pointer: &str) -> Vec<f64> {
    at(json, pointer).as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Guards: times, weights, CPU, categories and stacks of the request's thread. What ran beside it has a thread of its own.
#[test]
fn the_firefox_profile_has_every_field() {
    let profile = sample();
    let json: Value = serde_json::from_slice(&bytes(Form::Firefox, &profile)).unwrap();
    assert_eq!(at(&json, "/meta/product"), "GET /slow/lock: 100 ms");
    assert_eq!(at(&json, "/meta/interval").as_f64(), Some(1.0));
    assert_eq!(at(&json, "/meta/symbolicated"), true);
    assert_eq!(at(&json, "/meta/startTime").as_f64(), Some(1_735_689_600_000.0));
    let names: Vec<&str> =
        at(&json, "/meta/categories").as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for state in Times::STATES {
        assert!(names.contains(&state_name(state)), "{names:?}");
    }

    assert_eq!(at(&json, "/threads").as_array().unwrap().len(), 2);
    let thread = at(&json, "/threads/0");
    assert_eq!((at(thread, "/name"), at(thread, "/samples/weightType")), (&"request".into(), &"tracing-ms".into()));
    let weights = numbers(thread, "/samples/weight");
    assert_eq!(weights, [10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 20.0, 5.0, 15.0, 0.0]);
    assert_eq!(numbers(thread, "/samples/timeDeltas").iter().sum::<f64>(), 100.0);
    // Each value comes after the slice that it is about.
    assert_eq!(numbers(thread, "/samples/threadCPUDelta")[..4], [0.0, 10_000.0, 0.0, 10_000.0]);

    let stack = at(thread, "/samples/stack/0").as_u64().unwrap();
    let frame = at(thread, &format!("/stackTable/frame/{stack}")).as_u64().unwrap();
    let function = at(thread, &format!("/frameTable/func/{frame}")).as_u64().unwrap();
    let name = at(thread, &format!("/funcTable/name/{function}")).as_u64().unwrap();
    assert_eq!(at(thread, &format!("/stringArray/{name}")), "app::digit src/app.rs:7");
    let category = at(thread, &format!("/frameTable/category/{frame}")).as_u64().unwrap();
    assert_eq!(names[category as usize], "on CPU");
    assert_eq!(at(&json, "/threads/1/name"), "spawned work, beside the request");
    assert_eq!(numbers(&json, "/threads/1/samples/weight"), [8.0, 0.0]);
}
