//! The text of source lines, if the files are available: on a developer's machine, but usually not in production.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::capture::PerProcess;
use crate::report::model::Stack;
use crate::report::privacy::code;

/// Longer files are generated code.
const MAX_FILE: u64 = 4 << 20;

/// How many files one report reads.
const MAX_FILES: usize = 32;

/// How much of a line or a statement is quoted, in characters.
const MAX_LINE: usize = 160;

/// How much of it is searched for secrets, in characters.
const MAX_SEEN: usize = 4096;

/// How many lines are searched for the start of a statement.
const MAX_STATEMENT: usize = 12;

/// Fills in the `source` of the application's own frames.
///
/// Files are read anew for each report that is sent, because the throttle keeps those few, and a file may have changed.
/// A file that changed after the executable was built isn't quoted, because its lines may have moved.
pub(crate) fn quote(stacks: &mut [Stack]) {
    static BUILT: PerProcess<Option<SystemTime>> =
        PerProcess::new(|| fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok());
    quote_as_of(stacks, *BUILT.settled());
}

fn quote_as_of(stacks: &mut [Stack], built: Option<SystemTime>) {
    let mut files: HashMap<String, Option<String>> = HashMap::new();
    for frame in stacks.iter_mut().flat_map(|stack| &mut stack.frames).filter(|frame| frame.own) {
        let (Some(file), Some(line)) = (&frame.file, frame.line) else { continue };
        if !files.contains_key(file) {
            if files.len() == MAX_FILES {
                continue;
            }
            files.insert(file.clone(), read(Path::new(file), built));
        }
        let text = files.get(file).and_then(Option::as_deref);
        frame.source = text.and_then(|text| statement(text, line.checked_sub(1)? as usize));
    }
}

/// Returns the statement at a line, counted from 0. It includes the lines before that it continues, such as a chain of
/// calls that ends in `.await?;`.
fn statement(text: &str, at: usize) -> Option<String> {
    let first = at.saturating_sub(MAX_STATEMENT - 1);
    let lines: Vec<&str> = text.lines().take(at + 1).skip(first).map(str::trim).collect();
    let last = *lines.get(at - first)?;
    // An attribute isn't what runs. The function below it is.
    if last.is_empty() || last.starts_with("#[") {
        return None;
    }
    if !goes_on(last) && !last.starts_with([')', ']']) {
        return Some(cut(last));
    }
    let mut open = 0;
    let mut begins = lines.len();
    for (index, line) in lines.iter().enumerate().rev() {
        begins = index;
        // A bracket that is closed here was opened further up.
        open += unopened(line);
        if open <= 0 && !goes_on(line) {
            break;
        }
    }
    let is_whole = open <= 0 && !goes_on(lines[begins]);
    let mut whole = String::new();
    for line in lines[begins..].iter().filter(|line| !line.starts_with("//")) {
        let together = line.starts_with(['.', '?', ')', ']']) || whole.ends_with(['(', '[']) || whole.is_empty();
        whole.push_str(if together { "" } else { " " });
        whole.push_str(line);
    }
    if !is_whole || whole.chars().nth(MAX_LINE).is_some() {
        // The work is at its end.
        return Some(if begins + 1 == lines.len() { cut(last) } else { cut_front(&whole) });
    }
    Some(cut(&whole))
}

/// Returns whether the line continues an expression.
fn goes_on(line: &str) -> bool {
    let is_range = line.starts_with("..");
    (line.starts_with(['.', '?']) && !is_range) || line.starts_with("//")
}

/// Returns how many more brackets a line closes than it opens, outside of strings and comments.
fn unopened(line: &str) -> i32 {
    let mut closed = 0;
    let mut rest = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' if in_string => drop(rest.next()),
            '"' => in_string = !in_string,
            _ if in_string => {}
            '/' if rest.peek() == Some(&'/') => break,
            // `'('`, not a lifetime.
            '\'' if rest.clone().nth(1) == Some('\'') => drop(rest.nth(1)),
            '(' | '[' | '{' => closed -= 1,
            ')' | ']' | '}' => closed += 1,
            _ => {}
        }
    }
    closed
}

/// Returns the first characters. Cutting comes last, because half of a key wouldn't be recognized.
fn cut(line: &str) -> String {
    let seen = line.char_indices().nth(MAX_SEEN).map_or(line, |(end, _)| &line[..end]);
    let mut text = code(seen, usize::MAX);
    let end = text.char_indices().nth(MAX_LINE).map(|(at, _)| at);
    if end.is_some() || seen.len() < line.len() {
        text.truncate(end.unwrap_or(text.len()));
        text.push('…');
    }
    text
}

/// Returns the last characters.
fn cut_front(line: &str) -> String {
    let seen = line.char_indices().rev().nth(MAX_SEEN).map_or(line, |(begin, _)| &line[begin..]);
    let text = code(seen, usize::MAX);
    let begin = text.char_indices().rev().nth(MAX_LINE - 1).map_or(0, |(at, _)| at);
    format!("…{}", &text[begin..])
}

fn read(path: &Path, built: Option<SystemTime>) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    let changed = built.is_some_and(|built| about.modified().is_ok_and(|modified| modified > built));
    if changed || !about.is_file() || about.len() > MAX_FILE {
        return None;
    }
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{await_stack, library, own};

    fn quoted(file: &str, line: Option<u32>, built: Option<SystemTime>) -> Option<String> {
        let mut frame = own("app::load", 1);
        frame.file = Some(file.to_owned());
        frame.line = line;
        let mut stacks = [await_stack(&[frame])];
        quote_as_of(&mut stacks, built);
        stacks[0].frames[0].source.clone()
    }

    #[test]
    fn quotes_the_source_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.rs");
        fs::write(&path, "one\n    let x = load().await;\t\n\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(quoted(file, Some(2), None).as_deref(), Some("let x = load().await;"));
        fs::write(&path, "ä".repeat(MAX_LINE + 1)).unwrap();
        assert_eq!(quoted(file, Some(1), None).unwrap(), "ä".repeat(MAX_LINE) + "…");
        for nothing in [Some(0), Some(3), Some(99), None] {
            assert_eq!(quoted(file, nothing, None), None);
        }
        assert_eq!(quoted(file, Some(1), Some(SystemTime::UNIX_EPOCH)), None, "changed since the build");
        assert_eq!(quoted(directory.path().to_str().unwrap(), Some(1), None), None);
        assert_eq!(quoted("/dev/zero", Some(1), None), None);
        fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(quoted(file, Some(1), None), None);
    }

    /// Guards: a chain of calls is quoted as a statement, not as its last line.
    #[test]
    fn quotes_the_whole_statement() {
        let of = |text: &str| statement(text, text.lines().count() - 1);
        let chain = "    a();\n    let user = client\n        .get(url)\n        // the cache\n        .send()\n        .await?;\n";
        assert_eq!(of(chain).unwrap(), "let user = client.get(url).send().await?;");
        assert_eq!(of("    load(\n        \"(\", 7,\n    )\n    .await\n").unwrap(), "load(\"(\", 7,).await");
        assert_eq!(
            of("fn f() {\n    match it {\n        1 => 2,\n    }\n    .await\n").unwrap(),
            "match it { 1 => 2, }.await"
        );
        assert_eq!(of("a();\nb().await?;\n").unwrap(), "b().await?;", "a line that is one");
        assert_eq!(of("let range = 1\n..2;\n").unwrap(), "..2;");
        assert_eq!(of("x(')')\n.await;\n").unwrap(), "x(')').await;");
        assert_eq!(of("#[tracing::instrument(skip(pool))]\n"), None, "no attribute");
        let long = format!("let a = b\n{}.await?;\n", "    .or(c)\n".repeat(MAX_STATEMENT));
        assert_eq!(of(&long).unwrap(), format!("…{}.await?;", ".or(c)".repeat(MAX_STATEMENT - 1)), "bounded");
        let wide = format!("let a = \"{}\"\n    .await?;\n", "ä".repeat(MAX_LINE));
        let quoted = of(&wide).unwrap();
        assert!(quoted.starts_with("…ä") && quoted.ends_with("ä\".await?;"), "{quoted}");
        assert_eq!(quoted.chars().count(), MAX_LINE + 1);
        assert_eq!(of("fn f() {\n    a();\n}\n").unwrap(), "}", "the end of a block");
        for hostile in [")))\n", ".\n", "}\n", "?\n", "\"\n", "'(\n"] {
            assert!(of(hostile).is_some(), "{hostile}");
        }
    }

    /// Guards: if a key is cut at either end of a quote, no part of it is shown. Part of a key might not be recognized.
    #[test]
    fn keys_are_not_cut_in_two() {
        let key = "ghp_q7W3tZ9kLmN4pR8sV2xY6bC1dF5gH0jK7qA3";
        let of = |text: &str| statement(text, text.lines().count() - 1).unwrap();
        for pad in (0..MAX_LINE).map(|pad| "ä".repeat(pad)) {
            let line = of(&format!("let x = \"{pad} {key} {pad}\";\n"));
            let chain = of(&format!("let x = \"{pad} {key} {pad}\"\n    .await?;\n"));
            for quoted in [line, chain] {
                let half = key.as_bytes().windows(8).any(|part| quoted.contains(str::from_utf8(part).unwrap()));
                assert!(!half && quoted.chars().count() <= MAX_LINE + 1, "{quoted}");
            }
        }
        let line = of(&format!("let x = \"{}\";\n", "a".repeat(2 * MAX_SEEN)));
        assert!(line.starts_with("let x = \"aaa") && line.ends_with("aaa…"), "{line}");
    }

    /// Guards: paths are relative to the workspace, as cargo records them.
    #[test]
    fn quotes_own_frames_only() {
        let here = "src/report/assemble/source.rs";
        assert!(quoted(here, Some(1), None).unwrap().starts_with("//! The text of source lines"));
        let mut frame = library("tokio::x");
        frame.file = Some(here.to_owned());
        let mut stacks = [await_stack(&[frame])];
        quote_as_of(&mut stacks, None);
        assert_eq!(stacks[0].frames[0].source, None);
    }
}
