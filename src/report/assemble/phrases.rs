//! The table of what waits in libraries are for: `phrases.txt`, as data.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::capture::{Frame, PerProcess, dependency_module};

/// How many of the innermost frames are compared with the table. The library's part of a stack is rarely longer than a
/// hundred.
const MAX_FRAMES: usize = 256;

static TABLE: PerProcess<Table> = PerProcess::new(|| Table::parse(include_str!("phrases.txt")));

/// What a stack waits for, as far as the table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Awaited {
    /// The section, then the place within it. The first says the most.
    section: usize,
    order: usize,
    pub(in crate::report) phrase: &'static str,
    /// Which of the frames says so.
    pub(in crate::report) frame: usize,
}

impl Awaited {
    /// Returns how much it says: the least says the most.
    pub(in crate::report) const fn rank(self) -> (usize, usize) {
        (self.section, self.order)
    }

    /// Returns whether it is the end of other work, which may be able to say more.
    pub(in crate::report) fn is_task(self) -> bool {
        self.phrase == "another task"
    }
}

#[derive(Debug, Default)]
struct Table {
    /// The patterns by the crate that they begin with.
    by_crate: HashMap<&'static str, Vec<Pattern>>,
}

#[derive(Debug)]
struct Pattern {
    path: &'static str,
    /// What must be further in.
    inner: Option<&'static str>,
    awaited: Awaited,
}

impl Table {
    /// Reads the table. A line that isn't understood is left out; a test finds it.
    fn parse(text: &'static str) -> Self {
        let mut table = Self::default();
        let (mut section, mut order, mut phrase) = (0, 0, "");
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                section += 1;
            } else if let Some(pattern) = line.strip_prefix("    ") {
                let (path, inner) = match pattern.split_once(" > ") {
                    Some((path, inner)) => (path, Some(inner)),
                    None => (pattern, None),
                };
                let awaited = Awaited { section, order, phrase, frame: 0 };
                let of_crate = path.split("::").next().unwrap_or_default();
                table.by_crate.entry(of_crate).or_default().push(Pattern { path, inner, awaited });
            } else {
                phrase = line;
                order += 1;
            }
        }
        table
    }
}

/// Returns what library frames, innermost first, wait for.
pub(in crate::report) fn awaited(frames: &[Frame]) -> Option<Awaited> {
    let frames = &frames[..frames.len().min(MAX_FRAMES)];
    let paths: Vec<Option<Cow<'_, str>>> = frames.iter().map(path_of).collect();
    let mut best: Option<Awaited> = None;
    for (at, path) in paths.iter().enumerate() {
        let Some(path) = path else { continue };
        let Some(patterns) = TABLE.settled().by_crate.get(path.split("::").next().unwrap_or_default()) else {
            continue;
        };
        for pattern in patterns {
            let further_in = |inner: &str| paths[..at].iter().flatten().any(|path| is_within(path, inner));
            // Within a section, the innermost counts: it came first.
            let says_more = best.is_none_or(|best| pattern.awaited.section < best.section);
            if says_more && is_within(path, pattern.path) && pattern.inner.is_none_or(further_in) {
                best = Some(Awaited { frame: at, ..pattern.awaited });
            }
        }
    }
    best
}

fn is_within(path: &str, pattern: &str) -> bool {
    path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the path of a frame's function without generic arguments: `tokio::sync::mutex::Mutex::lock`. If it has no
/// name, as an inlined async function without full names, the module that its file stands for.
fn path_of(frame: &Frame) -> Option<Cow<'_, str>> {
    if frame.own {
        return None;
    }
    match frame.function.as_deref() {
        Some(function) => Some(plain(function)),
        None => dependency_module(frame.file.as_deref()?).map(Cow::Owned),
    }
}

/// Drops generic arguments, and the trait of a method. `<tokio::sync::oneshot::Receiver<T> as Future>::poll` is
/// `tokio::sync::oneshot::Receiver::poll`. A method of any type is the trait's: `<T as tokio::io::Read>::read` is
/// `tokio::io::Read::read`.
fn plain(function: &str) -> Cow<'_, str> {
    if !function.contains(['<', '&']) {
        return Cow::Borrowed(function);
    }
    let Some(inner) = function.strip_prefix('<') else { return Cow::Owned(without_arguments(function)) };
    let end = end_of_group(inner);
    let (group, rest) = (&inner[..end], inner.get(end + 1..).unwrap_or_default());
    let (this, of) = split_trait(group);
    let this = this.trim_start_matches(['&', '*', '(', ' ']);
    let this = ["mut ", "dyn "].iter().fold(this, |this, word| this.strip_prefix(word).unwrap_or(this));
    let this = this.trim_start_matches('<');
    // `T` is no path.
    let path = match of {
        Some(of) if !this.contains("::") => of,
        _ => this,
    };
    Cow::Owned(without_arguments(path) + &without_arguments(rest))
}

/// Returns where the group that has just been opened ends.
fn end_of_group(text: &str) -> usize {
    let (mut depth, mut before) = (0usize, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before == b'-' => {}
            b'>' if depth == 0 => return at,
            b'>' => depth -= 1,
            _ => {}
        }
        before = byte;
    }
    text.len()
}

fn split_trait(group: &str) -> (&str, Option<&str>) {
    let mut from = 0;
    while let Some(at) = group[from..].find(" as ") {
        let at = from + at;
        // Not within generic arguments.
        if group[..at].matches('<').count() <= group[..at].matches('>').count() {
            return (&group[..at], Some(&group[at + 4..]));
        }
        from = at + 4;
    }
    (group, None)
}

fn without_arguments(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('<') {
        plain.push_str(rest[..open].trim_end_matches("::"));
        rest = rest[open + 1..].get(end_of_group(&rest[open + 1..]) + 1..).unwrap_or_default();
    }
    plain.push_str(rest.trim_end_matches('>'));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{library, own};

    fn phrase(frames: &[&str]) -> Option<&'static str> {
        let frames: Vec<Frame> = frames.iter().map(|name| library(name)).collect();
        awaited(&frames).map(|awaited| awaited.phrase)
    }

    /// Guards: no line of the table is left out, and none is there twice.
    #[test]
    fn every_line_of_the_table_is_used() {
        let text = include_str!("phrases.txt");
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let patterns: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("    ")).collect();
        assert_eq!(TABLE.settled().by_crate.values().map(Vec::len).sum::<usize>(), patterns.len());
        let mut once = patterns.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), patterns.len());
        for pattern in patterns {
            let is_path = |path: &str| {
                path.split("::").all(|part| {
                    !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
                })
            };
            assert!(pattern.split(" > ").all(is_path), "{pattern}");
        }
        for phrase in lines.iter().filter(|line| !line.starts_with([' ', '['])) {
            let follows = ["a ", "an ", "the ", "room ", "more ", "another ", "one ", "output "];
            assert!(follows.iter().any(|word| phrase.starts_with(word)), "is waiting for {phrase}");
        }
        for pattern in TABLE.settled().by_crate.values().flatten() {
            assert!(pattern.awaited.section > 0 && !pattern.awaited.phrase.is_empty(), "{pattern:?}");
        }
    }

    #[test]
    fn the_library_that_does_the_work_says_more_than_its_channel() {
        let pool = ["tokio::sync::semaphore::Semaphore::acquire", "sqlx_core::pool::inner::PoolInner<DB>::acquire"];
        assert_eq!(phrase(&pool), Some("a connection of the pool"));
        assert_eq!(phrase(&pool[..1]), Some("a permit"));
        let oneshot = "<tokio::sync::oneshot::Receiver<T> as core::future::future::Future>::poll";
        let request = "<hyper_util::client::legacy::client::ResponseFuture as core::future::future::Future>::poll";
        assert_eq!(phrase(&[oneshot, request]), Some("a response (nothing of it has arrived)"));
        assert_eq!(phrase(&[oneshot]), Some("a message through a oneshot channel"));
        assert_eq!(phrase(&["app_like::sync::wait"]), None);
    }

    /// Guards: a pool that makes a connection is not exhausted.
    #[test]
    fn a_phase_says_more_than_what_it_is_for() {
        let connecting = [
            "sqlx_postgres::connection::stream::PgStream::recv",
            "sqlx_postgres::connection::establish::<impl sqlx_postgres::PgConnection>::establish",
            "sqlx_core::pool::inner::PoolInner<DB>::connect",
            "sqlx_core::pool::inner::PoolInner<DB>::acquire",
        ];
        assert_eq!(phrase(&connecting), Some("a connection to be made"));
        let resolving = ["<hyper_util::client::legacy::connect::dns::GaiFuture as core::future::Future>::poll"];
        let call = "hyper_util::client::legacy::connect::http::HttpConnector<R>::call_async";
        assert_eq!(phrase(&[resolving[0], call]), Some("a name to be resolved"));
        assert_eq!(phrase(&[call]), Some("a connection to be made"));
    }

    #[test]
    fn a_body_is_the_clients_where_a_server_reads_it() {
        let body = "<hyper::body::incoming::Incoming as http_body::Body>::poll_frame";
        let extractor = "<bytes::bytes::Bytes as axum_core::extract::FromRequest<S>>::from_request";
        assert_eq!(phrase(&[body]), Some("more of a body"));
        let axum = "<axum_core::body::Body as http_body::Body>::poll_frame";
        assert_eq!(phrase(&[body, axum, extractor]), Some("the client's body (the client has not sent it)"));
        assert_eq!(
            phrase(&["tokio::sync::mpsc::chan::Rx<T,S>::recv", axum]),
            Some("the next message (the queue is empty)")
        );
        let response = "reqwest::async_impl::response::Response::bytes";
        assert_eq!(phrase(&[body, response]), Some("the rest of a response"));
    }

    #[test]
    fn names_are_compared_without_their_arguments() {
        let table = [
            ("tokio::sync::mutex::Mutex<T>::lock", "tokio::sync::mutex::Mutex::lock"),
            ("<tokio::sync::watch::Receiver<T>>::changed", "tokio::sync::watch::Receiver::changed"),
            ("<&mut a::B<C, D<E>> as f::G<H>>::poll", "a::B::poll"),
            ("<T as a::io::Read>::read", "a::io::Read::read"),
            ("<&T as a::io::Read<U>>::read", "a::io::Read::read"),
            ("a::b::<impl c::D<E> for f::G>::h", "a::b::h"),
            ("a::f::<fn(u8) -> b::C>", "a::f"),
            ("a::b", "a::b"),
            ("<", ""),
            ("a<", "a"),
            ("<a<<b", "a"),
            (">>>", ">>>"),
        ];
        for (name, expected) in table {
            assert_eq!(plain(name), expected, "{name}");
        }
    }

    /// Guards: with line tables only, an inlined async function has no name, but a file.
    #[test]
    fn a_file_stands_for_its_module() {
        let mut frame = library("tokio::x");
        frame.function = None;
        frame.file = Some("/r/registry/src/mirror-0123456789abcdef/tokio-1.54.1/src/sync/mutex.rs".to_owned());
        assert_eq!(awaited(&[frame.clone()]).unwrap().phrase, "a lock");
        frame.file = Some("/r/registry/src/mirror-0123456789abcdef/async-lock-3.5.0/src/rwlock/raw.rs".to_owned());
        assert_eq!(awaited(&[frame.clone()]).unwrap().phrase, "a lock");
        frame.file = Some("/app/src/sync/mutex.rs".to_owned());
        assert_eq!(awaited(&[frame]), None);
        assert_eq!(awaited(&[own("tokio::sync::mutex::Mutex::lock", 1)]), None, "the application's own");
    }
}
