//! The public surface, one line per item, beside `docs/public-api.txt`. `.ci/public-api` runs this with rustdoc's JSON of the crate,
//! and `UPDATE=1 .ci/public-api` writes the file anew. Without `HEELER_RUSTDOC_JSON` there is nothing to compare.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use serde_json::Value;

/// A file of the source, relative to the root of the crate.
fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
}

/// The code of an item as it was written, in one line, without its body.
fn code(item: &Value, stops: &[char]) -> Option<String> {
    let span = item.get("span").filter(|span| !span.is_null())?;
    let at = |end: &str, index: usize| usize::try_from(span[end][index].as_u64()?).ok();
    let text = read(span["filename"].as_str()?);
    let (first, last) = (at("begin", 0)?, at("end", 0)?);
    let lines = text.lines().skip(first.checked_sub(1)?).take(last.checked_sub(first)? + 1);
    let mut lines: Vec<&str> = lines.collect();
    // The end first: the beginning may be in the same line.
    let end = lines.pop()?;
    lines.push(end.get(..at("end", 1)?.checked_sub(1)?)?);
    lines[0] = lines[0].get(at("begin", 1)?.checked_sub(1)?..)?;
    let code = lines.into_iter().map(|line| line.split(" //").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let code = code.split(stops).next()?.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(code.trim_end_matches(',').to_owned())
}

/// The surface of a crate, found from its root on: the shortest path of each item comes first.
struct Surface<'a> {
    index: &'a Value,
    lines: BTreeSet<String>,
    paths: BTreeMap<u64, String>,
    queue: VecDeque<(u64, String)>,
}

impl Surface<'_> {
    fn enqueue(&mut self, ids: &Value, path: &str) {
        for id in ids.as_array().into_iter().flatten().filter_map(Value::as_u64) {
            let item = &self.index[id.to_string()];
            match (item["inner"].get("use"), item["name"].as_str()) {
                (Some(re_export), _) => {
                    let (target, name) = (re_export["id"].as_u64(), re_export["name"].as_str().unwrap_or_default());
                    let name = format!("{path}::{name}");
                    match target.filter(|target| self.index.get(target.to_string()).is_some()) {
                        Some(target) => self.queue.push_back((target, name)),
                        None => drop(self.lines.insert(format!("{name} = {}", re_export["source"]))),
                    }
                }
                (None, Some(name)) => self.queue.push_back((id, format!("{path}::{name}"))),
                (None, None) => {}
            }
        }
    }

    /// Implementations that were written or derived: what the compiler and blanket implementations add is no line.
    fn implementations(&mut self, ids: &Value, path: &str) {
        for id in ids.as_array().into_iter().flatten() {
            let item = &self.index[id.to_string()];
            let found = &item["inner"]["impl"];
            let of_others = found["blanket_impl"].is_object() || item["span"].is_null();
            if found.is_null() || of_others || found["is_synthetic"] == true {
                continue;
            }
            if found["trait"].is_null() {
                self.enqueue(&found["items"], path);
                continue;
            }
            let name = found["trait"]["path"].as_str().unwrap_or_default();
            if name == "StructuralPartialEq" {
                continue;
            }
            let derived = || format!("impl {name} (derived)");
            let written = code(item, &['{']).filter(|code| code.starts_with("impl") || code.starts_with("unsafe"));
            self.lines.insert(format!("{path}: {}", written.unwrap_or_else(derived)));
        }
    }

    fn visit(&mut self, id: u64, path: &str) {
        if let Some(known) = self.paths.get(&id) {
            self.lines.insert(format!("{path} = {known}"));
            return;
        }
        self.paths.insert(id, path.to_owned());
        let item = &self.index[id.to_string()];
        let Some((kind, inner)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else { return };
        let stops: &[char] = match kind.as_str() {
            "module" => &[],
            "struct" | "variant" => &['{', '(', ';'],
            "enum" | "function" | "trait" | "union" => &['{', ';'],
            _ => &[';'],
        };
        let name = item["name"].as_str().unwrap_or_default();
        let code = code(item, stops).filter(|code| kind == "struct_field" || kind != "module" && code.contains(name));
        self.lines.insert(format!("{path}: {}", code.unwrap_or_else(|| kind.clone())));
        let parts = ["items", "variants"].map(|part| &inner[part]);
        let kinds = ["plain", "struct"].map(|kind| &inner["kind"][kind]["fields"]);
        for ids in parts.into_iter().chain(kinds).chain([&inner["kind"]["tuple"]]) {
            self.enqueue(ids, path);
        }
        for ids in [&inner["impls"], &inner["implementations"]] {
            self.implementations(ids, path);
        }
    }
}

#[test]
fn the_public_surface_is_the_one_on_file() {
    let Some(json) = std::env::var_os("HEELER_RUSTDOC_JSON") else { return };
    let json = std::fs::read_to_string(json).expect("rustdoc's JSON");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let root = json["root"].as_u64().expect("a root");
    let queue = VecDeque::from([(root, "heeler".to_owned())]);
    let mut surface = Surface { index: &json["index"], lines: BTreeSet::new(), paths: BTreeMap::new(), queue };
    while let Some((id, path)) = surface.queue.pop_front() {
        surface.visit(id, &path);
    }
    let (lines, file) = (surface.lines, "docs/public-api.txt");
    if std::env::var_os("UPDATE").is_some() {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), text).expect("the file is written");
        return;
    }
    let on_file = read(file);
    let on_file: BTreeSet<String> = on_file.lines().map(str::to_owned).collect();
    let gone = on_file.difference(&lines).map(|line| format!("- {line}\n"));
    let new = lines.difference(&on_file).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "the public surface differs from {file}; `UPDATE=1 .ci/public-api` writes it anew:\n{changes}"
    );
}
