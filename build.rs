//! Decides how stacks are taken on the target, and turns two environment variables into cfg flags, so that a check can be
//! built another way without rebuilding every dependency (which `RUSTFLAGS=--cfg ..` would do).
//!
//! - `HEELER_PORTABLE=1`: leave out everything that copies stacks, as on a platform heeler does not know. Needs the feature
//!   `portable`.
//! - `HEELER_LOOM=1`: unit tests run the lock-free parts under loom (`cargo test --lib loom`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(heeler_copies, heeler_loom, heeler_remote)");
    let is =
        |variable: &str, values: &[&str]| std::env::var(variable).is_ok_and(|value| values.contains(&value.as_str()));
    for variable in ["HEELER_PORTABLE", "HEELER_LOOM"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let has_backtrace = std::env::var_os("CARGO_FEATURE_PORTABLE").is_some();
    assert!(has_backtrace || !is("HEELER_PORTABLE", &["1"]), "HEELER_PORTABLE=1 needs the feature `portable`");
    let known = is("CARGO_CFG_TARGET_OS", &["linux"]) && is("CARGO_CFG_TARGET_ARCH", &["x86_64", "aarch64"]);
    // The handler's memory is static, which loom's atomics cannot be: under loom, too, nothing is copied.
    if known && !is("HEELER_PORTABLE", &["1"]) && !is("HEELER_LOOM", &["1"]) {
        println!("cargo::rustc-cfg=heeler_copies");
    }
    // Profiles on other machines, whatever their queue is in.
    if ["CARGO_FEATURE_APALIS_REDIS", "CARGO_FEATURE_APALIS_POSTGRES"]
        .iter()
        .any(|queue| std::env::var_os(queue).is_some())
    {
        println!("cargo::rustc-cfg=heeler_remote");
    }
    if is("HEELER_LOOM", &["1"]) {
        println!("cargo::rustc-cfg=heeler_loom");
    }
}
