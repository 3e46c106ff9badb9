//! What becomes of a profile when the application's pool for blocking work is full: of so many threads that the test has the
//! process for itself.
#![cfg(feature = "profile")]

#[path = "common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use heeler::ProfileLayer;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// More than the pool has threads.
const MANY: usize = 520;

/// Guards: a profile is made all the same, and so is the next one. Rows that other requests left behind are not waited for.
#[test]
fn a_full_table_does_not_stop_profiles() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let service = {
        let gate = Arc::clone(&gate);
        service_fn(move |_: Request<Full<Bytes>>| {
            let gate = Arc::clone(&gate);
            async move {
                for _ in 0..MANY {
                    let gate = Arc::clone(&gate);
                    drop(heeler::spawn_blocking(move || {
                        let (open, opened) = &*gate;
                        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
                    }));
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("well")))
            }
        })
    };
    let service = ProfileLayer::new(|_: &Parts| true).layer(service);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ask = || async {
        let request = Request::get("/?__geordi__=json").body(Full::default()).unwrap();
        let (head, body) = service.clone().oneshot(request).await.unwrap().into_parts();
        (head.status, body.collect().await.unwrap().to_bytes())
    };
    let asked = runtime.block_on(async {
        let both = async { [ask().await, ask().await] };
        tokio::time::timeout(common::PATIENCE, both).await
    });
    let (open, opened) = &*gate;
    *open.lock().unwrap() = true;
    opened.notify_all();
    for (status, profile) in asked.expect("a profile is made") {
        let profile = String::from_utf8_lossy(&profile);
        assert!(status == 200 && profile.contains("\"finished\""), "{status} {profile}");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}
