//! Redacts a report.

use super::found::REDACTED;
use super::redactor::{MAX_URI, MAX_VALUE, Redactor};
use crate::report::RuntimeHealth;
use crate::report::dump::Dump;
use crate::report::model::fleet::FleetIncident;
use crate::report::model::others::Others;
use crate::report::model::{Report, Thread};
use crate::report::pipeline::trace_url::is_link;

/// The longest name of a job, in characters before escaping.
const MAX_JOB: usize = 200;

/// The longest name of a thread or a runtime.
pub(in crate::report) const MAX_THREAD: usize = 64;

impl Thread {
    /// Removes from its name what must not be shown.
    pub(in crate::report) fn redact(&mut self, redactor: &Redactor, max: usize) {
        if !self.name.is_empty() {
            self.name = redactor.text(&self.name, max);
        }
    }
}

impl RuntimeHealth {
    /// Removes from its name what must not be shown.
    pub(in crate::report) fn redact(&mut self, redactor: &Redactor, max: usize) {
        self.name = redactor.text(&self.name, max);
    }
}

/// The lengths beyond which values are cut.
#[derive(Clone, Copy)]
struct Limits {
    uri: usize,
    value: usize,
    job: usize,
    thread: usize,
}

impl Redactor {
    /// Removes from a report what must not be shown. Until then, everything in it that came from a request, or from the
    /// application, is unchanged.
    pub(crate) fn report(&self, report: &mut Report) {
        self.reduce(report, Limits { uri: MAX_URI, value: MAX_VALUE, job: MAX_JOB, thread: MAX_THREAD });
    }

    fn reduce(&self, report: &mut Report, limits: Limits) {
        let text = |text: &mut String, max: usize| {
            if !text.is_empty() {
                *text = self.text(text, max);
            }
        };
        if let Some(request) = &mut report.request {
            text(&mut request.method, limits.value);
            request.uri = self.uri_of(&request.uri, limits.uri);
            if let Some(route) = &mut request.route {
                *route = self.uri_of(route, limits.value);
            }
            for (name, value) in &mut request.headers {
                if value != REDACTED {
                    *value = self.header_text(name, value, limits.value);
                }
            }
        }
        if let Some(job) = &mut report.job {
            text(job, limits.job);
        }
        // Nothing else has a place there, also in a report that was read from a file.
        if report.trace_ids().is_none() {
            (report.trace_id, report.span_id, report.trace_url) = (None, None, None);
        }
        report.trace_url.take_if(|url| !is_link(url));
        let thread = |thread: &mut Thread| thread.redact(self, limits.thread);
        report.thread.iter_mut().for_each(thread);
        for stack in &mut report.stacks {
            stack.thread.iter_mut().for_each(thread);
            for line in stack.frames.iter_mut().filter_map(|frame| frame.source.as_mut()) {
                *line = self.code(line, usize::MAX);
            }
            stack.work.iter_mut().for_each(|work| self.work(work, limits));
        }
        report.elsewhere.names_mut().for_each(|name| self.work(name, limits));
        report.others.iter_mut().flat_map(Others::names_mut).for_each(|name| self.work(name, limits));
        let fleet = report.fleet.iter_mut().map(|fleet| &mut **fleet);
        fleet.flat_map(FleetIncident::names_mut).for_each(|name| self.work(name, limits));
        for span in &mut report.spans {
            text(&mut span.name, limits.value);
            for (name, value) in &mut span.fields {
                *value = self.field(name, value, limits.value);
            }
        }
        report.notes.iter_mut().for_each(|note| text(note, limits.uri));
        if let Some(dump) = &mut report.dump {
            self.dump(dump, limits);
        }
    }
}

impl Redactor {
    /// Redacts a dump. What came from requests has been reduced when it was taken.
    fn dump(&self, dump: &mut Dump, limits: Limits) {
        for work in &mut dump.work {
            self.work(&mut work.name, limits);
        }
        for resource in &mut dump.resources {
            resource.name = self.text(&resource.name, limits.value);
            for claim in resource.holders.iter_mut().chain(&mut resource.waiters) {
                self.work(&mut claim.work, limits);
            }
        }
        dump.threads.redact(self, limits.thread);
        dump.runtimes.iter_mut().for_each(|runtime| runtime.redact(self, limits.thread));
        for group in &mut dump.groups {
            for line in group.paths.iter_mut().flat_map(|path| &mut path.stacks).flat_map(|stack| &mut stack.frames) {
                if let Some(source) = &mut line.source {
                    *source = self.code(source, usize::MAX);
                }
            }
        }
    }

    /// Redacts a request's method and URI, or a name.
    fn work(&self, work: &mut String, limits: Limits) {
        *work = match work.split_once(" /") {
            Some((method, path)) if !method.contains(' ') => {
                format!("{} {}", self.text(method, limits.value), self.uri_of(&format!("/{path}"), limits.uri))
            }
            _ => self.text(work, limits.value),
        };
    }
}

/// Redacts a report that was read from a file, because an earlier version may have shown what this one doesn't. Nothing
/// is cut again.
pub(in crate::report) fn again(report: &mut Report) {
    const NONE: Limits = Limits { uri: usize::MAX, value: usize::MAX, job: usize::MAX, thread: usize::MAX };
    Redactor::standard().reduce(report, NONE);
}
