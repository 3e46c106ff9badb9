//! What becomes of calls whose time is up.

use std::future::{Ready, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use heeler::timebox::{self, Limit, timebox};
use heeler::{DeadlineLayer, Interrupted, TimeboxExt as _};
use http::{HeaderName, Request};
use tower::util::BoxCloneService;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

use crate::common::{FOREVER, ms, until};
use crate::{BoxError, interrupted};

const NAMED: HeaderName = HeaderName::from_static("x-left-ms");

/// A client whose calls end as `call` says, and how many were made.
fn client<F>(
    default: Duration,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> (BoxCloneService<Request<()>, u32, BoxError>, Arc<AtomicUsize>)
where
    F: Future<Output = Result<u32, &'static str>> + Send + 'static,
{
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let service = service_fn(move |_: Request<()>| {
        counter.fetch_add(1, Ordering::SeqCst);
        call()
    });
    (BoxCloneService::new(DeadlineLayer::new(default).header(NAMED).layer(service)), made)
}

fn to(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

fn get() -> Request<()> {
    to("http://photos.example/")
}

/// Guards: whatever a call returns in time, a response or an error, is returned unchanged.
#[tokio::test]
async fn a_call_in_time_returns_its_own_result() {
    let (answers, _) = client(FOREVER, || ready(Ok(7)));
    assert_eq!(answers.oneshot(get()).await.unwrap(), 7);
    let (fails, _) = client(FOREVER, || ready(Err("refused")));
    let error = fails.oneshot(get()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), Interrupted::find(&*error).is_none()), ("refused", true));
}

/// Guards: at its limit a call is dropped before its caller gets the error. The error says whom the call was to, how long it
/// was allowed to take, and where it waited.
#[tokio::test]
async fn a_call_is_dropped_at_its_limit() {
    struct Held(Arc<AtomicUsize>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let (mut client, made) = client(ms(30), move || {
        let held = Held(Arc::clone(&counter));
        async move {
            tokio::time::sleep(FOREVER).await;
            drop(held);
            Ok(7)
        }
    });
    let mut call = client.call(to("http://user:secret@photos.example:80/path?token=secret"));
    let error = (&mut call).await.unwrap_err();
    assert_eq!((made.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
    let interrupted = interrupted(&*error);
    assert_eq!((interrupted.label(), interrupted.limit()), (Some("call to photos.example"), ms(30)));
    assert!(interrupted.elapsed() >= ms(29), "{interrupted:?}");
    until("the place has a name", || error.to_string().contains("limits.rs"));
    let text = error.to_string();
    assert!(text.contains("a_call_is_dropped_at_its_limit"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// Guards: an outer timebox with less time left interrupts all of its work, and no `Err` arm for the call catches that.
#[tokio::test]
async fn the_outer_timebox_interrupts_everything() {
    let (client, made) = client(FOREVER, pending);
    let caught = AtomicUsize::new(0);
    let result = async {
        let result = client.oneshot(get()).await;
        caught.fetch_add(1, Ordering::SeqCst);
        result.is_ok()
    }
    .timebox(ms(30))
    .label("around")
    .await;
    assert!(result.unwrap_err().is_from("around"));
    assert_eq!((made.load(Ordering::SeqCst), caught.load(Ordering::SeqCst)), (1, 0));
}

/// Guards: a call that is made in a timebox, and polled in a task outside it, still has no more time than the timebox had
/// left.
#[tokio::test]
async fn a_call_keeps_the_deadline_of_its_timebox() {
    let (mut client, _) = client(FOREVER, || tokio::time::sleep(FOREVER).map(|()| Ok(7)));
    let (call, left) = timebox(ms(60), async {
        let call = client.call(get());
        (call, timebox::remaining().unwrap())
    })
    .await
    .unwrap();
    let error = call.await.unwrap_err();
    let interrupted = interrupted(&*error);
    assert!(interrupted.limit() <= ms(60) && left <= ms(60), "{interrupted:?}");
}

/// Guards: with no time left no call is made. In a timebox with grace the caller learns that at once, and can end by itself.
#[tokio::test]
async fn no_call_is_made_without_time() {
    let (client, made) = client(FOREVER, || ready(Ok(7)));
    let result = async {
        timebox::interrupted().await;
        let started = Instant::now();
        let error = client.clone().oneshot(get()).await.unwrap_err();
        (interrupted(&*error), started.elapsed())
    }
    .timebox(Limit::from(ms(10)).label("around").grace(FOREVER))
    .await;
    let (interrupted, _waited) = result.expect("the work ends within its grace");
    assert!(interrupted.is_from("around") && interrupted.to_string().contains("deadline"), "{interrupted}");
    assert_eq!(made.load(Ordering::SeqCst), 0);

    // without a grace the timebox drops its work at that call
    let over = AtomicUsize::new(0);
    let result = async {
        std::thread::sleep(ms(30));
        let result = client.oneshot(get()).await;
        over.fetch_add(1, Ordering::SeqCst);
        result.is_ok()
    }
    .timebox(Limit::from(ms(10)).label("around"))
    .await;
    assert!(result.unwrap_err().is_from("around"));
    assert_eq!((made.load(Ordering::SeqCst), over.load(Ordering::SeqCst)), (0, 0));
}

/// Guards: a default of zero refuses every call, outside any timebox and inside one.
#[tokio::test]
async fn a_default_of_zero_refuses_every_call() {
    let (client, made) = client(Duration::ZERO, || ready(Ok(7)));
    for around in [None, Some(FOREVER)] {
        let call = client.clone().oneshot(get());
        let error = match around {
            None => call.await.unwrap_err(),
            Some(around) => timebox(around, call).await.expect("the call's own limit").unwrap_err(),
        };
        let interrupted = interrupted(&*error);
        assert_eq!((interrupted.label(), interrupted.limit()), (Some("call to photos.example"), Duration::ZERO));
    }
    assert_eq!(made.load(Ordering::SeqCst), 0);

    // also without a header
    let never = service_fn(|_: Request<()>| -> Ready<Result<(), BoxError>> { panic!("a call was made") });
    let error = DeadlineLayer::new(Duration::ZERO).layer(never).oneshot(get()).await.unwrap_err();
    assert_eq!(interrupted(&*error).limit(), Duration::ZERO);
}

/// Guards: code that repeats a failed call without a pause does not outlive its timebox, because refused calls yield.
#[tokio::test]
async fn retries_without_a_pause_end_with_the_timebox() {
    let (client, made) = client(FOREVER, || async {
        tokio::task::yield_now().await;
        Err("down")
    });
    let result = async {
        loop {
            let _ = client.clone().oneshot(get()).await;
        }
    }
    .timebox(ms(30))
    .label("around");
    let result: Result<(), _> = result.await;
    assert!(result.unwrap_err().is_from("around"));
    assert!(made.load(Ordering::SeqCst) > 0);
}

/// Guards: a client that gives up by its own clock at the same time does not hide whose time was up: the call's limit, or
/// that of the outer timebox, whose work is all dropped.
#[tokio::test]
async fn a_clients_own_timeout_does_not_hide_the_limit() {
    async fn gives_up() -> Result<u32, &'static str> {
        tokio::time::sleep(ms(20)).await;
        Err("timed out by itself")
    }
    for _ in 0..50 {
        let (own, _) = client(ms(20), gives_up);
        let error = own.oneshot(get()).await.unwrap_err();
        assert_eq!(interrupted(&*error).label(), Some("call to photos.example"));

        let (others, _) = client(FOREVER, gives_up);
        let result = others.oneshot(get()).timebox(ms(20)).label("around").await;
        assert!(result.unwrap_err().is_from("around"));
    }
}

/// Guards: a peer's own deadline is respected. A caller's smaller header limits the call here, too.
#[tokio::test]
async fn a_smaller_header_of_the_caller_limits_the_call() {
    let (client, _) = client(FOREVER, pending);
    let request = Request::get("/").header(NAMED, "20").body(()).unwrap();
    let error = client.oneshot(request).await.unwrap_err();
    let interrupted = interrupted(&*error);
    assert_eq!((interrupted.label(), interrupted.limit()), (Some("call"), ms(20)));
}

/// Guards: layers, services and futures can be used where tower needs them.
#[test]
fn layers_are_send_sync_and_clone() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn check_send<T: Send>(_: &T) {}
    let layer = DeadlineLayer::new(FOREVER);
    check(&layer);
    let mut service = layer
        .layer(service_fn(|_: Request<()>| -> BoxFuture<'static, Result<(), BoxError>> { Box::pin(ready(Ok(()))) }));
    check(&service);
    check_send(&service.call(get()));
}
