//! A child of `fork` has none of its parent's threads, and whatever lock they held stays locked: heeler begins anew there.
#![cfg(all(feature = "watchdog", feature = "timebox"))]
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "forks")]

use std::io::Read as _;
use std::os::fd::FromRawFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use heeler::{Interrupted, TimeboxExt as _, checkpoint, timebox};

/// One test at a time: a bare call copies locks of the C library, too, which nothing else may hold.
static ALONE: Mutex<()> = Mutex::new(());

/// What a child may take. It has no other way to say that it hangs.
const PATIENCE: u32 = 60;

/// By which system call: C libraries run handlers in the child, bare calls do not.
#[derive(Debug, Clone, Copy)]
enum By {
    Library,
    BareCall,
}

/// Runs `work` in a child of this process, and returns what it returns, as text.
fn in_child(by: By, work: impl FnOnce() -> String) -> String {
    let mut ends = [0; 2];
    // SAFETY: fills in the two ends of a pipe.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let child = match by {
        // SAFETY: the child goes on with this thread alone, which is what the test is about.
        By::Library => unsafe { libc::fork() },
        // SAFETY: as above; no pointer is passed.
        By::BareCall => unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 },
    };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: ends the process if it takes too long.
        unsafe { libc::alarm(PATIENCE) };
        let text = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|panic| format!("{:?}", panic.downcast_ref::<String>()));
        // SAFETY: writes the bytes of a string that lives on, and ends the process without running anybody's destructors.
        unsafe {
            libc::write(ends[1], text.as_ptr().cast(), text.len());
            libc::_exit(0);
        }
    }
    // SAFETY: both are open, and nobody else closes them.
    let mut reader = unsafe {
        libc::close(ends[1]);
        std::fs::File::from_raw_fd(ends[0])
    };
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{by:?}: the child did not end: {status:#x}");
    text
}

/// A box that only the monitor can end: says how that went.
fn box_of_plain_code() -> String {
    let began = Instant::now();
    let result: Result<(), Interrupted> = timebox::blocking(Duration::from_millis(30), || {
        while began.elapsed() < Duration::from_secs(20) {
            checkpoint()?;
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    });
    if result.is_err() { "expired".to_owned() } else { "not expired".to_owned() }
}

/// The same around a future.
fn box_of_a_future() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = async { tokio::time::sleep(Duration::from_secs(20)).await };
    match runtime.block_on(work.timebox(Duration::from_millis(30))) {
        Ok(()) => "not expired".to_owned(),
        Err(_) => "expired".to_owned(),
    }
}

/// Guards: timeboxes in a child expire, however it was made, and in the child of a child.
#[test]
fn timeboxes_expire_in_a_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(box_of_plain_code(), "expired", "in the parent, which has a monitor from here on");
    for by in [By::Library, By::BareCall] {
        assert_eq!(in_child(by, box_of_plain_code), "expired", "{by:?}");
        assert_eq!(in_child(by, box_of_a_future), "expired", "{by:?}");
        assert_eq!(in_child(by, || in_child(by, box_of_plain_code)), "expired", "{by:?}, twice");
        // On a thread that the child has made, and then on the one that it began with.
        let elsewhere = || format!("{} {}", std::thread::spawn(box_of_plain_code).join().unwrap(), box_of_plain_code());
        assert_eq!(in_child(by, elsewhere), "expired expired", "{by:?}");
    }
    assert_eq!(box_of_plain_code(), "expired", "in the parent, as before");
}

/// Guards: work that was under way at the fork can be polled and dropped in the child. It is watched only in the parent.
#[test]
fn work_under_way_is_inert_in_the_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut polls = 0;
    let work = std::future::poll_fn(move |_| {
        polls += 1;
        if polls == 1 {
            return Poll::Pending;
        }
        Poll::Ready(in_child(By::Library, || format!("{} {}", box_of_plain_code(), box_of_a_future())))
    });
    let job = heeler::watch("forks", Duration::from_secs(60), work.timebox(Duration::from_secs(50)));
    let mut job = Some(Box::pin(job));
    let mut poll = || job.as_mut().map(|job| job.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    assert!(poll().is_some_and(|polled| polled.is_pending()));
    let polled = in_child(By::Library, || format!("{}", poll().is_some_and(|polled| polled.is_ready())));
    assert_eq!(polled, "true");
    match poll() {
        Some(Poll::Ready(Ok(seen))) => assert_eq!(seen, "expired expired"),
        other => panic!("{other:?}"),
    }
    let dropped = in_child(By::Library, || {
        job = None;
        box_of_plain_code()
    });
    assert_eq!(dropped, "expired");
}

/// Guards: a job whose profile is being recorded can be polled and dropped in the child. It is recorded only in the parent.
#[cfg(feature = "profile")]
#[test]
fn a_recorded_job_is_inert_in_the_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let store = heeler::profile::ProfileStore::memory();
    let layer = heeler::ProfileLayer::new(|_: &http::request::Parts| true).store(store.clone());
    let gate = Arc::new(AtomicBool::new(false));
    let job = || {
        let gate = Arc::clone(&gate);
        let work =
            std::future::poll_fn(move |_| if gate.load(Ordering::Relaxed) { Poll::Ready(7) } else { Poll::Pending });
        let layer = layer.clone();
        Box::pin(async move { layer.job("forks", work).await })
    };
    let poll =
        |job: &mut std::pin::Pin<Box<_>>| Future::poll(Pin::as_mut(job), &mut Context::from_waker(Waker::noop()));
    let (mut polled, mut dropped) = (job(), Some(job()));
    assert!(poll(&mut polled).is_pending() && poll(dropped.as_mut().unwrap()).is_pending());
    for _ in 0..20 {
        let seen = in_child(By::Library, || {
            gate.store(true, Ordering::Relaxed);
            dropped = None;
            format!("{:?} {}", poll(&mut polled), futures::executor::block_on(layer.flush(Duration::from_secs(40))))
        });
        assert_eq!(seen, "Ready(7) true");
    }
    gate.store(true, Ordering::Relaxed);
    assert!(poll(&mut polled).is_ready() && poll(dropped.as_mut().unwrap()).is_ready());
    assert!(futures::executor::block_on(layer.flush(Duration::from_secs(40))));
    assert_eq!(store.stats().stored, 2);
}

/// Guards: a task that was pending at the fork is woken in the child by what it waits for.
#[test]
fn tasks_pending_at_a_fork_wake_in_the_child() {
    /// Keeps its waker, and is never ready.
    struct Leaf(Arc<Mutex<Option<Waker>>>);

    impl Future for Leaf {
        type Output = ();

        fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            *self.0.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    struct Flag(AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (task, kept) = (Arc::new(Flag(AtomicBool::new(false))), Arc::new(Mutex::new(None)));
    let waker = Waker::from(task.clone());
    let mut work = Box::pin(heeler::watch("waits", Duration::from_secs(60), Leaf(kept.clone())));
    assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for by in [By::Library, By::BareCall] {
        let woken = in_child(by, || {
            // A child's own work begins a table of its own.
            let ended = box_of_plain_code();
            kept.lock().unwrap().take().unwrap().wake();
            let woken = task.0.swap(false, Ordering::SeqCst);
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            kept.lock().unwrap().take().unwrap().wake();
            format!("{ended} {woken} {polled} {}", task.0.load(Ordering::SeqCst))
        });
        assert_eq!(woken, "expired true true true", "{by:?}");
    }
    assert!(!task.0.load(Ordering::SeqCst), "the parent's task is not woken");
}

/// Guards: a fork at any moment leaves no lock behind that the child waits for.
#[test]
fn a_child_waits_for_no_lock_of_its_parent() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let work = async { tokio::time::sleep(Duration::from_millis(3)).await };
                    let watched = heeler::watch("busy", Duration::from_millis(1), work);
                    let _ = runtime.block_on(watched.timebox(Duration::from_millis(2)));
                }
            });
        }
        let rounds = if cfg!(debug_assertions) { 60 } else { 300 };
        for _ in 0..rounds {
            assert_eq!(in_child(By::Library, box_of_plain_code), "expired");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_child_has_its_own_metrics() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(heeler::watch("one", Duration::from_secs(60), async {}));
    let seen = in_child(By::Library, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(heeler::watch("another", Duration::from_secs(60), async {}));
        format!("{}", heeler::metrics().watched.jobs)
    });
    assert_eq!(seen, "1");
}

/// Collects reports, and fails for as long as it is told to.
#[derive(Default)]
struct Sink {
    is_down: AtomicBool,
    taken: Mutex<Vec<String>>,
}

impl heeler::Sink for Sink {
    fn name(&self) -> &str {
        "test"
    }

    fn deliver(&self, report: &heeler::Report) -> Result<(), heeler::SinkError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err("down".into());
        }
        self.taken.lock().unwrap().push(report.job.clone().unwrap_or_default());
        Ok(())
    }
}

/// Runs work until it has been reported.
fn slow(name: &'static str, reports: &heeler::Reports) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (began, made) = (Instant::now(), reports.stats().made);
    let work = async {
        while reports.stats().made == made && began.elapsed() < Duration::from_secs(40) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime.block_on(heeler::watch(name, Duration::from_millis(5), work).reports(reports.clone()));
}

/// Guards: a child reports through what the parent has built, in a spool folder of its own. It sends nothing that was on its
/// way from the parent, and does not keep the parent's folder from a process that takes it over.
#[test]
fn a_child_reports_for_itself() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, sink) = (tempfile::tempdir().unwrap(), Arc::new(Sink::default()));
    let builder = heeler::Reports::builder().without_log().repeat_after(Duration::ZERO).spool(place.path());
    let reports = builder.sink(Arc::clone(&sink)).build().unwrap();
    sink.is_down.store(true, Ordering::Relaxed);
    slow("of the parent", &reports);
    let began = Instant::now();
    while reports.stats().queued == 0 {
        assert!(began.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = in_child(By::Library, || {
        sink.is_down.store(false, Ordering::Relaxed);
        slow("of the child", &reports);
        let flushed = reports.blocking_flush(Duration::from_secs(40));
        let mut taken = sink.taken.lock().unwrap().clone();
        taken.dedup();
        format!("{flushed} {taken:?} {}", std::fs::read_dir(place.path()).unwrap().count())
    });
    assert_eq!(seen, r#"true ["of the child"] 2"#);
    sink.is_down.store(false, Ordering::Relaxed);
    assert!(reports.blocking_flush(Duration::from_secs(40)));
    let mut taken = sink.taken.lock().unwrap().clone();
    taken.dedup();
    assert_eq!(taken, ["of the parent"]);
}

/// Guards: a fork does not copy the lock of `backtrace` while heeler has it name functions, which it does where stacks are not
/// copied: whoever needs it in the child would wait for ever.
#[test]
fn a_child_finds_no_lock_of_others_held() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let reports = heeler::Reports::builder().without_log().repeat_after(Duration::ZERO).build().unwrap();
    // The first time takes longer than a fork waits.
    slow("of the parent", &reports);
    assert!(reports.blocking_flush(Duration::from_secs(40)));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for _ in 0..4 {
                slow("of the parent", &reports);
                assert!(reports.blocking_flush(Duration::from_secs(40)));
            }
        });
        while !worker.is_finished() {
            let seen = in_child(By::Library, || {
                // It takes the lock.
                backtrace::clear_symbol_cache();
                "goes on".to_owned()
            });
            assert_eq!(seen, "goes on");
        }
    });
}

/// Guards: a child does not wait for what its parent does while it samples the whole process, and says why it cannot do so itself.
#[cfg(feature = "pprof")]
#[test]
fn a_child_says_why_the_process_is_not_profiled() {
    use http_body_util::BodyExt as _;
    use tower::{Layer as _, ServiceExt as _};

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let layer = heeler::ProfileLayer::new(|_: &http::request::Parts| true).allow_process_profiles();
    let service = layer.layer(tower::service_fn(async |_: http::Request<String>| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    }));
    let notes = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = http::Request::get("/?__geordi__=json,process").body(String::new()).unwrap();
        let body = runtime.block_on(async {
            let response = service.clone().oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let profile: heeler::profile::Profile = serde_json::from_slice(&body).unwrap();
        profile.notes.join("; ")
    };
    const WHY: &str = "the rest of a process cannot be profiled once the one that forked it has tried that";
    std::thread::scope(|scope| {
        assert!(!notes().contains(WHY));
        let worker = scope.spawn(notes);
        while !worker.is_finished() {
            let seen = in_child(By::Library, || {
                backtrace::clear_symbol_cache();
                "goes on".to_owned()
            });
            assert_eq!(seen, "goes on");
        }
        assert!(!worker.join().unwrap().contains(WHY));
    });
    // Where tokio uses `parking_lot`, wake-ups would get lost if threads of the parent's were in its table.
    for _ in 0..5 {
        assert!(in_child(By::Library, notes).contains(WHY));
    }
}

/// Guards: a request that is profiled in the parent takes no place from the child's.
#[cfg(feature = "profile")]
#[test]
fn a_child_profiles_while_its_parent_does() {
    use tower::{Layer as _, ServiceExt as _};

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (runs, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let handler = {
        let (runs, go_on) = (Arc::clone(&runs), Arc::clone(&go_on));
        move |request: http::Request<String>| {
            let (runs, go_on) = (Arc::clone(&runs), Arc::clone(&go_on));
            async move {
                if request.uri().path() == "/waits" {
                    runs.store(true, Ordering::Release);
                    go_on.notified().await;
                }
                Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
            }
        }
    };
    let layer = heeler::ProfileLayer::new(|_: &http::request::Parts| true).max_concurrent(1);
    let service = layer.layer(tower::service_fn(handler));
    let status_of = |path: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = http::Request::get(format!("{path}?__geordi__=json")).body(String::new()).unwrap();
        runtime.block_on(service.clone().oneshot(request)).unwrap().status().as_u16()
    };
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| status_of("/waits"));
        let began = Instant::now();
        while !runs.load(Ordering::Acquire) {
            assert!(began.elapsed() < Duration::from_secs(40));
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = in_child(By::Library, || format!("{}", status_of("/")));
        go_on.notify_one();
        assert_eq!((&*seen, waits.join().unwrap()), ("200", 200));
    });
}

/// A server that takes what is pushed. The first connection has to wait for its answer.
#[cfg(feature = "pyroscope")]
struct SlowServer {
    url: String,
    answer: std::sync::mpsc::Sender<()>,
}

#[cfg(feature = "pyroscope")]
impl SlowServer {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, may_answer) = std::sync::mpsc::channel();
        let mut first = Some(may_answer);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let wait = first.take();
                std::thread::spawn(move || serve(connection, wait));
            }
        });
        Self { url, answer }
    }
}

/// Answers every request of a connection.
#[cfg(feature = "pyroscope")]
fn serve(connection: std::net::TcpStream, mut wait: Option<std::sync::mpsc::Receiver<()>>) {
    use std::io::{BufRead as _, BufReader, Write as _};

    let mut reader = BufReader::new(connection);
    loop {
        let (mut length, mut line) = (0, String::new());
        while matches!(reader.read_line(&mut line), Ok(read) if read > 2) {
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || reader.read_exact(&mut body).is_err() {
            return;
        }
        if let Some(wait) = wait.take() {
            let _ = wait.recv();
        }
        let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    }
}

/// Guards: a child pushes its own profiles, and none of those that are on their way from the parent.
#[cfg(feature = "pyroscope")]
#[test]
fn a_child_pushes_its_own_profiles() {
    const LONG: Duration = Duration::from_secs(40);

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = SlowServer::start();
    let pyroscope = heeler::Pyroscope::new(&server.url);
    let layer = heeler::ProfileLayer::new(|_: &http::request::Parts| true).pyroscope(pyroscope).unwrap();
    let profile = |name: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(layer.job(name, tokio::task::yield_now()));
    };
    let stats = || layer.pyroscope_stats().unwrap();
    profile("of the parent");
    let began = Instant::now();
    while stats().queued == 0 {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = in_child(By::Library, || {
        profile("of the child");
        let flushed = futures::executor::block_on(layer.flush(LONG));
        format!("{flushed} {} {}", stats().delivered, stats().queued)
    });
    assert_eq!(seen, "true 1 0");
    assert_eq!((stats().delivered, stats().queued), (0, 1));
    server.answer.send(()).unwrap();
    assert!(futures::executor::block_on(layer.flush(LONG)));
    assert_eq!((stats().delivered, stats().queued), (1, 0));
}
