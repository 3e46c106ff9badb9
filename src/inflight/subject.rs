//! What a row is about: enough of a request to name it. It is kept by reference counts, so nothing is copied unless a
//! report is made.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::{Audience, PolicyId, ReportTarget, Row, SmallLimit};
use crate::capture::RowId;

/// What a row's work is. A request's parts are beside it in the row, so that they are written and dropped in place.
#[derive(Default)]
pub(crate) enum Work {
    /// The row is free. It may also be free with a box that is over.
    #[default]
    Nothing,
    /// With the limit of the box that shares the row, or has shared it last.
    Request(SmallLimit),
    Job(Box<Job>),
    Child(Child),
    Timebox(Timebox),
}

impl Work {
    /// A request that no box shares the row with.
    pub(crate) const REQUEST: Self = Self::Request(SmallLimit::NONE);
}

/// What a report is about: a copy of a row's work.
#[derive(Clone)]
pub(crate) enum Subject {
    Nothing,
    Request(Request),
    Job(Job),
    Child(Child),
    Timebox(Timebox),
}

impl Subject {
    /// Returns about how many bytes it has in addition to itself.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Nothing | Self::Child(_) => 0,
            Self::Request(request) => request.size(),
            Self::Job(job) => job.name.len() + job.origin.as_ref().map_or(0, |origin| origin.request.size()),
            Self::Timebox(timebox) => timebox.label().map_or(0, |label| label.len()),
        }
    }
}

/// The parts of a request that a report may show.
#[derive(Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) authority: Option<Authority>,
    pub(crate) version: Version,
    /// Headers that may be needed, as indices in the list of the policy below.
    pub(crate) headers: Vec<(u16, HeaderValue)>,
    /// The policy with the list, because another layer may take the row over.
    pub(crate) headers_of: PolicyId,
    #[cfg(feature = "axum")]
    pub(crate) route: Option<axum::extract::MatchedPath>,
}

/// The parts of a request before its body, whatever the type of that is.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    #[cfg(feature = "axum")]
    pub(crate) extensions: &'a http::Extensions,
}

impl<'a> Head<'a> {
    #[inline]
    pub(crate) fn of<B>(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            #[cfg(feature = "axum")]
            extensions: request.extensions(),
        }
    }
}

/// Work that isn't a request: see [`watch`](crate::watch).
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) name: Cow<'static, str>,
    pub(crate) reports: Option<ReportTarget>,
    /// The request that it belongs to, which may be over.
    pub(crate) origin: Option<Box<Origin>>,
    /// What it began in. While that runs, it knows the request.
    pub(crate) inside: RowId,
    /// How many messages were queued behind it when it began, if it is an actor's.
    pub(crate) queued: Option<usize>,
}

impl Job {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), reports: None, origin: None, inside: RowId::NONE, queued: None }
    }

    /// Returns a copy for a report.
    pub(super) fn copy(&self) -> Self {
        let Self { inside, queued, .. } = *self;
        Self { name: self.name.clone(), reports: None, origin: self.origin.clone(), inside, queued }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A request that something else belongs to.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) id: RowId,
    pub(crate) policy: PolicyId,
    /// A [copy](Request::copy).
    pub(crate) request: Request,
}

/// Work that a request or a job has handed on.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) parent: RowId,
    pub(crate) how: How,
    /// What it has of the boxes that it was handed on in.
    pub(crate) boxes: Option<Arc<Inheritance>>,
}

/// What work has of the boxes that it was handed on in.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// Where the work was handed on.
    pub(crate) at: &'static Location<'static>,
    /// Innermost first.
    pub(crate) boxes: Vec<Arc<Inherited>>,
    /// The boxes that the work itself opens, at any depth. They are told when the work is.
    pub(crate) inner: Audience,
}

/// A box, as remembered by work that was handed on within it, which may outlive it. All such work shares one of these.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) id: RowId,
    /// The policy of the box's layer.
    pub(crate) policy: PolicyId,
    pub(crate) label: Option<Cow<'static, str>>,
    /// Nanoseconds.
    pub(crate) limit: u64,
    /// Nanoseconds of [`now`](crate::clock::now), or `u64::MAX` for never.
    pub(crate) deadline: u64,
    /// The work that was handed on within the box. It is told when the box expires, which a box that ended in time
    /// never does.
    pub(crate) inheritors: Audience,
}

impl Inherited {
    pub(super) fn new(row: &Row, id: RowId, label: Option<Cow<'static, str>>) -> Self {
        let (policy, limit, deadline) = (row.policy(), row.threshold(), row.deadline());
        Self { id, policy, label, limit, deadline, inheritors: Audience::default() }
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.inheritors.is_closed()
    }
}

/// A piece of work with a limit.
#[derive(Debug, Clone)]
pub(crate) struct Timebox {
    /// The innermost row that it was opened in, of any kind.
    pub(crate) inside: RowId,
    /// Boxed, because a row is small and few boxes need it.
    pub(crate) more: Option<Box<More>>,
}

/// What only a few boxes have.
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    pub(crate) label: Option<Cow<'static, str>>,
    /// The box or the inheritor around it, if that isn't what it is inside of.
    pub(crate) around: Option<RowId>,
    /// Nanoseconds.
    pub(crate) grace: u64,
    /// What work that was handed on within it has of it, once there is some.
    pub(super) inherited: Option<Arc<Inherited>>,
}

impl Timebox {
    #[inline]
    pub(crate) fn new(inside: RowId, around: RowId, label: Option<&Cow<'static, str>>, grace: u64) -> Self {
        // If there is nothing around, it is inside of a request, a job or nothing, and a walk ends there by itself.
        let around = (around != inside && around != RowId::NONE).then_some(around);
        let needed = label.is_some() || around.is_some() || grace > 0;
        let more = || Box::new(More { label: label.cloned(), around, grace, inherited: None });
        Self { inside, more: needed.then(more) }
    }

    /// Returns how long the work may take to end by itself once its limit has passed, in nanoseconds.
    pub(crate) fn grace(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.grace)
    }

    pub(crate) fn label(&self) -> Option<&Cow<'static, str>> {
        self.more.as_ref()?.label.as_ref()
    }

    /// Returns the box or the inheritor around it, or a row that is neither.
    pub(crate) fn around(&self) -> RowId {
        self.more.as_ref().and_then(|more| more.around).unwrap_or(self.inside)
    }
}

/// The function that handed work on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Spawn,
    SpawnBlocking,
    WatchChild,
}

impl How {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::SpawnBlocking => "spawn_blocking",
            Self::WatchChild => "watch_child",
        }
    }
}

/// Up to this many headers of a request are checked one by one.
const FEW: usize = 8;

impl Request {
    /// Takes from a request what a report may show. Must be empty before.
    #[inline]
    pub(crate) fn fill(&mut self, path: &mut Option<PathAndQuery>, head: &Head<'_>, allowed: &[HeaderName]) {
        self.method = head.method.clone();
        self.path = path.take();
        if let Some(authority) = head.uri.authority() {
            self.authority = Some(authority.clone());
        }
        self.version = head.version;
        if !head.headers.is_empty() {
            self.keep_headers(head.headers, allowed);
        }
        #[cfg(feature = "axum")]
        {
            self.route = head.extensions.get().cloned();
        }
    }

    #[inline(never)]
    fn keep_headers(&mut self, headers: &HeaderMap, allowed: &[HeaderName]) {
        if headers.len() > FEW {
            for (index, name) in allowed.iter().enumerate() {
                if let Some(value) = headers.get(name) {
                    self.headers.push((index as u16, value.clone()));
                }
            }
            return;
        }
        // Comparing a few names takes less time than hashing one.
        for (name, value) in headers {
            let Some(index) = allowed.iter().position(|allowed| allowed == name) else { continue };
            if self.headers.iter().all(|(at, _)| usize::from(*at) != index) {
                self.headers.push((index as u16, value.clone()));
            }
        }
        // In the order of the list, because reports show them in that order.
        self.headers.sort_unstable_by_key(|(at, _)| *at);
    }

    /// Returns a copy that shares none of the request's bytes. An application may have given them a destructor of its
    /// own, which should run where the request ends.
    pub(crate) fn copy(&self) -> Self {
        Self {
            method: self.method.clone(),
            path: self.path.as_ref().and_then(|path| path.as_str().try_into().ok()),
            authority: self.authority.as_ref().and_then(|authority| authority.as_str().try_into().ok()),
            version: self.version,
            headers: self.headers.iter().filter_map(|(at, value)| Some((*at, copy(value)?))).collect(),
            headers_of: self.headers_of,
            #[cfg(feature = "axum")]
            route: self.route.clone(),
        }
    }

    fn size(&self) -> usize {
        let path = self.path.as_ref().map_or(0, |path| path.as_str().len());
        let host = self.authority.as_ref().map_or(0, |host| host.as_str().len());
        let headers = self.headers.iter().map(|(_, value)| value.len()).sum::<usize>();
        self.method.as_str().len() + path + host + size_of_val(&*self.headers) + headers
    }

    /// Releases everything but the memory of the list.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.path = None;
        self.authority = None;
        self.headers.clear();
        #[cfg(feature = "axum")]
        {
            self.route = None;
        }
    }

    /// Returns the router's template of the path, if the router tells it.
    pub(crate) fn route(&self) -> Option<&str> {
        #[cfg(feature = "axum")]
        return self.route.as_ref().map(axum::extract::MatchedPath::as_str);
        #[cfg(not(feature = "axum"))]
        None
    }
}

fn copy(value: &HeaderValue) -> Option<HeaderValue> {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    copy.set_sensitive(value.is_sensitive());
    Some(copy)
}
