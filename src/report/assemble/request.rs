//! A request as the report has it before redaction.

use http::HeaderValue;
use http::header::HOST;
use http::uri::Authority;

use crate::capture::RowId;
use crate::inflight::{self, Subject};
use crate::monitor::Evidence;
use crate::report::Reports;
use crate::report::model::RequestInfo;
use crate::report::privacy::{TRACEPARENT, header_value};
use crate::text::traceparent::TraceIds;

pub(in crate::report) fn describe(request: &inflight::Request, id: RowId, evidence: &Evidence) -> RequestInfo {
    let uri = uri_of(request);
    let names = request.headers_of.get().map(|policy| policy.headers.as_slice()).unwrap_or_default();
    let headers = request.headers.iter().filter_map(|(index, value)| Some((names.get(usize::from(*index))?, value)));
    // The outer layer decided which headers were kept. These reports may be an inner layer's.
    let reports = Reports::of(&evidence.reports);
    let allowed = reports.allowed_headers();
    let headers = headers.filter(|(name, _)| allowed.contains(name));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.as_str().to_owned(), header_value(value).into_owned())).collect();
    // HTTP/2 names the host in the URI, HTTP/1 in a header. It is shown as a header either way.
    if let Some(authority) = &request.authority
        && allowed.contains(&HOST)
        && !headers.iter().any(|(name, _)| name == HOST.as_str())
        && let Ok(host) = HeaderValue::from_str(host_of(authority))
    {
        headers.insert(0, (HOST.as_str().to_owned(), header_value(&host).into_owned()));
    }
    RequestInfo {
        id: id.to_bits(),
        method: request.method.to_string(),
        uri,
        route: request.route().map(str::to_owned),
        version: format!("{:?}", request.version),
        headers,
    }
}

/// Returns the path and the query.
pub(in crate::report) fn uri_of(request: &inflight::Request) -> String {
    match (&request.path, &request.authority) {
        // A request that names only a host, as `CONNECT` does.
        (None, Some(authority)) => host_of(authority).to_owned(),
        (path, _) => path.as_ref().map_or("/", |path| path.as_str()).to_owned(),
    }
}

/// Returns the trace and the span that the work is in: those of a live span, or else those that the client sent.
pub(super) fn trace_ids(evidence: &Evidence) -> Option<TraceIds> {
    #[cfg(feature = "otel")]
    if let Some(ids) = evidence.span.as_ref().and_then(inflight::ids_of_span) {
        return Some(ids);
    }
    let request = match &evidence.subject {
        Subject::Request(request) => request,
        Subject::Job(job) => &job.origin.as_ref()?.request,
        Subject::Child(_) | Subject::Timebox(_) | Subject::Nothing => return None,
    };
    let names = &request.headers_of.get()?.headers;
    let sent = request.headers.iter().find(|(index, _)| {
        // It is kept even if it is not shown.
        names.get(usize::from(*index)).is_some_and(|name| *name == TRACEPARENT)
    });
    TraceIds::parse(sent?.1.as_bytes())
}

/// Returns host and port, without a user that the client may have included.
fn host_of(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;
    use crate::report::Reports;
    use crate::report::assemble::Assembler;
    use crate::report::testing::evidence;

    fn reports() -> Reports {
        Reports::builder().without_log().build().unwrap()
    }

    /// Guards: a report shows what the client asked for, in either version of HTTP, and the host as a header.
    #[test]
    fn the_host_is_shown_as_a_header() {
        let of = |uri: &'static str| {
            let parts = http::Uri::from_static(uri).into_parts();
            let (path, authority) = (parts.path_and_query, parts.authority);
            let asked =
                crate::inflight::Request { path, authority, version: http::Version::HTTP_2, ..Default::default() };
            let request =
                Assembler::new().assemble(Evidence { subject: Subject::Request(asked), ..evidence(reports()) });
            let request = request.request.unwrap();
            let host = request.headers.into_iter().find(|(name, _)| name == "host").map(|(_, host)| host);
            (request.uri, host)
        };
        let grpc = of("http://user:secret@svc.example:50051/photos.Photos/Get?page=1");
        assert_eq!(grpc, ("/photos.Photos/Get?page=1".to_owned(), Some("svc.example:50051".to_owned())));
        assert_eq!(of("/plain"), ("/plain".to_owned(), None));
        assert_eq!(of("a.example:443"), ("a.example:443".to_owned(), Some("a.example:443".to_owned())), "of a CONNECT");
    }
}
