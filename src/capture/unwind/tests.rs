//! Stacks of running threads, captured by signal, with frames that are particular to aarch64.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Unwinder;
use crate::capture::frame_address;
use crate::capture::{Outcome, Sampler};
use crate::capture::{ThreadSlot, slots};
use crate::inflight::{PolicyId, Registered, Watched};

/// Makes one test run at a time, because they share these.
static ALONE: Mutex<()> = Mutex::new(());
static ARRIVED: AtomicBool = AtomicBool::new(false);
static DONE: AtomicBool = AtomicBool::new(false);

const PATIENCE: Duration = Duration::from_secs(60);

#[inline(never)]
extern "C" fn spins() {
    ARRIVED.store(true, Ordering::SeqCst);
    while !DONE.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the names on a complete stack of a thread that is in `work`, within a poll, innermost first. `once` runs
/// when that has begun.
fn names_within(work: fn(), arrived: &AtomicBool, once: impl FnOnce(libc::pthread_t)) -> Vec<String> {
    ARRIVED.store(false, Ordering::SeqCst);
    DONE.store(false, Ordering::SeqCst);
    let (tell, told) = std::sync::mpsc::channel();
    let mut stack = None;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // SAFETY: takes nothing, cannot fail.
            let this = (unsafe { libc::pthread_self() }, crate::capture::sys::thread_id());
            let watched = Watched::new(Registered::new(PolicyId::NONE, u64::MAX, 0, |_| {}));
            let _inside = watched.enter(frame_address!());
            tell.send(this).unwrap();
            work();
        });
        let (thread, tid) = told.recv().unwrap();
        until("the thread is there", || arrived.load(Ordering::SeqCst));
        once(thread);
        until("it is where it is wanted", || ARRIVED.load(Ordering::SeqCst));
        let (mut sampler, mut unwinder) = (Sampler::new(None), Unwinder::new());
        let began = Instant::now();
        while stack.is_none() && began.elapsed() < PATIENCE {
            let is_it = |slot: &&'static ThreadSlot| slot.with_life(|life| life.tid) == Some(tid);
            let polled = slots().into_iter().find(is_it).and_then(|slot| Some((slot, slot.polling()?.1)));
            if let Some((slot, poll)) = polled
                && let Outcome::Captured(snapshot, _) = sampler.capture(slot, poll)
            {
                stack = Some(unwinder.unwind(&snapshot));
            }
        }
        DONE.store(true, Ordering::SeqCst);
    });
    let stack = stack.expect("a stack");
    let mut names = Vec::new();
    for address in &stack.addresses {
        let lookup = (address.pc - u64::from(address.is_return)) as *mut std::ffi::c_void;
        backtrace::resolve(lookup, |symbol| names.extend(symbol.name().map(|name| name.to_string())));
    }
    assert!(stack.complete, "{names:#?}");
    assert!(stack.addresses.iter().all(|address| address.module.is_some()), "{names:#?}");
    names
}

#[track_caller]
fn assert_order(names: &[String], expected: &[&str]) {
    let mut rest = names.iter();
    for name in expected {
        assert!(rest.any(|frame| frame.contains(name)), "no {name} in its place: {names:#?}");
    }
}

static WORKS: AtomicBool = AtomicBool::new(false);

#[inline(never)]
fn is_interrupted() {
    WORKS.store(true, Ordering::SeqCst);
    // Not captured in the handler, which spins until the end.
    while !DONE.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
}

#[inline(never)]
fn calls_who_is_interrupted() {
    is_interrupted();
    std::hint::black_box(());
}

extern "C" fn handles(_signal: libc::c_int) {
    spins();
    std::hint::black_box(());
}

/// Guards: one of the application's signal handlers is on the stack, and so is what it interrupted, in the middle of a
/// function.
#[test]
fn unwinds_through_a_signal_handler() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    WORKS.store(false, Ordering::SeqCst);
    // SAFETY: a zeroed `sigaction` is valid. The handler only reads and writes atomics. It runs on the thread's own
    // stack.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handles as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
    }
    let names = names_within(calls_who_is_interrupted, &WORKS, |thread| {
        // SAFETY: the thread is in its work until it is told to stop.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR2) }, 0);
    });
    assert_order(&names, &["::spins", "::handles", "::is_interrupted", "::calls_who_is_interrupted"]);
}

mod signed {
    use super::*;

    // The inner one signs its return address, and its frame is larger than its frame record. The outer one has no frame
    // pointer, so its frame is found only by where the inner one ends.
    std::arch::global_asm!(
        ".globl heeler_test_outer",
        ".type heeler_test_outer, %function",
        "heeler_test_outer:",
        ".cfi_startproc",
        "stp x29, x30, [sp, #-96]!",
        ".cfi_def_cfa_offset 96",
        ".cfi_offset w29, -96",
        ".cfi_offset w30, -88",
        "bl heeler_test_inner",
        "ldp x29, x30, [sp], #96",
        ".cfi_restore w30",
        ".cfi_restore w29",
        ".cfi_def_cfa_offset 0",
        "ret",
        ".cfi_endproc",
        ".size heeler_test_outer, . - heeler_test_outer",
        ".type heeler_test_inner, %function",
        "heeler_test_inner:",
        ".cfi_startproc",
        "hint #25", // paciasp
        ".cfi_negate_ra_state",
        "stp x29, x30, [sp, #-64]!",
        ".cfi_def_cfa_offset 64",
        ".cfi_offset w29, -64",
        ".cfi_offset w30, -56",
        "mov x29, sp",
        "str x30, [x1]",
        "blr x0",
        "ldp x29, x30, [sp], #64",
        ".cfi_restore w30",
        ".cfi_restore w29",
        ".cfi_def_cfa_offset 0",
        "hint #29", // autiasp
        ".cfi_negate_ra_state",
        "ret",
        ".cfi_endproc",
        ".size heeler_test_inner, . - heeler_test_inner",
    );

    unsafe extern "C" {
        /// Calls the function, and stores its own return address as it is on the stack.
        fn heeler_test_outer(call: extern "C" fn(), signed: *mut u64);
    }

    static SIGNED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

    #[inline(never)]
    fn calls_who_signs() {
        // SAFETY: the functions above keep to the calling convention, and write one word.
        unsafe { heeler_test_outer(spins, SIGNED.as_ptr()) };
        std::hint::black_box(());
    }

    /// Guards: signed return addresses are recognised, and the frames of functions that sign are known in full.
    #[test]
    fn unwinds_signed_return_addresses() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names_within(calls_who_signs, &ARRIVED, |_| {});
        assert_order(&names, &["::spins", "heeler_test_inner", "heeler_test_outer", "::calls_who_signs"]);
        // SAFETY: looks up a number.
        let signs = unsafe { libc::getauxval(libc::AT_HWCAP) } & libc::HWCAP_PACA != 0;
        let address = SIGNED.load(Ordering::SeqCst);
        let is_signed = address != Unwinder::new().plain(address);
        assert_eq!(is_signed, signs, "{address:#x}");
        println!("signed: {is_signed}");
    }
}
