//! What the client of a stopped request is told: never more than the limit, because nobody outside needs to know where
//! a request was.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;

use super::settings::Config;
use crate::text::units::duration;
use crate::timebox::Interrupted;
use crate::timebox::deadline_header::is_grpc;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `DEADLINE_EXCEEDED`.
const EXCEEDED: HeaderValue = HeaderValue::from_static("4");

/// How the client learns that its request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
    /// Has its trailers inside the body, so a body that is cut off cannot end with them.
    GrpcWeb,
}

impl Protocol {
    #[inline]
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        // Every gRPC call is a POST. This spares most other requests the search for a header.
        if *request.method() == Method::POST && is_grpc(request.headers()) {
            Self::of_grpc(request.headers())
        } else {
            Self::Http
        }
    }

    #[cold]
    fn of_grpc(headers: &HeaderMap) -> Self {
        const WEB: &[u8] = b"application/grpc-web";
        let start = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..WEB.len()));
        if start.is_some_and(|start| start.eq_ignore_ascii_case(WEB)) { Self::GrpcWeb } else { Self::Grpc }
    }
}

/// A problem document of RFC 9457.
#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

/// Returns the answer to a request that was stopped.
pub(super) fn answer(
    config: &Config,
    protocol: Protocol,
    interrupted: &Interrupted,
    head: Option<&Parts>,
) -> Response<Bytes> {
    let limit = interrupted.limit();
    match (protocol, &config.respond, head) {
        (Protocol::Grpc, ..) => grpc("application/grpc", limit),
        (Protocol::GrpcWeb, ..) => grpc("application/grpc-web", limit),
        (Protocol::Http, Some(respond), Some(head)) => respond(interrupted, head),
        (Protocol::Http, ..) => problem(config.status, limit),
    }
}

fn problem(status: StatusCode, limit: Duration) -> Response<Bytes> {
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Interrupted"),
        status: status.as_u16(),
        detail: detail(limit),
    };
    // Texts and a number can always be written as JSON.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// Returns a gRPC answer of trailers alone. They go into its head.
fn grpc(content_type: &'static str, limit: Duration) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = trailers(limit);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns the trailers of a gRPC call whose time is up.
pub(super) fn trailers(limit: Duration) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert(GRPC_STATUS, EXCEEDED);
    if let Ok(message) = HeaderValue::try_from(percent_encode(&detail(limit))) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

fn detail(limit: Duration) -> String {
    format!("The request was stopped after its limit of {}.", duration(limit))
}

/// Encodes a message for gRPC: everything but printable ASCII characters, and `%` itself, becomes `%` and two digits.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(method: Method, content_type: Option<&str>) -> Protocol {
        let mut request = Request::new(());
        *request.method_mut() = method;
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        Protocol::of(&request)
    }

    /// Guards: gRPC is told from the rest by its content type, in each of its spellings, and by its method.
    #[test]
    fn recognises_grpc_by_content_type_and_method() {
        for (content_type, expected) in [
            (None, Protocol::Http),
            (Some("application/json"), Protocol::Http),
            (Some("application/grpc"), Protocol::Grpc),
            (Some("application/grpc+proto"), Protocol::Grpc),
            (Some("Application/gRPC; charset=utf-8"), Protocol::Grpc),
            (Some("application/grpc-web"), Protocol::GrpcWeb),
            (Some("application/grpc-web-text+proto"), Protocol::GrpcWeb),
        ] {
            assert_eq!(protocol(Method::POST, content_type), expected, "{content_type:?}");
            assert_eq!(protocol(Method::GET, content_type), Protocol::Http, "{content_type:?}");
        }
    }

    /// Guards: the document follows RFC 9457, and names the limit.
    #[test]
    fn the_response_is_an_rfc_9457_problem() {
        let response = problem(StatusCode::SERVICE_UNAVAILABLE, Duration::from_millis(2_500));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            response.body(),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The request was stopped after its limit of 2.50 s."}"#
        );
        let unknown = problem(StatusCode::from_u16(599).unwrap(), Duration::ZERO);
        assert_eq!(
            unknown.body(),
            r#"{"type":"about:blank","title":"Interrupted","status":599,"detail":"The request was stopped after its limit of 0 ms."}"#
        );
    }

    /// Guards: the response is 200 with the status in its head, which is how gRPC spells a response without messages.
    #[test]
    fn grpc_gets_200_with_the_status() {
        let response = grpc("application/grpc", Duration::from_millis(340));
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        let headers = response.headers();
        assert_eq!(
            (&headers["content-type"], &headers["grpc-status"]),
            (&"application/grpc".parse().unwrap(), &EXCEEDED)
        );
        assert_eq!(headers["grpc-message"], "The request was stopped after its limit of 340 ms.");
        assert_eq!(headers.len(), 3);
    }

    /// Guards: the table of the gRPC specification.
    #[test]
    fn grpc_messages_are_percent_encoded() {
        for (plain, encoded) in
            [("", ""), (" ~a", " ~a"), ("100 %", "100 %25"), ("a\nb\x7f", "a%0Ab%7F"), ("µ", "%C2%B5")]
        {
            assert_eq!(percent_encode(plain), encoded);
        }
    }
}
