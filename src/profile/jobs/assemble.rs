//! Turns what was seen into a [`Profile`].

use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri, Version};

use crate::capture::is_of;
use crate::profile::id::Id;
use crate::profile::layer::Config;
use crate::profile::record::Record;
use crate::profile::{Outcome, Profile, Request, Response, SCHEMA};
use crate::report::{ProcessInfo, Redactor, TRACEPARENT, complete};
use crate::text::traceparent::TraceIds;

/// The longest text that somebody else wrote, in characters.
const MAX_WORDS: usize = 4096;

/// The number of headers that are kept of a request or a response.
const MAX_HEADERS: usize = 128;

/// Returns what a profile says about its request. `uri` is without the flag.
pub(in crate::profile) fn request(redactor: &Redactor, head: &Parts, uri: &Uri, body_bytes: u64) -> Request {
    let (trace_id, span_id) = trace_ids(&head.headers).map(|ids| (ids.trace, ids.span)).unzip();
    Request {
        method: redactor.text(head.method.as_str(), MAX_WORDS),
        uri: redactor.uri(uri.path_and_query().map_or("/", |path| path.as_str())),
        route: route(head).map(|route| redactor.uri(&route)),
        version: format!("{:?}", head.version),
        headers: headers(redactor, &head.headers),
        body_bytes,
        trace_id,
        span_id,
    }
}

/// Returns the ids of the span that the calling code runs in, or else those that the client sent.
fn trace_ids(headers: &HeaderMap) -> Option<TraceIds> {
    #[cfg(feature = "otel")]
    if let Some(ids) = crate::inflight::current_trace_ids() {
        return Some(ids);
    }
    TraceIds::parse(headers.get(&TRACEPARENT)?.as_bytes())
}

/// Returns the template of the request's route, if a router has said it.
#[cfg(feature = "axum")]
pub(in crate::profile) fn route(head: &Parts) -> Option<String> {
    head.extensions.get::<axum::extract::MatchedPath>().map(|route| route.as_str().to_owned())
}

/// Returns none: only axum says it.
#[cfg(not(feature = "axum"))]
pub(in crate::profile) fn route(_: &Parts) -> Option<String> {
    None
}

/// Returns what a profile says about a response, before its body.
pub(in crate::profile) fn response(
    redactor: &Redactor,
    status: StatusCode,
    version: Version,
    of: &HeaderMap,
) -> Response {
    Response {
        status: status.as_u16(),
        version: format!("{version:?}"),
        headers: headers(redactor, of),
        ..Response::default()
    }
}

fn headers(redactor: &Redactor, headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = headers.iter().take(MAX_HEADERS);
    shown.map(|(name, value)| (name.as_str().to_owned(), redactor.any_header(name, value))).collect()
}

/// Removes from a profile what it must not reveal. Its request and response have been redacted already.
pub(in crate::profile) fn reduce(redactor: &Redactor, profile: &mut Profile) {
    let text = |text: &mut String| *text = redactor.text(text, MAX_WORDS);
    if let Outcome::Failed(words) | Outcome::Panicked(words) = &mut profile.outcome {
        text(words);
    }
    profile.notes.iter_mut().chain(&mut profile.reason).for_each(text);
    let stacks = profile.meanwhile.iter_mut().flat_map(|meanwhile| &mut meanwhile.stacks);
    stacks.for_each(|stack| text(&mut stack.thread));
}

/// What a profile is about.
pub(in crate::profile) struct Subject<'a> {
    pub(in crate::profile) id: Id,
    pub(in crate::profile) request: &'a Request,
    /// Which rule wanted it, if nobody asked.
    pub(in crate::profile) reason: Option<&'a str>,
}

/// Returns the profile of a request that is over.
pub(in crate::profile) fn profile(
    subject: Subject<'_>,
    config: &Config,
    mut record: Record,
    outcome: Outcome,
    runs: u32,
    response: Option<Response>,
    mut notes: Vec<String>,
) -> Profile {
    for frame in record.frames.iter_mut().filter(|frame| !frame.own) {
        frame.own = is_of(frame, &config.own_crates);
    }
    let mut process = ProcessInfo::default();
    complete(&mut process, &[]);
    let executable = process.executable.rsplit(['/', '\\']).next();
    process.build_id = record
        .frames
        .iter()
        .find(|frame| frame.module.is_some() && frame.module.as_deref() == executable)
        .and_then(|frame| frame.build_id.clone());
    notes.extend(record.notes);
    Profile {
        schema: SCHEMA,
        id: subject.id.to_string(),
        started_at: record.started_at,
        wall_nanos: record.wall_nanos,
        runs,
        rate_hz: config.rate_hz,
        outcome,
        reason: subject.reason.map(str::to_owned),
        request: subject.request.clone(),
        response,
        process,
        frames: record.frames,
        nodes: record.nodes,
        slices: record.slices,
        beside: record.beside,
        meanwhile: None,
        quality: record.quality,
        notes,
    }
}

#[cfg(all(test, not(heeler_loom)))]
mod tests;
