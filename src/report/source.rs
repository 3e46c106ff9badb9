//! The text of source lines, where the files are at hand: on a developer's machine, not usually in production.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use super::escape::escape;
use super::model::Stack;

/// Longer files are generated code.
const MAX_FILE: u64 = 4 << 20;

/// How many files one report reads.
const MAX_FILES: usize = 32;

/// How much of a line is quoted, in characters.
const MAX_LINE: usize = 160;

/// Fills in the `source` of the application's own frames.
///
/// Files are read anew for each report that goes out: the throttle keeps those few, and a file may have changed. One that
/// changed after the executable was built is not quoted, for its lines may be others by now.
pub(crate) fn quote(stacks: &mut [Stack]) {
    static BUILT: LazyLock<Option<SystemTime>> =
        LazyLock::new(|| fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok());
    quote_as_of(stacks, *BUILT);
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
        let line = text.and_then(|text| text.lines().nth(line.checked_sub(1)? as usize)).map(str::trim);
        frame.source = line.filter(|line| !line.is_empty()).map(cut);
    }
}

fn cut(line: &str) -> String {
    let end = line.char_indices().nth(MAX_LINE).map(|(at, _)| at);
    let mut text = escape(&line[..end.unwrap_or(line.len())], MAX_LINE).into_owned();
    if end.is_some() {
        text.push('…');
    }
    text
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
    use super::super::testing::{await_stack, own, plumbing};
    use super::*;

    fn quoted(file: &str, line: Option<u32>, built: Option<SystemTime>) -> Option<String> {
        let mut frame = own("app::load", 1);
        frame.file = Some(file.to_owned());
        frame.line = line;
        let mut stacks = [await_stack(&[frame])];
        quote_as_of(&mut stacks, built);
        stacks[0].frames[0].source.clone()
    }

    #[test]
    fn quotes_the_line() {
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

    /// Guards: paths relative to the workspace, as cargo records them.
    #[test]
    fn quotes_own_frames_only() {
        let here = "src/report/source.rs";
        assert!(quoted(here, Some(1), None).unwrap().starts_with("//! The text of source lines"));
        let mut frame = plumbing("tokio::x");
        frame.file = Some(here.to_owned());
        let mut stacks = [await_stack(&[frame])];
        quote_as_of(&mut stacks, None);
        assert_eq!(stacks[0].frames[0].source, None);
    }
}
