//! Dumps for many who look at the same time.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::capture::{PerProcess, sys};
use crate::log::log_safely;
use crate::report::{Dump, blocking_dump, cheap_dump};
use crate::sync::lock_std;

/// How old a dump may be that is shown.
const CURRENT: Duration = Duration::from_millis(900);

/// At most this many answers are made at a time.
const MAX_ASKING: usize = 64;

/// How much a dump looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What can be known every second.
    Cheap,
    /// All of it.
    Whole,
}

#[derive(Default)]
struct Kept {
    cheap: Mutex<Option<One>>,
    whole: Mutex<Option<One>>,
    /// Whether a thread will forget them.
    has_thread: Mutex<bool>,
    /// How many threads make answers.
    asking: AtomicUsize,
}

/// A dump, with its forms once somebody has asked for them: of very much work they are large, and all who ask share them.
pub(super) struct Shared {
    dump: Dump,
    text: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    svg: OnceLock<Bytes>,
}

impl Shared {
    const fn new(dump: Dump) -> Self {
        Self { dump, text: OnceLock::new(), json: OnceLock::new(), svg: OnceLock::new() }
    }

    pub(super) fn text(&self) -> Bytes {
        self.text.get_or_init(|| self.dump.to_string().into()).clone()
    }

    pub(super) fn json(&self) -> Bytes {
        self.json.get_or_init(|| self.dump.to_json().into()).clone()
    }

    pub(super) fn svg(&self) -> Bytes {
        self.svg.get_or_init(|| self.dump.to_svg().into()).clone()
    }
}

impl Deref for Shared {
    type Target = Dump;

    fn deref(&self) -> &Dump {
        &self.dump
    }
}

/// A dump that is kept.
#[derive(Clone)]
struct One {
    began: Instant,
    taken: Instant,
    dump: Arc<Shared>,
}

impl One {
    fn is_current(&self) -> bool {
        self.taken.elapsed() < CURRENT
    }

    /// Returns whether it answers a question that was put at that time: about the work with that id, if about one.
    fn serves(&self, asked: Instant, id: Option<&str>) -> bool {
        self.is_current() && id.is_none_or(|id| self.began >= asked || has(&self.dump, id))
    }
}

static KEPT: PerProcess<Kept> = PerProcess::new(Kept::default);

/// Returns a dump that is less than a second old. Takes one if there is none, and lets others wait for that.
///
/// With `id`, the dump has the work with that id, or was begun after this call and has not, whatever its depth: work that began
/// a moment ago is in flight, too.
pub(super) fn blocking(depth: Depth, id: Option<&str>) -> Arc<Shared> {
    answering(Instant::now(), depth, id).dump
}

fn answering(asked: Instant, depth: Depth, id: Option<&str>) -> One {
    let kept = KEPT.get();
    let (place, take): (_, fn() -> Dump) = match depth {
        Depth::Cheap => (&kept.cheap, cheap_dump),
        Depth::Whole => (&kept.whole, blocking_dump),
    };
    let mut place = lock_std(place);
    if let Some(one) = place.as_ref().filter(|one| one.serves(asked, id)) {
        return one.clone();
    }
    if let (Depth::Whole, Some(id)) = (depth, id) {
        // Looking for work that is over, again and again, must not cost much.
        let cheap = answering(asked, Depth::Cheap, Some(id));
        if !has(&cheap.dump, id) {
            return cheap;
        }
        // It has ended since, if a later look does not have it.
        if let Some(later) = place.as_ref().filter(|one| one.began > cheap.taken && one.is_current()) {
            return later.clone();
        }
    }
    let (began, dump) = (Instant::now(), Arc::new(Shared::new(take())));
    let one = One { began, taken: Instant::now(), dump };
    *place = Some(one.clone());
    forget_later();
    one
}

fn has(dump: &Dump, id: &str) -> bool {
    dump.work.iter().any(|work| work.id == id)
}

/// Forgets dumps that nobody looks at any more: one of 100,000 pieces of work is large.
fn forget_later() {
    let mut has_thread = lock_std(&KEPT.get().has_thread);
    if !*has_thread {
        // Without the thread, the last dump stays.
        *has_thread = std::thread::Builder::new().name("heeler-console".into()).spawn(forget).is_ok();
    }
}

fn forget() {
    sys::block_signals();
    let kept = KEPT.get();
    loop {
        std::thread::sleep(2 * CURRENT);
        let mut has_thread = lock_std(&kept.has_thread);
        let is_empty = [&kept.cheap, &kept.whole].map(|place| {
            // One that is being taken is news.
            place.try_lock().is_ok_and(|mut place| {
                place.take_if(|one| one.taken.elapsed() > 2 * CURRENT);
                place.is_none()
            })
        });
        if is_empty == [true; 2] {
            *has_thread = false;
            return;
        }
    }
}

/// Makes an answer of a dump, about the work with that id if there is one, on a thread of its own: the surrounding runtime may
/// be of any kind, and all that it needs is slow. Returns `None` if too many ask.
pub(super) async fn answer_of<A, F>(depth: Depth, id: Option<String>, make: F) -> Option<A>
where
    A: Send + 'static,
    F: FnOnce(&Shared) -> A + Send + 'static,
{
    let place = Place::take()?;
    let (done, made) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name("heeler-console".into()).spawn(move || {
        sys::block_signals();
        // The caller may have given up.
        let _ = done.send(make(&blocking(depth, id.as_deref())));
        drop(place);
    });
    if let Err(error) = started {
        log_safely(|| tracing::error!(target: "heeler", %error, "the console has no thread for an answer"));
        return None;
    }
    made.await.ok()
}

/// One of the threads that make answers.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let asking = &KEPT.get().asking;
        // Dropped, and counted back, if it is one too many.
        let (before, place) = (asking.fetch_add(1, Ordering::Relaxed), Self);
        (before < MAX_ASKING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        KEPT.get().asking.fetch_sub(1, Ordering::Relaxed);
    }
}
