//! Reads the imports in `src/` and draws the floors of the house: a room knows the rooms below it, and no other. `cargo test --test
//! architecture -- --nocapture` prints the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms of the ground floor may know each other; on every other floor they may not.
const FLOORS: [(&str, &[&str]); 8] = [
    (
        "ground",
        &["clock", "counts", "disabled", "error", "flag", "log", "macros", "parts", "private", "sync", "text", "tries"],
    ),
    ("capture", &["capture"]),
    ("inflight", &["inflight"]),
    ("monitor", &["monitor"]),
    ("pictures", &["flamegraph"]),
    ("report", &["report"]),
    ("access", &["authorize", "children", "resource"]),
    ("tools", &["console", "profile", "test", "timebox", "watchdog"]),
];

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, rooms)| rooms.contains(&room))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// Whether an attribute keeps what follows out of the library. `not(test)` and `any(.., test)` do not.
fn is_for_tests(attribute: &str) -> bool {
    attribute.starts_with("#[cfg(test)]") || attribute.starts_with("#[cfg(all(test,")
}

/// The lines of a file that are compiled into the library: without comments, and without modules of tests, which may look wherever
/// they like. Modules that are files of their own are named by [`tests_in_files`].
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    // After the attribute: at the item's first line, or within it.
    let (mut begins, mut within) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if is_for_tests(line) {
            begins = true;
        } else if begins && !line.starts_with("#[") {
            begins = false;
            within = !line.ends_with([';', '}']);
        } else if within {
            within = !line.starts_with('}');
        } else if !begins && !line.trim_start().starts_with("//") {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// Files that only tests compile: `#[cfg(test)] mod name;`.
fn tests_in_files(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("text");
        for name in modules_of_tests(&text) {
            let is_root_of_folder = file.ends_with("mod.rs") || file.ends_with("lib.rs");
            let parent = file.parent().expect("a folder").to_owned();
            let folder = if is_root_of_folder { parent } else { file.with_extension("") };
            found.extend([folder.join(format!("{name}.rs")), folder.join(name)]);
        }
    }
    found
}

fn modules_of_tests(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut for_tests = false;
    for line in text.lines() {
        if line.starts_with("#[") {
            for_tests |= is_for_tests(line);
            continue;
        }
        let item = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
        if for_tests {
            names.extend(item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')));
        }
        for_tests = false;
    }
    names
}

/// The names that follow `crate::` in a piece of code: one, or those of a list in braces.
fn names_of_crate(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        let Some(list) = rest.strip_prefix('{') else {
            names.push((at, word(rest)));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (offset, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if depth == 0 && begins && !c.is_whitespace() => {
                    names.push((at, word(&list[offset..])));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// The line with `super::super::` as `crate::`, where that climbs from a module `depth` below the root to the root itself. Imports
/// that are indented are those of a module within the file, one level further down.
fn from_root(line: &str, depth: usize) -> String {
    assert!(
        !line.contains("use crate as") && !line.contains("extern crate self"),
        "another name for the crate: {line}"
    );
    let is_further_down =
        line.starts_with(' ') && line.trim_start().trim_start_matches("pub(crate) ").starts_with("use ");
    let chain = "super::".repeat(depth + usize::from(is_further_down));
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(&chain) {
        let is_longer = rest[..at].ends_with("super::") || rest[at + chain.len()..].starts_with("super::");
        out.push_str(&rest[..at]);
        out.push_str(if is_longer { &chain } else { "crate::" });
        rest = &rest[at + chain.len()..];
    }
    out + rest
}

/// What `lib.rs` re-exports, with the room that each is from.
fn re_exports(root: &str) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    for statement in root.split(';').filter_map(|statement| statement.split("pub use ").nth(1)) {
        let (path, names) = match statement.split_once('{') {
            Some((path, names)) => (path, names.trim_end().trim_end_matches('}')),
            None => statement.rsplit_once("::").expect("a path"),
        };
        let room = path.split("::").next().expect("a room");
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "self") {
            rooms.insert(name.to_owned(), room.to_owned());
        }
    }
    rooms
}

#[test]
fn imports_point_down() {
    let source = source();
    let mut all = Vec::new();
    files(&source, &mut all);
    all.sort();
    let tests = tests_in_files(&all);
    let root = std::fs::read_to_string(source.join("lib.rs")).expect("lib.rs");
    let root = code(&root).into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    let re_exports = re_exports(&root);
    let mut wrong = Vec::new();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut size: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for file in all.iter().filter(|file| !file.ends_with("src/lib.rs")) {
        if file.ancestors().any(|path| tests.contains(path)) {
            continue;
        }
        let relative = file.strip_prefix(&source).expect("inside");
        let room = relative.iter().next().expect("a room").to_string_lossy().trim_end_matches(".rs").to_owned();
        let Some(floor) = floor_of(&room) else {
            wrong.push(format!("{}: on no floor; say in this test where it belongs", relative.display()));
            continue;
        };
        let text = std::fs::read_to_string(file).expect("text");
        let (files, lines) = size.entry(room.clone()).or_default();
        (*files, *lines) = (*files + 1, *lines + text.lines().count());
        let mut lines = code(&text);
        let depth = relative.components().count() - usize::from(file.ends_with("mod.rs"));
        let climbed: Vec<_> = lines.iter().map(|(number, line)| (*number, from_root(line, depth))).collect();
        lines.clear();
        lines.extend(climbed.iter().map(|(number, line)| (*number, line.as_str())));
        let joined: String = lines.iter().flat_map(|(_, line)| [line, "\n"]).collect();
        for (at, name) in names_of_crate(&joined) {
            // A room first: the macro `timebox` and the function of that name are in the room of that name.
            let other = match floor_of(&name) {
                Some(_) => name.clone(),
                None => re_exports.get(&name).cloned().unwrap_or_default(),
            };
            let line = lines[joined[..at].matches('\n').count()].0;
            let place = format!("src/{}:{line}", relative.display());
            match floor_of(&other) {
                _ if other == room => {}
                Some(below) if below < floor || (below == 0 && floor == 0) => {
                    uses.entry(room.clone()).or_default().insert(other);
                }
                Some(same) if same == floor => {
                    wrong.push(format!("{place}: `{room}` knows `{other}`, which is beside it"))
                }
                Some(_) => wrong.push(format!("{place}: `{room}` knows `{other}`, which is above it")),
                None => wrong.push(format!("{place}: `crate::{name}` belongs to no room")),
            }
        }
    }
    println!("{}", plan(&uses, &size));
    assert!(wrong.is_empty(), "arrows that do not point down:\n{}", wrong.join("\n"));
}

/// The floors from the top down: each room with its files and lines, and what it knows.
fn plan(uses: &BTreeMap<String, BTreeSet<String>>, size: &BTreeMap<String, (usize, usize)>) -> String {
    let mut plan = String::new();
    for (floor, rooms) in FLOORS.iter().rev() {
        for (index, room) in rooms.iter().enumerate() {
            let floor = if index == 0 { floor } else { "" };
            let (files, lines) = size.get(*room).copied().unwrap_or_default();
            let known = uses.get(*room).into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
            let arrow = if known.is_empty() { "" } else { "→" };
            let line = format!("{floor:<9} {room:<10} {files:>4} files {lines:>6} lines  {arrow} {known}");
            let _ = writeln!(plan, "{}", line.trim_end());
        }
    }
    plan
}

#[test]
fn a_list_of_names_is_read() {
    let names = |code| names_of_crate(code).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("use crate::{a, b::{c, d}, e};"), ["a", "b", "e"]);
    assert_eq!(names("crate::report::send(crate::Kind)"), ["report", "Kind"]);
}

#[test]
fn what_only_tests_compile_is_left_out() {
    let text = "#[cfg(test)]\nmod tests;\nmod throttle;\n#[cfg(test)]\n#[allow(unused)]\npub(crate) mod testing;\n";
    assert_eq!(modules_of_tests(text), ["tests", "testing"]);
    let text = "mod a;\n#[cfg(test)]\nfn one() { crate::x() }\nmod b;\n#[cfg(not(all(test, heeler_loom)))]\nmod c;\n#[cfg(test)]\nmod tests {\n    x\n}\nmod d;";
    let lines: Vec<_> = code(text).into_iter().map(|(_, line)| line).filter(|line| line.starts_with("mod")).collect();
    assert_eq!(lines, ["mod a;", "mod b;", "mod c;", "mod d;"]);
}

#[test]
fn a_climb_to_the_root_is_a_path_of_the_crate() {
    assert_eq!(from_root("use super::super::monitor;", 2), "use crate::monitor;");
    assert_eq!(from_root("use super::monitor;", 2), "use super::monitor;");
    assert_eq!(from_root("use super::super::super::x;", 2), "use super::super::super::x;");
    assert_eq!(from_root("    use super::super::arena;", 2), "    use super::super::arena;");
    assert_eq!(from_root("    super::super::monitor::start()", 2), "    crate::monitor::start()");
}
