//! Redacts a report.

use super::found::REDACTED;
use super::redactor::{MAX_URI, MAX_VALUE, Redactor};
use crate::report::model::{Report, Thread};

/// The longest name of a job, in characters before escaping.
const MAX_JOB: usize = 200;

/// The longest name of a thread.
const MAX_THREAD: usize = 64;

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
        let thread = |thread: &mut Thread| text(&mut thread.name, limits.thread);
        report.thread.iter_mut().for_each(thread);
        for stack in &mut report.stacks {
            stack.thread.iter_mut().for_each(thread);
            for line in stack.frames.iter_mut().filter_map(|frame| frame.source.as_mut()) {
                *line = self.code(line, usize::MAX);
            }
            if let Some(work) = &mut stack.work {
                // A request's method and URI, or a name.
                *work = match work.split_once(" /") {
                    Some((method, path)) if !method.contains(' ') => {
                        format!("{} {}", self.text(method, limits.value), self.uri_of(&format!("/{path}"), limits.uri))
                    }
                    _ => self.text(work, limits.value),
                };
            }
        }
        for span in &mut report.spans {
            text(&mut span.name, limits.value);
            for (name, value) in &mut span.fields {
                *value = self.field(name, value, limits.value);
            }
        }
        report.notes.iter_mut().for_each(|note| text(note, limits.uri));
    }
}

/// Redacts a report that was read from a file, because an earlier version may have shown what this one doesn't. Nothing
/// is cut again.
pub(in crate::report) fn again(report: &mut Report) {
    const NONE: Limits = Limits { uri: usize::MAX, value: usize::MAX, job: usize::MAX, thread: usize::MAX };
    Redactor::standard().reduce(report, NONE);
}
