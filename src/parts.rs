//! A request's head, for the user's closures.

use http::Request;
use http::request::Parts;

/// Shows a request's head to `look`. The head is moved out and back. If `look` panics, the head is lost with the
/// request.
#[inline(never)]
pub(crate) fn with_parts<B, T>(request: &mut Request<B>, look: impl FnOnce(&Parts) -> T) -> T {
    let mut head = Request::new(());
    swap_heads(&mut head, request);
    let (parts, ()) = head.into_parts();
    let seen = look(&parts);
    swap_heads(&mut Request::from_parts(parts, ()), request);
    seen
}

fn swap_heads<A, B>(one: &mut Request<A>, other: &mut Request<B>) {
    std::mem::swap(one.method_mut(), other.method_mut());
    std::mem::swap(one.uri_mut(), other.uri_mut());
    std::mem::swap(one.version_mut(), other.version_mut());
    std::mem::swap(one.headers_mut(), other.headers_mut());
    std::mem::swap(one.extensions_mut(), other.extensions_mut());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the request is as it was, including its extensions.
    #[test]
    fn the_request_head_survives_unchanged() {
        let request = Request::put("/a?b").version(http::Version::HTTP_2).header("x", "y").extension(7_u8);
        let mut request = request.body("body").unwrap();
        let seen = with_parts(&mut request, |parts| {
            (parts.method.clone(), parts.uri.to_string(), parts.extensions.get::<u8>().copied())
        });
        assert_eq!(seen, (http::Method::PUT, "/a?b".to_owned(), Some(7)));
        assert_eq!((request.method(), request.uri().path()), (&http::Method::PUT, "/a"));
        assert_eq!((request.version(), &request.headers()["x"]), (http::Version::HTTP_2, &"y".parse().unwrap()));
        assert_eq!((request.extensions().get::<u8>(), *request.body()), (Some(&7), "body"));
    }
}
