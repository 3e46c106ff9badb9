//! Reports for unit tests.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use super::Reports;
use super::model::{Interval, ProcessInfo, Report, RequestInfo, SCHEMA, Span, Stack, Thread};
use crate::capture::Frame;
use crate::capture::RowId;
use crate::inflight::Subject;
use crate::monitor::{Evidence, Kind, Others, Verdict};
use crate::report::assemble::around::Around;
use crate::report::assemble::elsewhere::Elsewhere;
use crate::report::model::words::{Activity, StackKind};

/// Returns what this thread logs while `run` runs, as text.
pub(crate) fn logged(run: impl FnOnce()) -> String {
    #[derive(Default, Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = std::mem::take(&mut *lines.0.lock().unwrap());
    String::from_utf8(bytes).unwrap()
}

/// A frame of the application's own, in `src/app.rs`.
pub(crate) fn own(function: &str, line: u32) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: Some("src/app.rs".to_owned()),
        line: Some(line),
        module: Some("photos".to_owned()),
        address: "0x1f00".to_owned(),
        own: true,
        ..Frame::default()
    }
}

/// A frame of a library.
pub(crate) fn library(function: &str) -> Frame {
    let package = function.trim_start_matches('<').split("::").next().unwrap_or_default();
    let file = match package {
        "core" | "alloc" | "std" => {
            format!("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/{package}/src/task.rs")
        }
        _ => format!("/home/me/.cargo/registry/src/index-0123456789abcdef/{package}-1.2.3/src/lib.rs"),
    };
    Frame {
        function: Some(function.to_owned()),
        file: Some(file),
        line: Some(100),
        module: Some("photos".to_owned()),
        address: "0x2f00".to_owned(),
        ..Frame::default()
    }
}

pub(crate) fn await_stack(frames: &[Frame]) -> Stack {
    Stack { frames: frames.to_vec(), ..Stack::empty(StackKind::Await) }
}

pub(crate) fn thread_stack(frames: &[Frame]) -> Stack {
    Stack { kind: StackKind::Thread, thread: Some(thread()), ..await_stack(frames) }
}

pub(crate) fn culprit(frames: &[Frame]) -> Stack {
    Stack { kind: StackKind::Culprit, work: Some("POST /tags".to_owned()), ..thread_stack(frames) }
}

pub(crate) fn thread() -> Thread {
    Thread {
        id: 4243,
        name: "tokio-rt-worker".to_owned(),
        state: Some("running".to_owned()),
        on_cpu: Some(true),
        ..Thread::default()
    }
}

/// A request that waits for a lock.
pub(crate) fn report() -> Report {
    let mut stuck = own("photos::wait_for_import", 88);
    stuck.file = Some("examples/photos/slow.rs".to_owned());
    stuck.source = Some("let _import = self.import.lock().await;".to_owned());
    let mut frames = vec![
        library("<tokio::sync::batch_semaphore::Acquire as core::future::future::Future>::poll"),
        library("tokio::sync::mutex::Mutex<T>::acquire"),
        library("tokio::sync::mutex::Mutex<T>::lock"),
        stuck,
    ];
    frames.push(own("photos::lock_page", 40));
    frames.extend(
        (0..9).map(|_| library("<axum::handler::future::IntoServiceFuture<F> as core::future::future::Future>::poll")),
    );
    frames.extend((0..4).map(|_| library("hyper::proto::h1::dispatch::Dispatcher<D, Bs, I, T>::poll_loop")));
    frames.push(library("core::ops::function::FnOnce::call_once"));
    let started_at = UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    Report {
        schema: SCHEMA,
        id: "8f14e45fceea167a-17".to_owned(),
        update: 0,
        kind: Kind::SlowRequest,
        verdict: Verdict::Waiting,
        captured_at: started_at + Duration::from_millis(2_510),
        started_at,
        elapsed: Duration::from_millis(2_510),
        threshold: Some(Duration::from_millis(2_500)),
        request: Some(RequestInfo {
            id: 17,
            method: "GET".to_owned(),
            uri: "/slow/lock".to_owned(),
            route: Some("/slow/{what}".to_owned()),
            version: "HTTP/1.1".to_owned(),
            headers: vec![("host".to_owned(), "localhost:3000".to_owned())],
        }),
        job: None,
        trace_id: None,
        span_id: None,
        trace_url: None,
        ending: None,
        process: ProcessInfo {
            hostname: "web1".to_owned(),
            pid: 4242,
            executable: "/opt/photos".to_owned(),
            build_id: Some("abcdef".to_owned()),
            service: None,
            version: None,
            instance: None,
            zone: None,
        },
        thread: None,
        polls: 2,
        busy: Duration::from_micros(400),
        waiting: Duration::from_millis(2_200),
        unobserved: Duration::from_micros(309_600),
        longest_poll: Duration::from_micros(300),
        location: None,
        repeats: None,
        denied: None,
        awaiting: None,
        stacks: vec![await_stack(&frames)],
        timeline: vec![
            Interval { activity: Activity::Waiting, stack: Some(0), waits: 1, time: Duration::from_millis(2_200) },
            Interval { activity: Activity::Unobserved, stack: None, waits: 0, time: Duration::from_micros(309_600) },
            Interval { activity: Activity::Running, stack: None, waits: 2, time: Duration::from_micros(400) },
        ],
        spans: vec![Span { name: "request".to_owned(), fields: vec![("user".to_owned(), "7".to_owned())] }],
        notes: Vec::new(),
        fingerprint: String::new(),
        suppressed: 0,
        others: None,
        incident: String::new(),
        fleet: None,
        dump: None,
        around: Around::default(),
        elsewhere: Elsewhere::default(),
        child_needs_thread: false,
    }
}

/// The same in a trace.
pub(crate) fn traced() -> Report {
    Report {
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        span_id: Some("00f067aa0ba902b7".to_owned()),
        ..report()
    }
}

/// The evidence that the monitor would hand over for work of which nothing is known.
pub(crate) fn evidence(reports: Reports) -> Evidence {
    Evidence {
        id: RowId::NONE,
        work: RowId::NONE,
        update: 0,
        kind: Kind::SlowRequest,
        verdict: Verdict::Unknown,
        reports: reports.target(),
        subject: Subject::Nothing,
        started: 0,
        captured: UNIX_EPOCH,
        moment: 0,
        elapsed: 0,
        threshold: 0,
        polls: 0,
        busy: 0,
        busy_polls: 0,
        longest_poll: 0,
        runnable: 0,
        waits: Vec::new(),
        current: None,
        silence: None,
        thread: None,
        culprits: Vec::new(),
        children: Vec::new(),
        child_needs_thread: false,
        contention: None,
        others: Others::default(),
        denied: None,
        notes: Vec::new(),
        #[cfg(feature = "otel")]
        span: None,
    }
}
