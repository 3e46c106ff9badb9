//! A dump of all threads of the process: what each does, and where.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::capture::{self, Activity, Frame, PerProcess, Sampler, Snapshot, Symbols, ThreadSlot, Unwinder, slots};
use crate::disabled::is_disabled;
use crate::report::model::words::StackKind;
use crate::report::model::{Stack, Thread};
use crate::report::privacy::Redactor;
use crate::report::render::stack_text;
use crate::sync::lock_std;
use crate::text::escape::escape;
use crate::text::units::count;

/// Threads beyond these are only counted.
const MAX_THREADS: usize = 4_096;
/// How long stacks are taken. Threads that were not reached by then are listed without one.
const PATIENCE: Duration = Duration::from_secs(2);

/// All threads of the process, grouped by where they are: see [`threads`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThreadDump {
    /// The groups, the largest first.
    pub groups: Vec<ThreadGroup>,
    /// How many threads there were.
    pub threads: usize,
    /// How many of them are not in any group, because there were too many.
    pub omitted: usize,
}

/// Threads that do the same at the same place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThreadGroup {
    /// The threads.
    pub threads: Vec<Thread>,
    /// The frames of all of them, innermost first. Empty if their stacks could not be captured.
    pub frames: Vec<Frame>,
    /// Whether frames are missing at the outer end.
    pub truncated: bool,
    /// Why there are no frames, or how sure they are.
    pub note: Option<Cow<'static, str>>,
}

/// Returns what each thread of the process is doing at this moment, and where: its name, its state, its system call and
/// its stack, grouped by stack.
///
/// Threads that sleep are looked at without waking them, whatever they belong to: rayon's, a blocking pool's, an
/// appender's. A thread that runs is signalled, as for a report, if it has polled watched work or called
/// [`register_thread`]. Of any other thread that runs, the dump has only name, state and system call. It is safe to call in production: nothing is stopped, and all of it is
/// bounded. It takes about a tenth of a millisecond per thread, and the time to symbolize, so call it on a thread that
/// may block.
///
/// Stacks are available on Linux, where `/proc` can be read.
///
/// ```
/// let dump = heeler::threads();
/// println!("{dump}");
/// ```
#[must_use]
pub fn threads() -> ThreadDump {
    look_within(PATIENCE).grouped(&mut Unwinder::new(), &mut Symbols::new())
}

/// Threads and their stacks, as they were taken.
pub(in crate::report) struct Looked {
    seen: Vec<Seen>,
    threads: usize,
}

/// Looks at all threads of the process, and takes stacks for that long.
pub(in crate::report) fn look_within(patience: Duration) -> Looked {
    // A thread that owes an answer is known to the sampler that has asked it.
    static SAMPLER: PerProcess<Mutex<Sampler>> = PerProcess::new(|| Mutex::new(Sampler::new(None)));
    let mut sampler = lock_std(SAMPLER.get());
    let (seen, threads) = look_at_all(&mut sampler, true, MAX_THREADS, patience);
    Looked { seen, threads }
}

impl Looked {
    /// Names the stacks, and groups the threads by them.
    pub(in crate::report) fn grouped(self, unwinder: &mut Unwinder, symbols: &mut Symbols) -> ThreadDump {
        let Self { seen, threads } = self;
        ThreadDump { groups: group(seen, unwinder, symbols), threads, omitted: threads.saturating_sub(MAX_THREADS) }
    }
}

/// Looks at the threads of the process, at `most` of them. After `patience`, the rest of them have no stacks. Threads that
/// run have one only if they may be `signalled`. Also returns how many threads there are.
pub(in crate::report) fn look_at_all(
    sampler: &mut Sampler,
    signalled: bool,
    most: usize,
    patience: Duration,
) -> (Vec<Seen>, usize) {
    let began = Instant::now();
    let mut tids = capture::thread_ids();
    let threads = tids.len();
    tids.truncate(most);
    let own = capture::sys::thread_id();
    let by_tid: HashMap<i32, &'static ThreadSlot> =
        slots().into_iter().filter_map(|slot| Some((slot.with_life(|life| life.tid)?, slot))).collect();
    let mut seen: Vec<Seen> = Vec::new();
    for tid in tids {
        let activity = capture::look(tid);
        if activity.state_name().is_none() {
            // It has ended.
            continue;
        }
        let (snapshot, note) = match by_tid.get(&tid) {
            _ if tid == own => (None, Some("it made this dump")),
            _ if began.elapsed() > patience => (None, Some("the time for stacks was used up")),
            slot => stack_of(sampler, &activity, slot.copied().filter(|_| signalled)),
        };
        seen.push(Seen { activity, snapshot, is_known: by_tid.contains_key(&tid), note });
    }
    (seen, threads)
}

/// Makes the calling thread known, so that a report of a starved request can have its stack even if it has never polled
/// watched work. A thread that has polled some is known already. For a runtime's `on_thread_start`:
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread().on_thread_start(heeler::register_thread).build();
/// # runtime.unwrap().shutdown_background();
/// ```
pub fn register_thread() {
    if !is_disabled() {
        ThreadSlot::mine();
    }
}

/// What was seen of one thread.
pub(in crate::report) struct Seen {
    pub(in crate::report) activity: Activity,
    pub(in crate::report) snapshot: Option<Snapshot>,
    /// Whether it has polled watched work.
    pub(in crate::report) is_known: bool,
    note: Option<&'static str>,
}

fn stack_of(
    sampler: &mut Sampler,
    activity: &Activity,
    slot: Option<&'static ThreadSlot>,
) -> (Option<Snapshot>, Option<&'static str>) {
    if let Some((snapshot, certain)) = sampler.look_at(activity) {
        return (Some(snapshot), (!certain).then_some("its inner frames are likely, not certain"));
    }
    if let Some((slot, (_, poll))) = slot.and_then(|slot| Some((slot, slot.polling()?)))
        && let capture::Outcome::Captured(snapshot, _) = sampler.capture(slot, poll)
    {
        return (Some(snapshot), None);
    }
    if let Some((_, Some(snapshot))) = slot.and_then(|slot| sampler.capture_outside(slot)) {
        return (Some(snapshot), None);
    }
    let note = match activity.on_cpu() {
        Some(true) => "it is running, and not in work that heeler watches",
        _ => "its stack could not be read",
    };
    (None, Some(note))
}

/// The addresses of a stack, why there are none, and what else tells threads apart that have none.
type Place = (Vec<String>, Option<&'static str>, Option<String>);

fn group(seen: Vec<Seen>, unwinder: &mut Unwinder, symbols: &mut Symbols) -> Vec<ThreadGroup> {
    let unwound: Vec<_> =
        seen.iter().map(|one| one.snapshot.as_ref().map(|stack| unwinder.unwind_with_tail_calls(stack))).collect();
    let addresses: Vec<_> = unwound.iter().flatten().flat_map(|unwound| unwound.addresses.iter().cloned()).collect();
    symbols.learn(&addresses);
    let mut groups: Vec<ThreadGroup> = Vec::new();
    let mut known: HashMap<Place, usize> = HashMap::new();
    for (one, unwound) in seen.into_iter().zip(unwound) {
        let truncated = unwound.as_ref().is_some_and(|unwound| !unwound.complete);
        let frames = unwound.map(|unwound| symbols.frames(&unwound.addresses)).unwrap_or_default();
        let thread = super::assemble::described_thread(&one.activity);
        // Threads without a stack have nothing in common but what they do.
        let does = frames.is_empty().then(|| format!("{} {:?}", thread.name, thread.syscall));
        let key = (frames.iter().map(|frame| frame.address.clone()).collect(), one.note, does);
        match known.get(&key) {
            Some(&at) => groups[at].threads.push(thread),
            None => {
                known.insert(key, groups.len());
                groups.push(ThreadGroup {
                    threads: vec![thread],
                    frames,
                    truncated,
                    note: one.note.map(Cow::Borrowed),
                });
            }
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.threads.len()));
    groups
}

impl ThreadDump {
    /// Removes from the names of threads what must not be shown.
    pub(in crate::report) fn redact(&mut self, redactor: &Redactor, max: usize) {
        for thread in self.groups.iter_mut().flat_map(|group| &mut group.threads) {
            thread.redact(redactor, max);
        }
    }
}

impl ThreadGroup {
    /// Returns whether these are threads that heeler has started.
    fn is_heelers(&self) -> bool {
        self.threads.iter().all(|thread| thread.name.starts_with("heeler-"))
    }

    /// Returns `512 × tokio-rt-worker: sleeping, in system call futex`.
    pub(crate) fn heading(&self) -> String {
        let mut names: Vec<(&str, usize)> = Vec::new();
        for thread in &self.threads {
            match names.iter_mut().find(|(name, _)| *name == thread.name) {
                Some((_, number)) => *number += 1,
                None => names.push((&thread.name, 1)),
            }
        }
        let name = |(name, number): &(&str, usize)| {
            let name = escape(name, 64);
            if *number == 1 { name.into_owned() } else { format!("{number} x {name}") }
        };
        let names: Vec<String> = names.iter().take(8).map(name).collect();
        let first = &self.threads[0];
        let mut states: Vec<String> = first.state.iter().cloned().collect();
        states.extend(super::render::busy_with(first).filter(|busy| Some(busy) != first.state.as_ref()));
        let id = if self.threads.len() == 1 { format!(" ({})", first.id) } else { String::new() };
        format!("{}{id}: {}", names.join(", "), states.join(", "))
    }
}

/// The groups as text, each with its stack: own code marked, libraries folded.
impl fmt::Display for ThreadDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, in {}", count(self.threads as u64, "thread"), count(self.groups.len() as u64, "group"))?;
        for group in self.groups.iter().filter(|group| !group.is_heelers()) {
            writeln!(f, "\n{}", group.heading())?;
            if let Some(note) = &group.note {
                writeln!(f, "     ({note})")?;
            }
            if !group.frames.is_empty() {
                let stack = Stack {
                    frames: group.frames.clone(),
                    truncated: group.truncated,
                    ..Stack::empty(StackKind::Thread)
                };
                f.write_str(&stack_text(&stack))?;
            }
        }
        let heelers: usize =
            self.groups.iter().filter(|group| group.is_heelers()).map(|group| group.threads.len()).sum();
        if heelers > 0 {
            writeln!(f, "\n… {} of heeler's own", count(heelers as u64, "thread"))?;
        }
        if self.omitted > 0 {
            writeln!(f, "\n… {} more, which were not looked at", self.omitted)?;
        }
        Ok(())
    }
}
