//! The table of running work. It has a row for each request, job or child, and each thread knows the row that it polls.
//!
//! A worker writes a row with a few plain atomic stores per poll. Everything that may be slow is left to the monitor.

mod audience;
pub(crate) mod budget;
mod clones;
mod current;
mod ending;
pub(crate) mod executors;
pub(crate) mod flags;
mod giving_way;
mod inside;
mod join;
mod lending;
mod monitor_link;
#[cfg(feature = "otel")]
mod otel;
mod policy;
mod poll;
mod registered;
mod row;
mod scope;
mod shared_limit;

pub(crate) mod layer_order;
pub(crate) mod recording;
pub(crate) mod resources;
#[cfg(all(test, heeler_loom))]
mod row_loom;
#[cfg(feature = "spans")]
pub(crate) mod spans;
mod subject;
mod table;
mod target;
mod trace;
pub(crate) mod waiters;
pub(crate) mod waking;

pub use current::{Current, current};
pub use ending::Ended;
pub use resources::{Resource, ResourceId, Usage};

pub(crate) use audience::Audience;
pub(crate) use ending::InsteadOfResponse;
pub(crate) use inside::Inside;
pub(crate) use join::{child, current_row, is_in_request, join, origin, root, work_of};
pub(crate) use monitor_link::{MonitorLink, initial_flags, install as install_monitor, set_initial_flags};
#[cfg(all(feature = "otel", feature = "profile"))]
pub(crate) use otel::current_ids as current_trace_ids;
#[cfg(feature = "otel")]
pub(crate) use otel::{ids as ids_of_span, span_of};
pub(crate) use policy::{Abandoned, Policy, PolicyId, Settings, Tool, nanos};
pub(crate) use poll::{PollKind, Watched};
pub(crate) use registered::Registered;
pub(crate) use row::{Asked, Details, Row};
#[cfg(feature = "console")]
pub(crate) use scope::step_aside;
pub(crate) use scope::{
    Around, Scope, innermost, is_aside, lift_limits, nearest_deadline, peek as peek_innermost, tell_box,
    walk as walk_boxes,
};
pub(crate) use shared_limit::{RowLimit, SharedLimit, SmallLimit};
pub(crate) use subject::{Child, Head, How, Job, Origin, Request, Subject, Timebox, Work};
pub(crate) use table::{Tally, table};
pub(crate) use target::{ReportTarget, Target};
pub(crate) use trace::{Silence, Stacks, Trace, WaitKind, WaitRecord};
