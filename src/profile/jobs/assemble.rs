//! From what was seen to a [`Profile`].

use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderMap, Uri, response};

use super::Job;
use crate::profile::record::Record;
use crate::profile::{Outcome, Profile, Request, Response, SCHEMA};
use crate::report::{Process, Redactor, complete};

/// What may be shown of requests and responses.
static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);

/// So many headers are kept of a request or a response.
const MAX_HEADERS: usize = 128;

/// What a profile says of its request. `uri` is without the flag.
pub(in crate::profile) fn request(head: &Parts, uri: &Uri, body_bytes: u64) -> Request {
    Request {
        method: head.method.to_string(),
        uri: REDACTOR.uri(uri.path_and_query().map_or("/", |path| path.as_str())),
        route: route(head),
        version: format!("{:?}", head.version),
        headers: headers(&head.headers),
        body_bytes,
    }
}

#[cfg(feature = "axum")]
fn route(head: &Parts) -> Option<String> {
    head.extensions.get::<axum::extract::MatchedPath>().map(|route| route.as_str().to_owned())
}

#[cfg(not(feature = "axum"))]
fn route(_: &Parts) -> Option<String> {
    None
}

/// What a profile says of a response before its body.
pub(super) fn response(head: &response::Parts) -> Response {
    Response {
        status: head.status.as_u16(),
        version: format!("{:?}", head.version),
        headers: headers(&head.headers),
        ..Response::default()
    }
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = headers.iter().take(MAX_HEADERS);
    shown.map(|(name, value)| (name.as_str().to_owned(), REDACTOR.any_header(name, value))).collect()
}

/// The profile of a job that is over.
pub(super) fn profile(
    job: &Job,
    rate_hz: u32,
    record: Record,
    outcome: Outcome,
    runs: u32,
    response: Option<Response>,
    mut notes: Vec<String>,
) -> Profile {
    let mut process = Process::default();
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
        id: job.id.to_string(),
        started_at: record.started_at,
        wall_nanos: record.wall_nanos,
        runs,
        rate_hz,
        outcome,
        request: job.request.clone(),
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
