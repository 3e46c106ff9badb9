//! Writing both schemas.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::short::{Omitted, shorten};
use super::tables::{Picked, Tables};
use crate::report::{Interval, Report, SCHEMA};
use crate::text::time::{in_millis, timestamp};

/// How many fields all forms have, `schema` and `stacks` included.
pub(in crate::report) const FIELDS: usize = 25;

/// How many fields were added later. Schema 1 has them only if they have a value: what it says otherwise never changes.
pub(in crate::report) const LATER_FIELDS: usize = 9;

/// A report as schema 1, each frame in full wherever it occurs. It is for spools: while a service is deployed,
/// processes of an earlier version, which can read nothing else, may share them.
#[derive(Debug)]
pub(in crate::report) struct Schema1<'a>(pub(in crate::report) &'a Report);

/// A report in its short form: without the less significant stacks and frames.
#[derive(Debug)]
pub(in crate::report) struct Short<'a>(pub(in crate::report) &'a Report);

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tables = Tables::of(self.stacks.iter().map(Picked::whole));
        write(self, serializer, Stacks::Tables(tables, None), &self.timeline)
    }
}

impl Serialize for Schema1<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, serializer, Stacks::InFull, &self.0.timeline)
    }
}

impl Serialize for Short<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (picked, timeline, omitted) = shorten(self.0);
        write(self.0, serializer, Stacks::Tables(Tables::of(picked), Some(omitted)), &timeline)
    }
}

/// Which stacks are written, and how.
enum Stacks<'a> {
    /// Schema 1.
    InFull,
    /// Schema 2.
    Tables(Tables<'a>, Option<Omitted>),
}

fn write<S: Serializer>(
    report: &Report,
    serializer: S,
    told: Stacks<'_>,
    timeline: &[Interval],
) -> Result<S::Ok, S::Error> {
    // Every field is named, so that a new one cannot be forgotten here.
    let Report {
        schema: _,
        id,
        update,
        kind,
        verdict,
        captured_at,
        started_at,
        elapsed,
        threshold,
        request,
        job,
        trace_id,
        span_id,
        trace_url,
        ending,
        process,
        thread,
        polls,
        busy,
        waiting,
        unobserved,
        longest_poll,
        location,
        repeats,
        denied,
        awaiting,
        stacks,
        timeline: _,
        spans,
        notes,
        fingerprint,
        suppressed,
        others,
        incident,
        fleet,
        dump,
        around: _,
        elsewhere: _,
        child_needs_thread: _,
    } = report;
    let (schema, more) = match &told {
        Stacks::InFull => {
            let traced = [trace_id.is_some(), span_id.is_some(), trace_url.is_some(), ending.is_some()];
            let later =
                [repeats.is_some(), denied.is_some(), others.is_some(), !incident.is_empty(), awaiting.is_some()];
            let later = traced.into_iter().chain(later);
            (1, later.filter(|later| *later).count() + usize::from(dump.is_some()))
        }
        Stacks::Tables(_, None) => (SCHEMA, LATER_FIELDS + 3 + usize::from(dump.is_some())),
        Stacks::Tables(_, Some(_)) => (SCHEMA, LATER_FIELDS + 4),
    };
    let more = more + usize::from(fleet.is_some());
    let mut out = serializer.serialize_struct("Report", FIELDS + more)?;
    macro_rules! fields {
        ($($field:ident)*) => {{ $(out.serialize_field(stringify!($field), $field)?;)* }};
    }
    macro_rules! later_fields {
        ($($field:ident)*) => {{ $(
            if $field.is_some() || matches!(told, Stacks::Tables(..)) {
                out.serialize_field(stringify!($field), $field)?;
            }
        )* }};
    }
    // The first field in every version, so that a reader knows at once whether it can read on.
    out.serialize_field("schema", &schema)?;
    fields!(id update kind verdict);
    if let Stacks::Tables(_, omitted) = &told {
        out.serialize_field("sentence", &report.sentence())?;
        if let Some(omitted) = omitted {
            out.serialize_field("omitted", omitted)?;
        }
    }
    out.serialize_field("captured_at", &timestamp(*captured_at))?;
    out.serialize_field("started_at", &timestamp(*started_at))?;
    out.serialize_field("elapsed_ms", &in_millis(*elapsed))?;
    out.serialize_field("threshold_ms", &threshold.map(in_millis))?;
    fields!(request job);
    later_fields!(trace_id span_id trace_url ending);
    fields!(process thread polls);
    out.serialize_field("busy_ms", &in_millis(*busy))?;
    out.serialize_field("waiting_ms", &in_millis(*waiting))?;
    out.serialize_field("unobserved_ms", &in_millis(*unobserved))?;
    out.serialize_field("longest_poll_ms", &in_millis(*longest_poll))?;
    fields!(location);
    later_fields!(repeats denied);
    later_fields!(awaiting);
    match &told {
        Stacks::InFull => fields!(stacks),
        Stacks::Tables(Tables { modules, frames, stacks }, _) => fields!(modules frames stacks),
    }
    fields!(timeline spans notes fingerprint suppressed);
    later_fields!(others);
    if !incident.is_empty() || matches!(told, Stacks::Tables(..)) {
        fields!(incident);
    }
    // Few reports have one.
    if fleet.is_some() {
        fields!(fleet);
    }
    // The short form has its sentence alone.
    if dump.is_some() && !matches!(told, Stacks::Tables(_, Some(_))) {
        fields!(dump);
    }
    out.end()
}
