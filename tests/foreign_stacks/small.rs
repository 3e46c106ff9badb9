//! Stacks of which little is left, on threads with and without an alternate signal stack. Victims are processes of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use heeler::Report;
use heeler::report::StackKind;

use super::ALL;
use super::common::{PATIENCE, PORTABLE, collect, goes_through, in_own_process, ms};
use super::fiber::{Map, with_little_left};
use super::seccomp::{ALLOW, REFUSE, filter};

const STACK: usize = 32 << 10;
const PAGE: usize = 4096;
/// Less than the kernel's frame and the handler's take.
const LEFT: usize = 1600;

/// Computes with hardly any stack, until it is told to stop.
#[inline(never)]
fn computes(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {}
}

/// A thread as a library in another language makes it.
fn foreign_thread(body: impl FnOnce() + Send + 'static) {
    type Body = Box<dyn FnOnce() + Send>;
    extern "C" fn start(body: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the pointer that is made below, once.
        unsafe { Box::from_raw(body.cast::<Body>())() };
        std::ptr::null_mut()
    }
    let body: Box<Body> = Box::new(Box::new(body));
    // SAFETY: a thread that is waited for.
    unsafe {
        let mut thread = std::mem::zeroed();
        let body = Box::into_raw(body).cast();
        assert_eq!(libc::pthread_create(&raw mut thread, std::ptr::null(), start, body), 0);
        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
    }
}

/// This thread's alternate stack.
fn signal_stack() -> libc::stack_t {
    // SAFETY: zeros are a valid `stack_t`, to be overwritten.
    unsafe {
        let mut stack = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
        stack
    }
}

fn set_signal_stack(size: usize) {
    let room: &'static mut [u8] = Box::leak(vec![0; size].into());
    let stack = libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: 0, ss_size: size };
    // SAFETY: the room is never freed.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
}

/// Watches a poll that has little of its stack left until it is captured: on a stack with a guard page, and on one with
/// somebody's data below it.
fn survives() {
    for guarded in [true, false] {
        let (seen, reports) = collect();
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let below = if guarded { PAGE } else { 16 * PAGE };
        let mut map = Map::new(below + STACK);
        if guarded {
            map = map.guarded(below);
        } else {
            map.fill(below, 0xaa);
        }
        let waiter = std::thread::spawn(move || {
            let began = Instant::now();
            // A thread that did not get the CPU in time answers at a later look.
            let shown = |report: &Report| PORTABLE || goes_through(report, StackKind::Thread, "computes");
            while !seen.all().iter().any(shown) && began.elapsed() < PATIENCE {
                std::thread::sleep(ms(1));
            }
            stop.store(true, Ordering::Relaxed);
            seen.with_thread_in("computes")
        });
        let job = async {
            map.run(below, |base| with_little_left(base, LEFT, &mut || computes(stop)));
            map
        };
        let map = futures::executor::block_on(heeler::watch("job", ms(100), job).reports(reports));
        let report = waiter.join().unwrap().unwrap();
        let text = report.to_text();
        assert!(guarded || map.others(below, 0xaa) == 0, "{} bytes were overwritten", map.others(below, 0xaa));
        assert!(PORTABLE || goes_through(&report, StackKind::Thread, "computes"), "{text}");
    }
}

/// Guards: on a Rust thread, the handler does not touch a coroutine's stack.
#[test]
fn capturing_spares_a_small_stack_on_a_rust_thread() {
    in_own_process("small::capturing_spares_a_small_stack_on_a_rust_thread", survives);
}

/// Guards: a thread without an alternate stack gets one, and none is left when it ends.
#[test]
fn a_thread_without_a_signal_stack_gets_one() {
    let test = "small::a_thread_without_a_signal_stack_gets_one";
    in_own_process(test, || {
        foreign_thread(|| {
            assert_ne!(signal_stack().ss_flags & libc::SS_DISABLE, 0);
            survives();
            assert!(PORTABLE || signal_stack().ss_flags & libc::SS_DISABLE == 0);
        });
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let watched = || futures::executor::block_on(heeler::watch("job", ms(1000), async {}));
        (0..4).for_each(|_| foreign_thread(watched));
        let before = maps();
        (0..100).for_each(|_| foreign_thread(watched));
        assert!(maps() < before + 50, "{} mappings, then {}", before, maps());
    });
}

#[test]
fn a_too_small_signal_stack_is_not_used() {
    let test = "small::a_too_small_signal_stack_is_not_used";
    in_own_process(test, || {
        foreign_thread(|| {
            set_signal_stack(PAGE);
            survives();
            assert!(PORTABLE || signal_stack().ss_size > PAGE);
        });
    });
}

/// Guards: a thread that has no alternate stack and cannot get one is not signalled, and the report says so.
#[test]
fn threads_without_any_signal_stack_are_not_signalled() {
    in_own_process("small::threads_without_any_signal_stack_are_not_signalled", || {
        foreign_thread(|| {
            filter(&[libc::SYS_sigaltstack], REFUSE, ALLOW, ALL);
            let (seen, reports) = collect();
            let waiter = seen.clone();
            let job = async move {
                let began = Instant::now();
                while waiter.all().is_empty() && began.elapsed() < PATIENCE {}
            };
            futures::executor::block_on(heeler::watch("job", ms(40), job).reports(reports));
            let (report, text) = (seen.first(), seen.first().to_text());
            let why = if PORTABLE { "no thread stacks" } else { "no alternate stack" };
            assert!(report.notes.iter().any(|note| note.contains(why)), "{text}");
            assert!(report.stacks.is_empty() && report.thread.is_some(), "{text}");
        });
    });
}
