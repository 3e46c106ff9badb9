//! News of the table: one thread renders it once a second for all who look.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::page;
use super::query::Filter;
use super::snapshots::{self, Depth};
use crate::capture::{PerProcess, sys};
use crate::report::is_shutting_down;
use crate::sync::lock_std;

/// The time between two events.
const PERIOD: Duration = Duration::from_secs(1);
/// A stream ends after this, so that it never keeps a shutdown waiting for longer, and at once if the application has
/// [said](crate::shutdown) that it shuts down. A browser asks again after [`RETRY`].
const LONGEST: Duration = Duration::from_secs(30);
/// What a browser is told to wait before it asks again, in milliseconds. By itself it would wait for some seconds.
const RETRY: u32 = 250;
/// The whole stream of somebody who asks while the application shuts down: to ask again in three seconds.
const WHILE_SHUTTING_DOWN: &[u8] = b"retry: 3000\n\n";
/// More who look at the same time are refused.
const MAX_STREAMS: usize = 1_000;

struct Stream {
    filter: Filter,
    since: Instant,
    events: mpsc::Sender<Bytes>,
}

#[derive(Default)]
struct Streams {
    all: Vec<Stream>,
    has_thread: bool,
}

static STREAMS: PerProcess<Mutex<Streams>> = PerProcess::new(Mutex::default);

/// Returns a stream of events, or `None` if there are too many, or no thread can be started.
pub(super) fn open(filter: Filter) -> Option<mpsc::Receiver<Bytes>> {
    // A client that does not read loses events: the next one has all of it.
    let (events, received) = mpsc::channel(1);
    if is_shutting_down() {
        // After an error a browser would never ask again, nor find the process that comes next.
        let _ = events.try_send(Bytes::from_static(WHILE_SHUTTING_DOWN));
        return Some(received);
    }
    let mut streams = lock_std(STREAMS.get());
    if streams.all.len() >= MAX_STREAMS {
        return None;
    }
    if !streams.has_thread {
        let thread = std::thread::Builder::new().name("heeler-console".into());
        thread.spawn(run).ok()?;
        streams.has_thread = true;
    }
    streams.all.push(Stream { filter, since: Instant::now(), events });
    Some(received)
}

/// Runs while there are streams.
fn run() {
    sys::block_signals();
    loop {
        std::thread::sleep(PERIOD);
        let filters: Vec<Filter> = {
            let mut streams = lock_std(STREAMS.get());
            let is_over = is_shutting_down();
            streams.all.retain(|stream| !is_over && !stream.events.is_closed() && stream.since.elapsed() < LONGEST);
            if streams.all.is_empty() {
                streams.has_thread = false;
                return;
            }
            streams.all.iter().map(|stream| stream.filter.clone()).collect()
        };
        let dump = snapshots::blocking(Depth::Cheap, None);
        let mut events: HashMap<Filter, Bytes> = HashMap::new();
        for filter in filters {
            events.entry(filter).or_insert_with_key(|filter| event(&page::table(&dump, filter)));
        }
        lock_std(STREAMS.get()).all.retain(|stream| {
            let Some(event) = events.get(&stream.filter) else { return true };
            !matches!(stream.events.try_send(event.clone()), Err(TrySendError::Closed(_)))
        });
    }
}

/// Returns markup as a server-sent event.
fn event(markup: &str) -> Bytes {
    let mut text = String::with_capacity(markup.len() + markup.len() / 16 + 16);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "retry: {RETRY}");
    for line in markup.lines() {
        let _ = writeln!(text, "data: {line}");
    }
    text.push('\n');
    Bytes::from(text)
}
