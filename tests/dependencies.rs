//! What comes with heeler: how many crates, under which licences, and none in two versions. By cargo's own word.

use std::collections::BTreeMap;
use std::process::Command;

/// Licences that ask for no more than a notice.
const PERMISSIVE: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    // Of the list of certificate authorities that comes with sqlx.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What asks for more: changes to its own files stay open. And what names no licence in its manifest: it comes with the text of the
/// MIT licence.
const EXCEPTIONS: [(&str, &str); 2] = [("inferno", "CDDL-1.0"), ("apalis-postgres", "")];

/// The crates of the library on this platform, heeler included, each with its versions and the licence of the last. `None` if
/// cargo would have to download something to tell.
fn tree(features: &[&str]) -> Option<BTreeMap<String, (Vec<String>, String)>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "tree",
        "--package",
        "heeler",
        "--edges",
        "normal",
        "--offline",
    ]);
    let output = cargo.args(["--prefix", "none", "--format", "{p}|{l}|"]).args(features).output().expect("cargo runs");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("--offline"), "{error}");
        eprintln!("not checked: {error}");
        return None;
    }
    let mut crates: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let [package, licence, ..] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut package = package.split(' ');
        let (name, version) = (package.next().expect("a name"), package.next().expect("a version"));
        let (versions, last) = crates.entry(name.to_owned()).or_default();
        if !versions.iter().any(|known| known == version) {
            versions.push(version.to_owned());
        }
        *last = licence.to_owned();
    }
    Some(crates)
}

/// Whether one may choose licences such that all are permissive: `(MIT OR Apache-2.0) AND Unicode-3.0`.
fn is_permissive(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    // Alternatives in parentheses come first, and are replaced by what they amount to.
    if let Some((before, rest)) = expression.rsplit_once('(') {
        let (inner, after) = rest.split_once(')').expect("a closing parenthesis");
        let inner = if is_permissive(inner) { "MIT" } else { "none" };
        return is_permissive(&format!("{before}{inner}{after}"));
    }
    let all = |part: &str| part.split(" AND ").all(|one| PERMISSIVE.contains(&one.trim()));
    expression.split(" OR ").any(all)
}

#[test]
fn licence_expressions_are_read() {
    for good in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(GPL-2.0 OR MIT) AND Unicode-3.0", "ISC AND (Apache-2.0 OR ISC)"]
    {
        assert!(is_permissive(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR LGPL-3.0) AND MIT"] {
        assert!(!is_permissive(bad), "{bad}");
    }
}

/// Guards: nobody gets more with `cargo add heeler` than DEPENDENCIES.md says.
#[test]
fn the_default_tree_is_small() {
    let Some(crates) = tree(&[]) else { return };
    assert!((20..=60).contains(&crates.len()), "{} crates: {:#?}", crates.len(), crates.keys());
    let twice: Vec<_> = crates.iter().filter(|(_, (versions, _))| versions.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// Guards: whoever may use heeler may use all that comes with it.
#[test]
fn every_licence_is_known_to_be_permissive() {
    for (name, (_, licence)) in tree(&["--all-features"]).into_iter().flatten() {
        let excepted = EXCEPTIONS.contains(&(&name, &licence));
        assert!(excepted || is_permissive(&licence), "{name}: {licence}");
    }
}

/// Guards: whatever features a service has, TLS finds one provider of cryptography. With two of them, rustls panics in a process
/// that has chosen none.
#[test]
fn there_is_one_provider_of_cryptography() {
    if let Some(crates) = tree(&["--all-features"]) {
        assert!(crates.contains_key("aws-lc-rs") && !crates.contains_key("ring"), "rustls would have to choose");
    }
}
