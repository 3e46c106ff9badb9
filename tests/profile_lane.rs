//! What becomes of a profile when the lane cannot be started. The process has no file descriptors left, so that the test has
//! it for itself.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "the limit of file descriptors")]

use std::convert::Infallible;
use std::fs;

use bytes::Bytes;
use heeler::ProfileLayer;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Sets how many file descriptors there may be. How many there could be before.
fn limit(most: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for both calls, which keep nothing of it.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = most;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}

/// Guards: it is an answer, not a panic, whoever does not ask for a profile does not notice, and the next one who asks may
/// be luckier.
#[test]
fn no_lane() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let service =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("well"))) });
    let service = ProfileLayer::new(|_: &Parts| true).layer(service);
    let ask = |uri: &str| {
        let request = Request::get(uri).body(Full::default()).unwrap();
        runtime.block_on(async {
            let (head, body) = service.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status, String::from_utf8_lossy(&body).into_owned())
        })
    };
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    let before = limit(open as libc::rlim_t - 1);
    let (refused, as_usual) = (ask("/?__geordi__=json"), ask("/"));
    limit(before);
    assert_eq!(refused.0, 503, "{}", refused.1);
    assert!(refused.1.starts_with("The lane could not be started"), "{}", refused.1);
    assert_eq!((as_usual.0.as_u16(), &*as_usual.1), (200, "well"));
    let (status, profile) = ask("/?__geordi__=json");
    assert!(status == 200 && profile.contains("\"finished\""), "{profile}");
}
