//! Captures threads hundreds of thousands of times, in all the places where a signal has ever caused trouble.
//!
//! It runs in its own process, because there is one sampler per process:
//! `cargo test --release --lib thread_stress -- --nocapture` prints the numbers. A debug build does a tenth of the
//! captures. `HEELER_TEST_CAPTURES` in the environment sets the number.

use std::collections::HashMap;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Outcome, Sampler, Unwinder};
use crate::capture::frame_address;
use crate::capture::{ThreadSlot, slots};
use crate::inflight::{PolicyId, Registered, Watched};

const CAPTURES: usize = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
/// Ten times as long as it takes.
const HANGS: Duration = Duration::from_secs(120);
/// How much the process may grow between the first tenth and the end: only by caches that fill up.
const GROWTH: usize = 48 * 1024 * 1024;

/// What a thread does until it is told to stop, one piece at a time.
type Work = fn(u64);

const WORKS: [(&str, Work); 9] = [
    ("malloc", allocates),
    ("panics", panics),
    ("regex", matches_regex),
    ("files", reads_files),
    ("dlopen", loads_and_unloads),
    ("threads", starts_threads),
    ("forks", forks),
    ("refused reads", is_refused_reads),
    ("deadly reads", would_die_of_reads),
];

/// The same on stacks that aren't the thread's own. They are signalled once per poll unless they have the CPU all the
/// time, so there is a tenth of the captures.
#[cfg(target_env = "gnu")]
const FOREIGN_WORKS: [(&str, Work); 2] = [("coroutines", runs_coroutines), ("small stacks", fills_small_stacks)];
#[cfg(not(target_env = "gnu"))]
const FOREIGN_WORKS: [(&str, Work); 0] = [];

#[cfg(target_env = "gnu")]
#[path = "../../tests/foreign_stacks/fiber.rs"]
mod fiber;

#[path = "../../tests/foreign_stacks/seccomp.rs"]
mod seccomp;

#[inline(never)]
fn allocates(round: u64) {
    let words: HashMap<String, Vec<u8>> =
        (0..20).map(|key| (format!("{round}/{key}"), vec![1; 100 * key as usize])).collect();
    std::hint::black_box(words);
}

struct Noticed(u64);

impl Drop for Noticed {
    fn drop(&mut self) {
        std::hint::black_box(vec![self.0; 10]);
    }
}

#[inline(never)]
fn panics(round: u64) {
    #[inline(never)]
    fn deeper(level: u64) -> u64 {
        let noticed = Noticed(level);
        match level {
            0 => panic!("on purpose"),
            _ => deeper(level - 1) + noticed.0,
        }
    }
    catch_unwind(|| deeper(round % 20)).unwrap_err();
}

#[inline(never)]
fn matches_regex(round: u64) {
    static REGEX: Mutex<Option<Arc<regress::Regex>>> = Mutex::new(None);
    let regex = REGEX.lock().unwrap().get_or_insert_with(|| Arc::new(regress::Regex::new("^(a+)+$").unwrap())).clone();
    let text = "a".repeat(6 + round as usize % 4) + "!";
    std::hint::black_box(regex.find(&text));
}

#[inline(never)]
fn reads_files(_: u64) {
    std::hint::black_box(std::fs::read("/proc/self/stat").unwrap());
    std::hint::black_box(std::fs::read_dir("/proc/self/task").unwrap().count());
}

#[inline(never)]
fn loads_and_unloads(_: u64) {
    let name = CString::new("libresolv.so.2").unwrap();
    // SAFETY: one of the C library's own libraries, which nothing uses between the two calls.
    unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null());
        libc::dlclose(library);
    }
}

/// Each of these threads gets a slot, is captured with some luck, and ends.
#[inline(never)]
fn starts_threads(round: u64) {
    let threads: Vec<_> = (0..2)
        .map(|number| {
            std::thread::spawn(move || {
                let watched = watched();
                let inside = watched.enter(frame_address!());
                (0..10).for_each(|part| allocates(round + number + part));
                drop(inside);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Forks children that end at once, or after they have begun their own table.
#[inline(never)]
fn forks(round: u64) {
    // SAFETY: the child is a copy of this thread alone. It allocates, which the C library allows after its `fork`, and
    // ends without running destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        if round.is_multiple_of(16) {
            let watched = watched();
            drop(watched.enter(frame_address!()));
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above. If signals interrupt it, it goes on.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
}

/// Runs on a thread that may not read memory by a system call.
#[inline(never)]
fn is_refused_reads(round: u64) {
    filter_reads(seccomp::REFUSE);
    allocates(round);
}

/// Does the same, but a read ends the process.
#[inline(never)]
fn would_die_of_reads(round: u64) {
    filter_reads(seccomp::KILL);
    allocates(round);
}

fn filter_reads(then: u32) {
    use std::cell::Cell;

    thread_local!(static IS_FILTERED: Cell<bool> = const { Cell::new(false) });
    if !IS_FILTERED.replace(true) {
        seccomp::filter(&[libc::SYS_pread64, libc::SYS_process_vm_readv], then, seccomp::ALLOW, 0);
    }
}

/// Runs each on a separate stack, which is gone afterwards.
#[cfg(target_env = "gnu")]
#[inline(never)]
fn runs_coroutines(round: u64) {
    fiber::on_fiber(|| (0..20).for_each(|part| allocates(round + part)));
}

/// Leaves so little room that neither the kernel's frame nor the handler's fits, with other data below.
#[cfg(target_env = "gnu")]
#[inline(never)]
fn fills_small_stacks(round: u64) {
    const BELOW: usize = 16 * 1024;
    let mut map = fiber::Map::new(2 * BELOW);
    map.fill(BELOW, 0xaa);
    let mut number = round;
    map.run(BELOW, |base| {
        fiber::with_little_left(base, 1600, &mut || {
            let mut left = 100_000;
            while left > 0 {
                (number, left) = (number.rotate_left(5) ^ left, left - 1);
            }
        });
    });
    std::hint::black_box(number);
    assert_eq!(map.others(BELOW, 0xaa), 0, "bytes below the stack were overwritten");
}

fn watched() -> Watched {
    Watched::new(Registered::new(PolicyId::NONE, u64::MAX, 0, |_| {}))
}

/// Does `work` in one poll after the other.
fn busy(work: Work, stop: &AtomicBool, rounds: &AtomicU64) {
    let watched = watched();
    while !stop.load(Ordering::Relaxed) {
        let inside = watched.enter(frame_address!());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1) {
            work(rounds.fetch_add(1, Ordering::Relaxed));
        }
        drop(inside);
    }
}

#[derive(Debug, Default)]
struct Tally {
    captured: usize,
    complete: usize,
    missed: usize,
    no_answer: usize,
    /// On a stack that isn't the thread's own, and signalled there once in this poll.
    foreign: usize,
    frames: usize,
}

/// Captures any thread that polls, until there are enough captures.
fn capture(sampler: &mut Sampler, unwinder: &mut Unwinder, wanted: usize) -> Tally {
    let mut tally = Tally::default();
    while tally.captured < wanted {
        for (slot, poll) in slots().into_iter().filter_map(|slot: &'static ThreadSlot| Some((slot, slot.polling()?.1)))
        {
            match sampler.capture(slot, poll) {
                Outcome::Captured(snapshot, _) => {
                    unwinder.refresh();
                    let unwound = unwinder.unwind(&snapshot);
                    tally.captured += 1;
                    tally.complete += usize::from(unwound.complete);
                    tally.frames += unwound.addresses.len();
                }
                Outcome::Missed => tally.missed += 1,
                outcome @ Outcome::NoAnswer(_) => {
                    // A thread that was not run in time, on a busy machine, still has to answer.
                    tally.no_answer += usize::from(!outcome.may_come_late());
                    // As long as it owes the answer, it is not asked, and this loop would count at full speed.
                    std::thread::sleep(Duration::from_millis(10));
                }
                Outcome::Foreign(..) => {
                    tally.foreign += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
                Outcome::Unavailable(why) => panic!("{why}"),
            }
        }
    }
    tally
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn survive() {
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("on purpose") {
            eprintln!("{info}");
        }
    }));
    let (mut sampler, mut unwinder) = (Sampler::new(None), Unwinder::new());
    let mut before = None;
    let mut total = Tally::default();
    let wanted = std::env::var("HEELER_TEST_CAPTURES").map_or(CAPTURES, |number| number.parse().unwrap());
    // A first, short round fills every cache.
    for share in [wanted / 10, wanted] {
        total = Tally::default();
        let own = WORKS.map(|work| (work, share / WORKS.len(), false));
        let foreign = FOREIGN_WORKS.map(|work| (work, share / WORKS.len() / 10, true));
        for ((name, work), wanted, is_foreign) in own.into_iter().chain(foreign) {
            let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
            let began = Instant::now();
            let tally = std::thread::scope(|scope| {
                scope.spawn(|| busy(work, &stop, &rounds));
                let tally = catch_unwind(AssertUnwindSafe(|| capture(&mut sampler, &mut unwinder, wanted)));
                stop.store(true, Ordering::Relaxed);
                tally.unwrap()
            });
            // The thread went on with its work all the time.
            assert!(rounds.into_inner() > 0);
            println!("{name}: {tally:?} in {:?}", began.elapsed());
            if is_foreign {
                // In the middle of switching, neither stack unwinds. So some are cut, which matters if there are only a
                // few.
                assert!(tally.complete * 10 + 30 >= tally.captured * 9, "{name}: {tally:?}");
                continue;
            }
            total.captured += tally.captured;
            total.complete += tally.complete;
            total.no_answer += tally.no_answer;
        }
        before.get_or_insert_with(|| (descriptors(), resident()));
    }
    let (descriptors_before, resident_before) = before.unwrap();
    println!("{total:?}, resident {} KiB, then {} KiB", resident_before >> 10, resident() >> 10);
    assert!(total.complete * 1000 >= total.captured * 999, "{total:?}");
    assert!(total.no_answer * 1000 <= total.captured, "{total:?}");
    assert_eq!(descriptors(), descriptors_before);
    assert!(resident() < resident_before + GROWTH);
}

/// Ends the process if it does not end by itself.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Guards: no capture hangs, crashes, leaks or disturbs a thread, wherever the thread is. The stacks are complete.
#[test]
fn threads_survive_being_captured_anywhere() {
    const ALONE: &str = "HEELER_TEST_SURVIVAL";
    if std::env::var_os(ALONE).is_some() {
        return survive();
    }
    let name = format!("{}::threads_survive_being_captured_anywhere", module_path!().split_once("::").unwrap().1);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture"]).env(ALONE, "1").stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = Guard(command.spawn().unwrap());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < HANGS, "it hangs");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}
