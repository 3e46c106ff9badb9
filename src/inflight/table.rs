//! The rows' memory: chunks that are allocated as needed and never given back, and the lists of free rows.
//!
//! A thread keeps some free rows for itself, so that beginning and ending a request touches nothing that another worker
//! touches. Threads exchange rows 32 at a time through one locked list.

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::row::PROCESS_SHIFT;
use super::{Row, flags};
use crate::capture::RowId;
use crate::capture::{MAX_PROCESSES, PerProcess, process_number};
use crate::counts::Pieces;
use crate::disabled::is_disabled;

/// Rows allocated at once. They take 64 KiB, which costs one request some ten microseconds, and is small enough for the
/// allocator not to spend a page on each.
const CHUNK: usize = 256;
/// Four million rows. A request beyond them runs unwatched and is counted.
const CHUNKS: usize = 16_384;
/// How many rows move at once between a thread's list and the common one.
const BATCH: usize = 32;

/// All rows of the process.
#[derive(Debug)]
pub(crate) struct Table {
    /// The number of the first row.
    first: u32,
    chunks: Box<[OnceLock<Box<[Row]>>]>,
    /// How many rows have ever been handed out.
    used: AtomicU32,
    free: Mutex<Vec<&'static Row>>,
    unwatched: AtomicU64,
}

/// The result of a look at all rows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The sum of all generations, modulo 2^32.
    pub(crate) generations: u32,
    pub(crate) live: Pieces,
    /// Boxes that share the row of a request.
    pub(crate) shared_boxes: u64,
    /// Live requests and jobs whose polls are traced.
    pub(crate) armed: u64,
}

static TABLE: PerProcess<Table> = PerProcess::new(Table::new);

/// Returns the process's table.
#[inline]
pub(crate) fn table() -> &'static Table {
    TABLE.get()
}

/// Returns the row with that name, in this process or in one of its ancestors.
pub(super) fn row_for_waker(id: RowId) -> Option<&'static Row> {
    let process = id.index()? >> PROCESS_SHIFT;
    if process == process_number() { table().row(id) } else { TABLE.of(process)?.row(id) }
}

/// A thread's own free rows. They go back when the thread ends.
struct Spare(RefCell<Vec<&'static Row>>);

impl Drop for Spare {
    fn drop(&mut self) {
        OPEN.set(false);
        let mut rows = self.0.borrow_mut();
        rows.extend(NEXT.take());
        // A parent's rows stay where they are.
        rows.retain(|row| row.process() == process_number());
        table().give(&mut rows, 0);
    }
}

thread_local! {
    /// The row that was freed last, which goes to the next request. There are two cells, because a cell without a
    /// destructor costs no check at each access. `NEXT` is empty unless `OPEN`, which is true from the first use of the
    /// list until its destruction.
    static NEXT: Cell<Option<&'static Row>> = const { Cell::new(None) };
    static OPEN: Cell<bool> = const { Cell::new(false) };
    static SPARE: Spare = const { Spare(RefCell::new(Vec::new())) };
}

/// Returns a free row, which the caller owns until it gives it to [`free`], or `None` if there is none left.
#[inline]
pub(crate) fn allocate() -> Option<&'static Row> {
    let row = NEXT.take().or_else(listed)?;
    if row.process() == process_number() { Some(row) } else { after_fork() }
}

#[inline(never)]
fn listed() -> Option<&'static Row> {
    SPARE.try_with(|spare| spare.0.borrow_mut().pop()).ok().flatten().or_else(|| table().refill())
}

/// Continues after a fork. The thread that called `fork` still has the free rows that it had in the parent.
#[cold]
#[inline(never)]
fn after_fork() -> Option<&'static Row> {
    let _ = SPARE.try_with(|spare| spare.0.borrow_mut().clear());
    table().refill()
}

/// Takes back a vacated row.
#[inline]
pub(crate) fn free(row: &'static Row) {
    let row = if OPEN.get() { NEXT.replace(Some(row)) } else { Some(row) };
    if let Some(row) = row {
        to_list(row);
    }
}

#[inline(never)]
fn to_list(row: &'static Row) {
    let kept = SPARE.try_with(|spare| {
        OPEN.set(true);
        let mut spare = spare.0.borrow_mut();
        spare.push(row);
        if spare.len() > 2 * BATCH {
            table().give(&mut spare, BATCH);
        }
    });
    if kept.is_err() {
        table().give(&mut vec![row], 0);
    }
}

impl Table {
    fn new() -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(CHUNKS, OnceLock::new);
        Self {
            first: process_number() << PROCESS_SHIFT,
            chunks: chunks.into(),
            used: AtomicU32::new(0),
            free: Mutex::new(Vec::new()),
            unwatched: AtomicU64::new(0),
        }
    }

    #[cold]
    #[inline(never)]
    fn refill(&'static self) -> Option<&'static Row> {
        // The last process number may be shared by several processes, so it takes no lock of theirs.
        if is_disabled() || process_number() as usize == MAX_PROCESSES {
            return None;
        }
        // This is the first work of a child of `fork`, which has no monitor yet.
        if self.first != 0 {
            super::monitor_link::start();
        }
        let mut batch = {
            let mut free = crate::sync::lock_std(&self.free);
            let keep = free.len().saturating_sub(BATCH);
            free.split_off(keep)
        };
        if batch.is_empty() {
            batch = self.grow();
        }
        let row = batch.pop();
        if row.is_none() {
            self.unwatched.fetch_add(1, Ordering::Relaxed);
        }
        // While the thread's own list is being destroyed, the rest goes back to the common one.
        let kept = SPARE.try_with(|spare| spare.0.borrow_mut().append(&mut batch));
        if kept.is_err() {
            self.give(&mut batch, 0);
        }
        row
    }

    fn grow(&'static self) -> Vec<&'static Row> {
        let first = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            ((used as usize) < CHUNK * CHUNKS).then_some(used + BATCH as u32)
        });
        let Ok(first) = first else { return Vec::new() };
        let chunk = self.chunks[first as usize / CHUNK].get_or_init(|| {
            let start = first as usize / CHUNK * CHUNK;
            (start..start + CHUNK).map(|index| Row::new(self.first | index as u32)).collect()
        });
        let start = first as usize % CHUNK;
        chunk[start..start + BATCH].iter().rev().collect()
    }

    #[cold]
    #[inline(never)]
    fn give(&self, rows: &mut Vec<&'static Row>, keep: usize) {
        crate::sync::lock_std(&self.free).extend(rows.drain(keep..));
    }

    /// Returns the row with that name, live or not. `None` for [`RowId::NONE`], and for a row of another process.
    #[inline]
    pub(crate) fn row(&'static self, id: RowId) -> Option<&'static Row> {
        let index = (id.index()? ^ self.first) as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Returns every row that has ever been handed out, live or not.
    pub(crate) fn rows(&'static self) -> impl Iterator<Item = &'static Row> {
        let used = self.used.load(Ordering::Acquire) as usize;
        let chunks = self.chunks.iter().take(used.div_ceil(CHUNK));
        // A chunk that is being made at this moment has no live row yet.
        chunks.filter_map(OnceLock::get).flat_map(|chunk| chunk.iter())
    }

    /// Looks at every row once. It takes a load and some additions each, some microseconds for each 1,000 rows.
    pub(crate) fn tally(&'static self) -> Tally {
        let mut tally = Tally::default();
        for row in self.rows() {
            let (generation, flags) = row.seen();
            tally.generations = tally.generations.wrapping_add(generation);
            if flags & flags::LIVE == 0 {
                continue;
            }
            let kind = match flags & (flags::CHILD | flags::REQUEST | flags::BOX) {
                flags::REQUEST => &mut tally.live.requests,
                flags::BOX => &mut tally.live.timeboxes,
                // The row that stands for all profiles isn't a piece of work.
                0 if flags & flags::PROFILED != 0 => continue,
                0 => &mut tally.live.jobs,
                _ => &mut tally.live.children,
            };
            *kind += 1;
            tally.shared_boxes += u64::from(row.has_limit());
            tally.armed += u64::from(flags & (flags::ARMED | flags::CHILD | flags::BOX) == flags::ARMED);
        }
        tally
    }

    /// Returns how many pieces of work found no row.
    pub(crate) fn unwatched(&self) -> u64 {
        self.unwatched.load(Ordering::Relaxed)
    }
}
