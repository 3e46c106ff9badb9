//! The low half of a row's state: flags about its work. The high half is its generation.

/// Somebody owns the row.
pub(crate) const LIVE: u32 = 1;
/// Past an eighth of its threshold: every poll is traced.
pub(crate) const ARMED: u32 = 1 << 1;
/// The monitor is waiting for the next traced poll.
pub(crate) const WANTED: u32 = 1 << 2;
/// It has child rows, or has had.
pub(crate) const PARENT: u32 = 1 << 3;
/// A layer that shares the row also wants the response body watched.
pub(crate) const WATCH_BODY: u32 = 1 << 4;
/// It is a response body now.
pub(crate) const BODY: u32 = 1 << 5;
/// A request, as opposed to a job or a child: layers further in join it.
pub(crate) const REQUEST: u32 = 1 << 6;
/// Its thread may block for any time, because it runs in `spawn_blocking`.
pub(crate) const MAY_BLOCK: u32 = 1 << 7;
/// A report about it has been made.
pub(crate) const REPORTED: u32 = 1 << 8;
/// It is a child row.
pub(crate) const CHILD: u32 = 1 << 9;
/// The monitor has its deadline.
pub(crate) const QUEUED: u32 = 1 << 10;
/// A timebox: its threshold is a limit.
pub(crate) const BOX: u32 = 1 << 11;
/// The limit has passed.
pub(crate) const EXPIRED: u32 = 1 << 12;
/// The grace after the limit has passed, too.
pub(crate) const OVER: u32 = 1 << 13;
/// A box that this work was handed on in has expired.
pub(crate) const INHERITED: u32 = 1 << 14;
/// The work was handed on within a box.
pub(crate) const INHERITOR: u32 = 1 << 15;
/// The work has been told that its time is up, by a checkpoint.
pub(crate) const TOLD: u32 = 1 << 16;
/// The time is up with any of these.
pub(crate) const UP: u32 = EXPIRED | INHERITED;
/// A poll is traced with any of these.
pub(crate) const TRACED: u32 = ARMED | WANTED | EXPIRED;
/// Somebody waits to be told.
pub(crate) const AWAITED: u32 = 1 << 17;
/// Its request is profiled. Other limits and thresholds don't apply.
pub(crate) const PROFILED: u32 = 1 << 18;
/// A report about it has been made, which its end will be added to.
pub(crate) const FOLLOWED: u32 = 1 << 20;
/// Replaces [`LIVE`] when the work is over but the row's waker has clones.
pub(crate) const DRAINS: u32 = 1 << 19;
/// An eighth of the limit has passed that a box shares this row with: it needs a row of its own.
pub(crate) const BOX_DUE: u32 = 1 << 21;
/// That limit has passed, and a report says that the work goes on.
pub(crate) const BOX_REPORTED: u32 = 1 << 22;
/// A request to heeler itself. No dump lists it.
pub(crate) const UNLISTED: u32 = 1 << 23;
