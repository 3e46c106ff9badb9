//! What a system call notices of a capture: the table in the documentation of `heeler::watchdog`.
#![cfg(feature = "watchdog")]
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "system calls without the standard library's retries")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heeler::Report;
use heeler::report::{StackKind, Verdict};

use common::{PORTABLE, collect, goes_through, ms, until};

/// Looked at after 1, 2, 4 and 8 times as long.
const THRESHOLD: Duration = ms(40);
/// Longer than all of that.
const CALL: Duration = ms(900);

/// Newer architectures have no `poll`.
#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = libc::SYS_ppoll;

/// Sleeping threads are left alone here.
const IN_PEACE: bool = PORTABLE || cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// How often this thread went to sleep by itself: in a call, and once more after each signal that it took there.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// The number of the call that the thread is in.
fn in_call(tid: i32) -> Option<i64> {
    let line = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap();
    line.split(' ').next().and_then(|number| number.parse().ok())
}

/// A watched poll that sits in a call, seen by all four looks: the reports, and what the call came to.
fn caught<T: Send + 'static>(
    calls: [i64; 2],
    call: impl FnOnce() -> T + Send + 'static,
    release: impl FnOnce(),
) -> (Vec<Report>, T) {
    let (seen, reports) = collect();
    let (tell, tid): (Sender<i32>, _) = channel();
    let thread = std::thread::spawn(move || {
        let job = async move {
            // SAFETY: takes nothing, cannot fail.
            tell.send(unsafe { libc::gettid() }).unwrap();
            let before = sleeps();
            let outcome = call();
            (outcome, sleeps() - before)
        };
        futures::executor::block_on(heeler::watch("job", THRESHOLD, job).reports(reports))
    });
    let tid = tid.recv().unwrap();
    until("the thread is in its call", || in_call(tid).is_some_and(|call| calls.contains(&call)));
    seen.wait("the last capture", |report| report.update == 3);
    release();
    let (outcome, sleeps) = thread.join().unwrap();
    // Four looks, but at most one signal: it has not moved.
    assert!((1..=2).contains(&sleeps), "it went to sleep {sleeps} times in one call");
    let reports = seen.all();
    for report in &reports {
        let text = report.to_text();
        assert_eq!(report.verdict, Verdict::Blocking, "{text}");
        if !PORTABLE {
            assert!(goes_through(report, StackKind::Thread, "caught"), "{text}");
            assert!(report.stacks.iter().all(|stack| !stack.truncated), "{text}");
        }
    }
    (reports, outcome)
}

#[track_caller]
fn assert_named(reports: &[Report], call: &str) {
    if !PORTABLE {
        assert!(reports.iter().all(|report| report.thread.as_ref().unwrap().syscall.as_deref() == Some(call)));
    }
}

/// The call's result, or its `errno`.
fn result(value: i64) -> Result<i64, i32> {
    if value < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(value) }
}

/// `EINTR` where the table allows it.
fn peaceful(outcome: Result<i64, i32>, expected: Result<i64, i32>) -> bool {
    outcome == expected || (!IN_PEACE && outcome == Err(libc::EINTR))
}

/// Guards: the read does not notice the capture, with or without a signal.
#[test]
fn a_blocked_read_is_not_interrupted() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let call = move || {
        let mut byte = [0_u8];
        // SAFETY: reads one byte into one.
        result(unsafe { libc::read(reader.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } as i64)
    };
    let (reports, outcome) = caught([libc::SYS_read; 2], call, move || writer.write_all(b"x").unwrap());
    assert_eq!(outcome, Ok(1));
    assert_named(&reports, "read");
}

/// Guards: a signal would end the call early, so the thread gets none where that can be avoided.
#[test]
fn a_blocked_poll_is_left_alone_where_possible() {
    let began = Instant::now();
    // SAFETY: no descriptors.
    let call = || result(unsafe { libc::poll(std::ptr::null_mut(), 0, CALL.as_millis() as i32) }.into());
    let (reports, outcome) = caught([POLL, libc::SYS_ppoll], call, || {});
    assert!(peaceful(outcome, Ok(0)), "{outcome:?}");
    assert!(!IN_PEACE || began.elapsed() >= CALL);
    assert_named(&reports, if cfg!(target_arch = "x86_64") { "poll" } else { "ppoll" });
}

// As in musl, of which no table says how to unwind it: a call within such code, and the frame holds a word that an earlier call has
// left.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.heeler_test_untabled, \"ax\", @progbits",
    ".globl heeler_test_untabled_poll",
    "heeler_test_untabled_poll:",
    "push rbx",
    "sub rsp, 48",
    "mov rax, [rsp + 56]",
    "mov [rsp + 16], rax",
    "xor ebx, ebx",
    "call heeler_test_untabled_call",
    "add rsp, 48",
    "pop rbx",
    "ret",
    "heeler_test_untabled_call:",
    "mov eax, 7",
    "syscall",
    "ret",
    ".popsection",
);

/// Guards: the same for a call made by code without unwind tables.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_poll_by_code_without_tables_is_left_alone() {
    unsafe extern "C" {
        fn heeler_test_untabled_poll(descriptors: *mut libc::pollfd, count: u64, millis: i32) -> i64;
    }
    // SAFETY: the function above, which is `poll`; no descriptors.
    let call = || unsafe { heeler_test_untabled_poll(std::ptr::null_mut(), 0, CALL.as_millis() as i32) };
    let (reports, outcome) = caught([libc::SYS_poll; 2], call, || {});
    assert_eq!(outcome, 0);
    assert_named(&reports, "poll");
}

/// Guards: the same for a sleep without the standard library's loop. With the loop, the sleep is never shorter.
#[test]
fn a_nanosleep_is_left_alone_where_possible() {
    let call = || {
        let time = libc::timespec { tv_sec: 0, tv_nsec: CALL.as_nanos() as i64 };
        // SAFETY: reads one `timespec`.
        result(unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) }.into())
    };
    let (reports, outcome) = caught([libc::SYS_nanosleep, libc::SYS_clock_nanosleep], call, || {});
    assert!(peaceful(outcome, Ok(0)), "{outcome:?}");
    assert_named(&reports, "clock_nanosleep");
    let began = Instant::now();
    caught([libc::SYS_clock_nanosleep; 2], || std::thread::sleep(CALL), || {});
    assert!(began.elapsed() >= CALL);
}

/// Guards: a socket with a receive timeout ends with the timeout, not with `EINTR`.
#[test]
fn a_socket_with_a_timeout_ends_by_it() {
    let (mut socket, other) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(CALL)).unwrap();
    let call = move || socket.read(&mut [0]).map(|read| read as i64).map_err(|error| error.raw_os_error().unwrap());
    let (reports, outcome) = caught([libc::SYS_recvfrom, libc::SYS_read], call, || {});
    assert!(peaceful(outcome, Err(libc::EAGAIN)), "{outcome:?}");
    assert!(!reports.is_empty());
    drop(other);
}

/// Guards: the thread takes its lock as if nothing had happened.
#[test]
fn waiting_for_a_thread_lock_is_undisturbed() {
    let lock = Arc::new(Mutex::new(7));
    let (theirs, ours) = (lock.clone(), lock.lock().unwrap());
    let (reports, outcome) = caught([libc::SYS_futex; 2], move || *theirs.lock().unwrap(), || drop(ours));
    assert_eq!(outcome, 7);
    assert_named(&reports, "futex");
}
