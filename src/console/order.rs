//! Profiles of the next work like one that is in flight.

use http::StatusCode;

use crate::log::log_safely;
use crate::report::rules::orders::{Placed, place_for};
use crate::report::{Dump, DumpKind, DumpWork, Reports};
use crate::text::escape;
use crate::text::units::{count, were};

/// Reads the id of the work from the query of a POST.
pub(super) fn parse(query: &str) -> Option<&str> {
    query.split('&').find_map(|part| part.strip_prefix("order="))
}

/// Whether the next of its kind can be profiled.
pub(super) fn is_possible(work: &DumpWork) -> bool {
    matches!(work.kind, DumpKind::Request | DumpKind::Job)
}

/// Has the next work like that one profiled. Returns what becomes of it, or the status and the words of a refusal.
pub(super) fn place(
    dump: &Dump,
    id: &str,
    reports: &Reports,
    caller: Option<&str>,
) -> Result<Placed, (StatusCode, String)> {
    let Some(work) = dump.work.iter().find(|work| work.id == id) else {
        return Err((StatusCode::NOT_FOUND, not_in_flight(dump)));
    };
    if !is_possible(work) {
        return Err((StatusCode::CONFLICT, "Only requests and jobs can be profiled.".to_owned()));
    }
    let by = escape(caller.unwrap_or("somebody with access"), 200).into_owned();
    let reason = format!("asked for on the console by {by}");
    let path = work.name.split_once(' ').map_or(&*work.name, |(_, path)| path);
    let placed = match &work.method {
        Some(method) => place_for(method, work.route.as_deref(), path, &reason, reports),
        None => place_for("job", None, &work.name, &reason, reports),
    };
    log_safely(|| {
        tracing::warn!(target: "heeler", work = %work.name, by = %by, placed = ?placed, "a profile of the next was asked for on the console");
    });
    Ok(placed)
}

/// Returns what is said of work that the dump does not have.
pub(super) fn not_in_flight(dump: &Dump) -> String {
    match dump.omitted {
        0 => "No work with this id is in flight.".to_owned(),
        omitted => {
            let more = count(omitted, "more piece");
            format!("No work with this id is listed, but {more} of work {} in flight and only counted.", were(omitted))
        }
    }
}
