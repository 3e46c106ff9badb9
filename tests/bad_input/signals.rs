//! The signal for thread stacks: taken, replaced, masked. Each in a process of its own, for it has one choice.

#![allow(unsafe_code, reason = "dispositions of signals")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heeler::report::Verdict;
use heeler::{Report, WatchdogLayer, use_signal};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use super::common::{PATIENCE, PORTABLE, collect, in_own_process, ms, place, until};
use super::{ask, get};

extern "C" fn theirs(_: i32) {}

/// Somebody else's handler.
fn take(signal: i32) {
    // SAFETY: the handler does nothing; a zeroed action is valid.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = theirs as *const () as usize;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn handler_of(signal: i32) -> usize {
    // SAFETY: reads the disposition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut action), 0);
        action.sa_sigaction
    }
}

fn is_free(signal: i32) -> bool {
    handler_of(signal) == libc::SIG_DFL
}

/// Runs, rather than sleeps: a sleeping thread needs no signal everywhere. It calls nothing of this crate's.
fn blocks(stop: &AtomicBool) {
    let start = std::time::Instant::now();
    while !stop.load(Ordering::Relaxed) && start.elapsed() < PATIENCE {
        std::hint::black_box(7_u64.wrapping_mul(11));
    }
}

/// The report of a request that blocks after `prepare`, on its own thread.
fn blocking(prepare: impl Fn() + Copy + Send + Sync + 'static) -> Report {
    let (seen, reports) = collect();
    let layer = WatchdogLayer::new(ms(100)).without_blocking_reports().reports(reports);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let reported = std::thread::spawn(move || {
        let report = seen.wait("a thread that blocks", |report| report.verdict == Verdict::Blocking);
        stop.store(true, Ordering::Relaxed);
        report
    });
    let service = layer.layer(tower::service_fn(move |_: Request<()>| {
        let stopped = Arc::clone(&stopped);
        async move {
            prepare();
            blocks(&stopped);
            Ok::<_, std::convert::Infallible>(Response::new("answered"))
        }
    }));
    super::common::runtime(0).block_on(service.oneshot(get("/blocks"))).unwrap();
    reported.join().unwrap()
}

/// Guards: a signal that cannot be used is a clear error, and its owner keeps it. The next one works.
#[test]
fn a_taken_signal_is_an_error() {
    in_own_process("signals::a_taken_signal_is_an_error", || {
        let (taken, free) = (libc::SIGRTMIN() + 3, libc::SIGRTMIN() + 4);
        take(taken);
        if PORTABLE {
            assert!(use_signal(free).unwrap_err().is_unsupported());
            return;
        }
        for signal in [libc::SIGUSR1, libc::SIGSEGV, 0, -1, 1_000, taken] {
            let error = use_signal(signal).unwrap_err();
            assert!(error.is_signal() && error.to_string().contains(&signal.to_string()), "{error}");
        }
        assert_eq!(handler_of(taken), theirs as *const () as usize);
        assert!(is_free(libc::SIGUSR1));
        use_signal(free).unwrap();
        assert_eq!(place(&blocking(|| {})), "blocks");
        use_signal(free).unwrap();
        assert!(use_signal(free + 1).unwrap_err().is_signal());
        assert!(is_free(free + 1));
    });
}

/// Guards: without a choice, a signal that nobody uses is found, and nobody loses theirs.
#[test]
fn finds_a_free_signal() {
    in_own_process("signals::finds_a_free_signal", || {
        let free = libc::SIGRTMAX() - 5;
        let others: Vec<i32> = (libc::SIGRTMIN()..=libc::SIGRTMAX()).filter(|signal| *signal != free).collect();
        others.iter().for_each(|signal| take(*signal));
        let report = blocking(|| {});
        assert_eq!(report.verdict, Verdict::Blocking);
        assert_eq!(PORTABLE, is_free(free));
        assert!(others.iter().all(|signal| handler_of(*signal) == theirs as *const () as usize));
        if !PORTABLE {
            assert_eq!(place(&report), "blocks", "{}", report.to_text());
        }
    });
}

/// Guards: with every signal taken there are no thread stacks, which the report says. Everything else works.
#[test]
fn works_without_a_free_signal() {
    in_own_process("signals::works_without_a_free_signal", || {
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).for_each(take);
        let report = blocking(|| {});
        assert_eq!(report.verdict, Verdict::Blocking);
        let text = report.to_text();
        assert!(report.notes.iter().any(|note| note.contains("could not capture")), "{text}");
        assert!(report.stacks.iter().all(|stack| !stack.current), "{text}");
        let (seen, reports) = collect();
        let layer = WatchdogLayer::new(ms(50)).reports(reports);
        until("a request that waits is reported", || {
            assert_eq!(ask(&layer, get("/waits"), ms(200)), "answered");
            seen.all().iter().any(|report| (report.verdict, &*place(report)) == (Verdict::Waiting, "ask"))
        });
    });
}

/// Guards: a handler that is installed over ours later gets no signal from us, and is not replaced.
#[test]
fn leaves_a_handler_installed_later_alone() {
    in_own_process("signals::leaves_a_handler_installed_later_alone", || {
        if PORTABLE {
            return;
        }
        let signal = libc::SIGRTMIN() + 7;
        use_signal(signal).unwrap();
        assert_eq!(place(&blocking(|| {})), "blocks");
        take(signal);
        let report = blocking(|| {});
        assert_eq!(report.verdict, Verdict::Blocking);
        assert!(report.notes.iter().any(|note| note.contains("replaced")), "{}", report.to_text());
        assert_eq!(handler_of(signal), theirs as *const () as usize);
    });
}

/// Guards: a thread that masks the signal does not answer. The report then says what `/proc` says, and nothing hangs. Once it
/// accepts signals again it answers, and so does another thread that takes its place in the table.
#[test]
fn reports_a_thread_that_masks_the_signal() {
    in_own_process("signals::reports_a_thread_that_masks_the_signal", || {
        if PORTABLE {
            return;
        }
        let without_answer = || {
            let report = blocking(|| mask(libc::SIG_BLOCK));
            assert_eq!(report.verdict, Verdict::Blocking);
            let text = report.to_text();
            assert!(report.notes.iter().any(|note| note.contains("did not answer within 50 ms")), "{text}");
            assert_eq!(report.thread.unwrap().on_cpu, Some(true), "{text}");
        };
        without_answer();
        mask(libc::SIG_UNBLOCK);
        assert_eq!(place(&blocking(|| {})), "blocks");
        // A thread that ends without having answered.
        std::thread::spawn(without_answer).join().unwrap();
        let next = std::thread::spawn(|| place(&blocking(|| {})));
        assert_eq!(next.join().unwrap(), "blocks");
    });
}

fn mask(how: i32) {
    // SAFETY: changes the mask of this thread alone.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        assert_eq!(libc::pthread_sigmask(how, &raw const all, std::ptr::null_mut()), 0);
    }
}
