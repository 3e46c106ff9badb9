//! Removes the ids from a path, for services whose router doesn't provide the template.

use crate::report::model::{Report, RequestInfo};
use crate::text::escape::escape;

/// The longest route, in characters.
const MAX_ROUTE: usize = 200;

/// A segment longer than this many bytes isn't a word of a route.
const MAX_SEGMENT: usize = 64;

/// Returns what the report is about, without what differs between requests: `GET /users/{id}`, or the job's name.
pub(crate) fn route_line(report: &Report) -> String {
    match (&report.job, &report.request) {
        (Some(job), _) => job.clone(),
        (None, Some(request)) => request_line(request),
        (None, None) => "a job".to_owned(),
    }
}

/// Returns `GET /users/{id}`.
pub(in crate::report) fn request_line(request: &RequestInfo) -> String {
    let route = request.route.clone().unwrap_or_else(|| route_of(&request.uri));
    format!("{} {route}", request.method)
}

/// Returns `the job "import"`, or `the job "chat" of GET /chat/7` if it belongs to a request.
pub(in crate::report) fn job_name(job: &str, request: Option<String>) -> String {
    let of = request.map(|request| format!(" of {request}")).unwrap_or_default();
    format!("the job \"{job}\"{of}")
}

/// Turns `/users/4711/photos/7.jpg?x=y` into `/users/{id}/photos/{id}.jpg`: replaces segments that look like ids, and
/// removes the query.
pub(crate) fn route_of(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut out = String::new();
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            out.push('/');
        }
        out.push_str(&without_id(segment));
        if out.len() > MAX_ROUTE {
            break;
        }
    }
    escape(&out, MAX_ROUTE).into_owned()
}

/// Returns one word of a path or of a job's name, with its id replaced.
pub(crate) fn without_id(segment: &str) -> String {
    if is_id(segment) {
        return "{id}".to_owned();
    }
    if let Some((stem, extension)) = segment.rsplit_once('.')
        && (1..=5).contains(&extension.len())
        && extension.bytes().all(|byte| byte.is_ascii_alphabetic())
        && is_id(stem)
    {
        return format!("{{id}}.{extension}");
    }
    // `order-4711`, but not `v2` and not `top-10-lists`.
    if let Some((word, number)) = segment.rsplit_once(['-', '_', ':'])
        && is_number(number)
    {
        return format!("{word}{}{{id}}", &segment[word.len()..=word.len()]);
    }
    segment.to_owned()
}

fn is_id(segment: &str) -> bool {
    segment.len() > MAX_SEGMENT
        || segment.bytes().any(|byte| byte == b'%' || byte == b'@' || !byte.is_ascii_graphic())
        || is_number(segment)
        || is_hexadecimal(segment)
        || is_random(segment)
}

/// `4711`, `2025-01-31`, `1.5`, `10:30`.
fn is_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"-_.,:+".contains(&byte))
}

/// UUIDs, hashes, object ids: eight hexadecimal digits or more, one of them a decimal.
fn is_hexadecimal(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits >= 8
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-{}".contains(&byte))
}

/// ULIDs, base64 and the like: long, without words, letters and digits mixed.
fn is_random(text: &str) -> bool {
    let count = |wanted: fn(&u8) -> bool| text.bytes().filter(wanted).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let separators = text.bytes().filter(|byte| b"-_=~.".contains(byte)).count();
    text.len() >= 16
        && digits + upper + lower + separators == text.len()
        && digits >= 2
        && (upper >= 2 && lower >= 2 || separators == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_in_a_path_become_placeholders() {
        let table = [
            ("", ""),
            ("/", "/"),
            ("/users/4711/photos?page=2", "/users/{id}/photos"),
            ("/users/4711/", "/users/{id}/"),
            ("/photos/7.jpg", "/photos/{id}.jpg"),
            ("/api/v2/orders/order-4711", "/api/v2/orders/order-{id}"),
            ("/o/67e55044-10b1-426f-9247-bb680e5fe0c8", "/o/{id}"),
            ("/commit/9fceb02d0ae598e95dc970b74767f19372d61af8", "/commit/{id}"),
            ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/{id}"),
            ("/u/dGhpcyBpcyBhIHNlY3JldA4711", "/u/{id}"),
            ("/calendar/2025-01-31/10:30", "/calendar/{id}/{id}"),
            ("/mail/me@example.com", "/mail/{id}"),
            ("/search/caf%C3%A9", "/search/{id}"),
            ("/feedface/deadbeef", "/feedface/deadbeef"),
            ("/slow/thread-lock", "/slow/thread-lock"),
            ("/how-to-configure-the-watchdog", "/how-to-configure-the-watchdog"),
            ("/oauth2/callback", "/oauth2/callback"),
            ("*", "*"),
        ];
        for (path, expected) in table {
            assert_eq!(route_of(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_route_is_never_too_long(path in any::<String>()) {
            prop_assert!(route_of(&path).chars().count() <= MAX_ROUTE * 10 + 40);
        }

        #[test]
        fn ids_do_not_change_the_route(a in 0u64.., b in 0u64.., c in "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{12}") {
            prop_assert_eq!(route_of(&format!("/x/{a}/y/{c}")), route_of(&format!("/x/{b}/y/{a}?z={b}")));
        }
    }
}
