//! What the names of headers say about their values.

use http::{HeaderName, header};

/// Headers that carry credentials in every application, and so can't be allowed.
pub(super) const NEVER: [HeaderName; 4] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SET_COOKIE];

/// The header with the ids of the caller's trace. Rows keep it even if reports do not show it.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns whether a header carries the identity of a user or of a client, as proxies pass it on. In a profile, which
/// shows all headers, its value isn't shown.
pub(super) fn is_hidden(name: &str) -> bool {
    const STARTS: [&str; 5] =
        ["x-amzn-oidc-", "x-amz-security", "x-forwarded-client-cert", "x-ms-client-principal", "cf-access-"];
    const ENDS: [&str; 6] =
        ["client-cert", "clientcert", "client-cert-chain", "ssl-cert", "tls-cert", "client-certificate"];
    STARTS.iter().any(|start| name.starts_with(start)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns whether a header's value is a URI, or a part of one.
pub(super) fn is_uri(name: &str) -> bool {
    const NAMES: [&str; 6] = ["content-location", "destination", "location", "origin", "referer", "x-accel-redirect"];
    const STARTS: [&str; 4] = ["x-original-", "x-forwarded-", "x-rewrite-", "x-envoy-original-"];
    const ENDS: [&str; 8] = ["-uri", "-url", "-path", "-query", "-args", "-prefix", "-redirect", "-referer"];
    NAMES.contains(&name)
        || (STARTS.iter().any(|start| name.starts_with(start)) && ENDS.iter().any(|end| name.ends_with(end)))
}

/// Returns whether a header's value is naturally a random string, but not a secret: an id, or a hash.
pub(super) fn is_random(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "cf-ray",
        "content-digest",
        "content-md5",
        "content-security-policy",
        "content-security-policy-report-only",
        "digest",
        "etag",
        "if-match",
        "if-none-match",
        "repr-digest",
        "sec-websocket-accept",
        "traceparent",
        "tracestate",
        "x-amz-cf-id",
        "x-amz-id-2",
        "x-amzn-trace-id",
    ];
    NAMES.contains(&name)
        || name.ends_with("request-id")
        || name.ends_with("correlation-id")
        || name.ends_with("trace-id")
}
