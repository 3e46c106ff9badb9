//! A profile as a file.

use super::error::Error;
use super::{folded, speedscope};
use crate::profile::Profile;
use crate::profile::form::Form;

/// Renders the profile as a file for a program to read. Returns `None` for [`Form::Svg`] and [`Form::Html`], which are
/// pages for a person. Takes milliseconds, or more for long profiles, so call it on a thread that may block.
///
/// # Errors
///
/// Returns an error if the crate was built without the feature that the form needs, or if a call graph cannot be laid
/// out.
pub(crate) fn render(form: Form, profile: &Profile) -> Option<Result<Vec<u8>, Error>> {
    if let Some(feature) = missing(form) {
        return Some(Err(Error::Missing { form, feature }));
    }
    let written = match form {
        Form::Svg | Form::Html => return None,
        Form::Folded => Ok(folded::folded(profile).into_bytes()),
        Form::Json => serde_json::to_vec(profile).map_err(|error| error.to_string()),
        Form::Speedscope => speedscope::speedscope(profile),
        #[cfg(feature = "firefox")]
        Form::Firefox => super::firefox::firefox(profile),
        #[cfg(feature = "pprof")]
        Form::Pprof => super::pprof::pprof(profile),
        #[cfg(feature = "callgraph")]
        Form::Dot => Ok(super::dot::dot(profile).into_bytes()),
        #[cfg(feature = "callgraph")]
        Form::Pdf => super::pdf::pdf(profile),
        // Only forms without their feature are left.
        #[allow(unreachable_patterns, reason = "with all features there are none")]
        _ => return None,
    };
    Some(written.map_err(|problem| Error::Failed { form, problem }))
}

/// Returns whether this build can write the form.
pub(crate) const fn is_available(form: Form) -> bool {
    missing(form).is_none()
}

/// Returns the feature that the form needs and this build lacks.
const fn missing(form: Form) -> Option<&'static str> {
    match form {
        Form::Pprof if !cfg!(feature = "pprof") => Some("pprof"),
        Form::Firefox if !cfg!(feature = "firefox") => Some("firefox"),
        Form::Dot | Form::Pdf if !cfg!(feature = "callgraph") => Some("callgraph"),
        _ => None,
    }
}

/// Returns the value of the `content-type` header.
pub(crate) const fn content_type(form: Form) -> &'static str {
    match form {
        Form::Svg => "image/svg+xml",
        Form::Html => "text/html; charset=utf-8",
        // The same type as Go's own servers use.
        Form::Pprof => "application/octet-stream",
        Form::Folded => "text/plain; charset=utf-8",
        Form::Speedscope | Form::Firefox | Form::Json => "application/json",
        Form::Dot => "text/vnd.graphviz; charset=utf-8",
        Form::Pdf => "application/pdf",
    }
}

/// Returns the extension of a file of the form, without the first dot.
pub(crate) const fn extension(form: Form) -> &'static str {
    match form {
        Form::Svg => "svg",
        Form::Html => "html",
        Form::Pprof => "pb.gz",
        Form::Folded => "folded",
        Form::Speedscope => "speedscope.json",
        Form::Firefox => "firefox.json",
        Form::Json => "json",
        Form::Dot => "dot",
        Form::Pdf => "pdf",
    }
}
