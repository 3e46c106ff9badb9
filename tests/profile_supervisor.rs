//! What becomes of a profile when its supervisor or its thread cannot be started. The process has no file descriptors left, or
//! no addresses, so that each test has one for itself.
#![cfg(feature = "profile")]
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use heeler::ProfileLayer;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tower::{Layer as _, ServiceExt as _, service_fn};

use common::limits::{with_room_for, without_file_descriptors};
use common::{PATIENCE, Wall, in_process_of, until};

/// In a process of its own, whose C library keeps no stack of a thread that has ended for the next one.
fn alone(test: &str, body: impl FnOnce()) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("GLIBC_TUNABLES", "glibc.pthread.stack_cache_size=0");
    in_process_of(command, test, body);
}

/// What `body` returns while there is less room than a profile thread's stack takes.
fn without_room<T>(body: impl FnOnce() -> T) -> T {
    with_room_for(6 << 20, body)
}

/// Something of a request's whose destructor takes its time.
struct Parting(Wall);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.block();
    }
}

/// A runtime, and a way to ask a service in it that answers at once.
fn asked(layer: ProfileLayer) -> impl Fn(&str, Option<&Wall>) -> (u16, String) {
    let runtime: Runtime = common::runtime(0);
    let service =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("well"))) });
    let service = layer.layer(service);
    move |uri, wall| {
        let mut request = Request::get(uri).body(Full::default()).unwrap();
        if let Some(wall) = wall {
            request.extensions_mut().insert(Arc::new(Parting(wall.clone())));
        }
        runtime.block_on(async {
            let answer = timeout(PATIENCE, service.clone().oneshot(request)).await.expect("a response").unwrap();
            let (head, body) = answer.into_parts();
            let body = timeout(PATIENCE, body.collect()).await.expect("the whole body").unwrap().to_bytes();
            (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
        })
    }
}

/// Guards: the failure is a response, not a panic. Requests without the flag do not notice, and the next profile may succeed.
#[test]
fn a_missing_supervisor_is_an_error_not_a_panic() {
    alone("a_missing_supervisor_is_an_error_not_a_panic", || {
        let ask = asked(ProfileLayer::new(|_: &Parts| true));
        let (refused, as_usual) = without_file_descriptors(|| (ask("/?__geordi__=json", None), ask("/", None)));
        assert_eq!(refused.0, 503, "{}", refused.1);
        assert!(refused.1.starts_with("The profile's supervisor could not be started"), "{}", refused.1);
        assert_eq!((as_usual.0, &*as_usual.1), (200, "well"));
        let (status, profile) = ask("/?__geordi__=json,inline", None);
        assert!(status == 200 && profile.contains("\"finished\""), "{profile}");
        let (refused, as_usual) = without_room(|| (ask("/?__geordi__=json", None), ask("/", None)));
        assert_eq!(refused.0, 500, "{}", refused.1);
        assert!(refused.1.contains("a thread for it could not be started"), "{}", refused.1);
        assert_eq!((as_usual.0, &*as_usual.1), (200, "well"));
        let (status, profile) = ask("/?__geordi__=json", None);
        assert!(status == 200 && profile.contains("\"finished\""), "{profile}");
    });
}

/// Guards: a request whose thread does not start is dropped on a thread of its own as soon as there is one. However long its
/// destructors take, it has left its turn, and others are profiled; but it counts with those that do not return.
#[test]
fn a_request_without_a_thread_blocks_nobody() {
    alone("a_request_without_a_thread_blocks_nobody", || {
        let (one, others) = (Wall::default(), Wall::default());
        let ask = asked(ProfileLayer::new(|_: &Parts| true).max_concurrent(1).max_queued(0));
        assert_eq!(ask("/?__geordi__=json,inline", None).0, 200);
        without_room(|| {
            for wall in std::iter::once(&one).chain([&others; 7]) {
                let (status, said) = ask("/?__geordi__=json", Some(wall));
                // At once: the turn of the one before is free.
                assert!(status == 500 && said.contains("a thread for it could not be started"), "{status} {said}");
            }
        });
        one.until_blocked(1);
        others.until_blocked(7);
        let (status, said) = ask("/?__geordi__=json", None);
        assert!(status == 503 && said.starts_with("Too many profiled requests"), "{status} {said}");
        assert_eq!(ask("/", None).1, "well");
        others.open();
        until("profiles are possible again", || ask("/?__geordi__=json", None).0 == 200);
        one.until_blocked(1);
        one.open();
        one.until_blocked(0);
        others.until_blocked(0);
    });
}
