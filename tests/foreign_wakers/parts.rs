//! Parts of a request whose destructors block.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use heeler::WatchdogLayer;
use http::{HeaderValue, Request, Response, Uri};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::blocking::assert_boxes_expire;
use super::common::{Driven, alone, collect, ms, until};

/// Bytes with an owner, as those of a mapped file or of a pool of buffers.
struct Owned {
    text: &'static [u8],
    events: Arc<Events>,
}

#[derive(Default)]
struct Events {
    dropped_by: Mutex<Vec<String>>,
    may_go_on: AtomicBool,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.text
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        self.events.dropped_by.lock().unwrap().push(name);
        while !self.events.may_go_on.load(Ordering::SeqCst) {
            std::thread::sleep(ms(1));
        }
    }
}

/// Guards: a request's header, path and extensions may take any time to be dropped. No thread of heeler drops them, although
/// they were reported, and none waits for it.
#[test]
fn slow_destructors_of_a_request_delay_nobody() {
    let _guard = alone();
    let (seen, reports) = collect();
    let events = Arc::new(Events::default());
    let driven = Driven::new(2);
    let release = Arc::new(tokio::sync::Notify::new());
    // Its threshold passes while its parts are dropped, too, so that the monitor looks at it then.
    let layer = WatchdogLayer::new(ms(80)).reports(reports);
    let owned = |text| Bytes::from_owner(Owned { text, events: events.clone() });
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_maybe_shared(owned(b"/some/path")).unwrap();
    request.headers_mut().insert("user-agent", HeaderValue::from_maybe_shared(owned(b"somebody")).unwrap());
    request.extensions_mut().insert(Arc::new(Owned { text: b"", events: events.clone() }));
    let service = service_fn({
        let release = release.clone();
        move |request: Request<()>| {
            let release = release.clone();
            async move {
                release.notified().await;
                drop(request);
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        }
    });
    driven.spawn(layer.layer(service).oneshot(request));
    let report = seen.first();
    assert_eq!(report.request.as_ref().map(|request| request.uri.as_str()), Some("/some/path"), "{}", report.to_text());
    assert!(report.to_text().contains("somebody"), "{}", report.to_text());
    release.notify_one();
    until("something is dropped", || !events.dropped_by.lock().unwrap().is_empty());
    for _ in 0..3 {
        assert_boxes_expire();
    }
    events.may_go_on.store(true, Ordering::SeqCst);
    until("all is dropped", || events.dropped_by.lock().unwrap().len() == 3);
    for thread in events.dropped_by.lock().unwrap().iter() {
        assert!(thread.starts_with("tokio-"), "dropped on {thread}");
    }
}

/// Guards: while the contents of a row are dropped, a thread that still has its id does not wait for that.
#[test]
fn dropping_an_ended_row_delays_nobody() {
    let _guard = alone();
    let events = Arc::new(Events::default());
    let bytes = Bytes::from_owner(Owned { text: b"somebody", events: events.clone() });
    let mut request = Request::new(());
    request.headers_mut().insert("user-agent", HeaderValue::from_maybe_shared(bytes).unwrap());
    // The row alone has the header until the response, and the monitor has the row's deadline.
    let service = service_fn(|request: Request<()>| async move {
        drop(request);
        tokio::time::sleep(ms(100)).await;
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let (_seen, reports) = collect();
    let driven = Driven::new(2);
    driven.spawn(WatchdogLayer::new(ms(120)).reports(reports).layer(service).oneshot(request));
    until("the row's header is dropped", || !events.dropped_by.lock().unwrap().is_empty());
    // Past its threshold, at which the monitor looks for it.
    std::thread::sleep(ms(200));
    assert_boxes_expire();
    assert_eq!(heeler::metrics().in_flight.requests, 0, "it is over");
    events.may_go_on.store(true, Ordering::SeqCst);
}
