//! The reports on disk, read as any other program would read them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

use super::causes::{Blame, Cause, Thread};

/// The reports made since this was created.
pub(super) struct Evidence {
    folder: PathBuf,
    earlier: HashSet<OsString>,
}

/// What a report says about a cause.
pub(super) struct Finding {
    pub(super) verdict: String,
    pub(super) function: String,
    /// `file:line`.
    pub(super) place: String,
    /// Whether all of it is right.
    pub(super) right: bool,
}

impl Evidence {
    pub(super) fn collect(folder: &Path) -> io::Result<Self> {
        let earlier = names(folder)?.collect();
        Ok(Self { folder: folder.into(), earlier })
    }

    /// Returns the best finding of any report about this visit, or `None` if no report is about it.
    pub(super) fn finding(&self, cause: &Cause, visit: usize) -> io::Result<Option<Finding>> {
        let mut best = None;
        for report in self.reports()? {
            if about(&report, cause.path, visit) {
                let finding = judge(&report, cause);
                if finding.right {
                    return Ok(Some(finding));
                }
                best = Some(finding);
            }
        }
        Ok(best)
    }

    /// Returns the addresses of reported requests that aren't slow pages.
    pub(super) fn reports_of_fast_pages(&self) -> io::Result<Vec<String>> {
        let reports = self.reports()?;
        let uris = reports.iter().filter_map(|report| report["request"]["uri"].as_str());
        Ok(uris.filter(|uri| !uri.starts_with("/slow/")).map(str::to_owned).collect())
    }

    /// A file that cannot be read or parsed counts as missing, because it may have just been removed or replaced.
    fn reports(&self) -> io::Result<Vec<Value>> {
        let new = names(&self.folder)?.filter(|name| !self.earlier.contains(name));
        let texts = new.filter_map(|name| fs::read(self.folder.join(name)).ok());
        Ok(texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect())
    }
}

fn names(folder: &Path) -> io::Result<impl Iterator<Item = OsString>> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
    Ok(names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "json")))
}

fn about(report: &Value, path: &str, visit: usize) -> bool {
    let uri = report["request"]["uri"].as_str().unwrap_or_default();
    let number = format!("tour={visit}");
    uri.split_once('?').is_some_and(|(at, query)| at == path && query.split('&').any(|pair| pair == number))
}

fn judge(report: &Value, cause: &Cause) -> Finding {
    let thread = &report["thread"];
    let syscall = thread["syscall"].as_str();
    let on_cpu = thread["on_cpu"].as_bool() == Some(true);
    let thread_right = match cause.thread {
        Thread::Anything => true,
        Thread::OnCpu => on_cpu,
        Thread::InSystemCall(name) => syscall == Some(name),
    };
    let sentence = report["sentence"].as_str().unwrap_or_default();
    let verdict = report["verdict"].as_str().unwrap_or("no verdict");
    let guilty = frames(report, cause.blame).find(|frame| name(frame) == cause.function);
    // If the guilty one is missing, the report's own location says more than nothing.
    let frame = guilty.unwrap_or(&report["location"]);
    Finding {
        verdict: match (verdict, syscall) {
            ("blocking", _) if on_cpu => "blocking, on CPU".to_owned(),
            ("blocking", Some(call)) => format!("blocking, in {call}"),
            _ => verdict.replace('_', " "),
        },
        function: name(frame).to_owned(),
        place: match (frame["file"].as_str(), frame["line"].as_u64()) {
            (Some(file), Some(line)) => format!("{}:{line}", from_here(file)),
            _ => "?".to_owned(),
        },
        right: (verdict == cause.verdict || cause.or == Some(verdict))
            && guilty.is_some()
            && thread_right
            && sentence.contains(cause.says),
    }
}

fn frames(report: &Value, blame: Blame) -> Box<dyn Iterator<Item = &Value> + '_> {
    match blame {
        Blame::Location => Box::new(std::iter::once(&report["location"])),
        Blame::Stack(kind) => {
            let stacks = report["stacks"].as_array().into_iter().flatten();
            let of_kind = stacks.filter(move |stack| stack["kind"] == kind);
            let numbers = of_kind.flat_map(|stack| stack["frames"].as_array().into_iter().flatten());
            Box::new(numbers.filter_map(|number| report["frames"].get(usize::try_from(number.as_u64()?).ok()?)))
        }
    }
}

/// Returns the last part of a frame's function: `fetch_geocode` for `photos::slow::waiting::fetch_geocode`.
fn name(frame: &Value) -> &str {
    let function = frame["function"].as_str().unwrap_or("?");
    function.rsplit("::").next().unwrap_or(function)
}

/// Returns a path relative to the current directory, if it is below it.
fn from_here(file: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    Path::new(file).strip_prefix(here).map_or_else(|_| file.to_owned(), |file| file.display().to_string())
}
