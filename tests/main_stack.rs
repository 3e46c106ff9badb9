//! The main thread's stack grows beyond the bounds that are known of it: musl tells of what is mapped when it is asked, glibc of
//! the limit of that moment, and without `/proc` nothing.
//!
//! Without the test harness, which runs tests on other threads.
#![allow(unsafe_code, reason = "sets the limit of the stack")]

#[path = "common/mod.rs"]
mod common;

use std::time::Instant;

use common::{PATIENCE, PORTABLE, collect, goes_through, ms};
use heeler::report::{StackKind, Verdict};

#[cfg(target_os = "linux")]
fn set_limit(bytes: libc::rlim_t) -> libc::rlim_t {
    // SAFETY: zeros are a valid `rlimit`, to be overwritten.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, bytes);
        assert_eq!(libc::setrlimit(libc::RLIMIT_STACK, &raw const limit), 0);
        before
    }
}

const WITHOUT_PROC: &str = "HEELER_TEST_WITHOUT_PROC";

#[inline(never)]
fn goes_deep(levels: u32, body: &mut dyn FnMut()) {
    let room = std::hint::black_box([levels; 1024]);
    if levels == 0 {
        body()
    } else {
        goes_deep(levels - 1, body)
    }
    std::hint::black_box(&room);
}

fn main() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let without_proc = std::env::var_os(WITHOUT_PROC).is_some();
    #[cfg(target_os = "linux")]
    if without_proc {
        assert!(!std::path::Path::new("/proc/self").exists());
    } else {
        let before = set_limit(64 * 1024);
        futures::executor::block_on(heeler::watch("first", PATIENCE, async {}));
        set_limit(before);
    }
    let (seen, reports) = collect();
    let waiter = seen.clone();
    let job = async move {
        goes_deep(24, &mut || {
            let began = Instant::now();
            while !waiter.all().iter().any(|report| report.update == 3) && began.elapsed() < PATIENCE {
                std::thread::sleep(ms(500));
            }
        });
    };
    futures::executor::block_on(heeler::watch("job", ms(40), job).reports(reports));
    seen.wait("the last capture", |report| report.update == 3);
    for report in seen.all() {
        let text = report.to_text();
        assert_eq!(report.verdict, Verdict::Blocking, "{text}");
        if !PORTABLE {
            let thread = report.stacks.iter().filter(|stack| stack.kind == StackKind::Thread);
            let depth = thread.flat_map(|stack| &stack.frames).filter(|frame| frame.build_id.is_some()).count();
            assert!(depth > 24, "{text}");
            // Without it, functions may have no names.
            assert!(without_proc || goes_through(&report, StackKind::Thread, "goes_deep"), "{text}");
            assert!(report.stacks.iter().all(|stack| !stack.truncated), "{text}");
        }
    }
    if without_proc {
        return;
    }
    println!("a poll beyond the known bounds of the main thread's stack is captured: ok");
    let unshare = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command
            .arg(std::env::current_exe().unwrap())
            .env(WITHOUT_PROC, "1")
            .status()
            .is_ok_and(|status| status.success())
    };
    let without = "a poll on the main thread is captured where there is no /proc";
    if unshare("mount -t tmpfs tmpfs /proc") {
        assert!(unshare("mount -t tmpfs tmpfs /proc && exec \"$0\""), "{without}");
        println!("{without}: ok");
    } else {
        println!("{without}: skipped, no mount namespace can be made here");
    }
}
