//! Captures by the hundred thousand, of threads in all the places where a signal has ever hurt anybody.
//!
//! In a process of its own, for there is one sampler a process:
//! `cargo test --release --lib survival -- --nocapture` prints the figures. A debug build takes a tenth of the captures.

use std::collections::HashMap;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Outcome, Sampler, Unwinder};
use crate::inflight::{PolicyId, Registered, ThreadSlot, Watched, frame_address, slots};

const CAPTURES: usize = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
/// Ten times what it takes.
const HANGS: Duration = Duration::from_secs(120);
/// Growth of the process between the first tenth and the end: caches that fill up, and no more.
const GROWTH: usize = 48 * 1024 * 1024;

/// What a thread does until told to stop, one piece at a time.
type Work = fn(u64);

const WORKS: [(&str, Work); 6] = [
    ("malloc", allocates),
    ("panics", panics),
    ("regex", matches_regex),
    ("files", reads_files),
    ("dlopen", loads_and_unloads),
    ("threads", starts_threads),
];

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
    // SAFETY: a library of the C library's own, which nobody uses between the two calls.
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
    frames: usize,
}

/// Captures whoever polls, until there are so many captures.
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
                    // One that was not run in time, on a machine with other things to do, has its answer yet to give.
                    tally.no_answer += usize::from(!outcome.may_come_late());
                    // As long as it owes the answer, it is not asked, and this loop would count at full speed.
                    std::thread::sleep(Duration::from_millis(10));
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
    // A first, short round fills every cache.
    for share in [CAPTURES / 10, CAPTURES] {
        total = Tally::default();
        for (name, work) in WORKS {
            let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
            let began = Instant::now();
            let tally = std::thread::scope(|scope| {
                scope.spawn(|| busy(work, &stop, &rounds));
                let tally =
                    catch_unwind(AssertUnwindSafe(|| capture(&mut sampler, &mut unwinder, share / WORKS.len())));
                stop.store(true, Ordering::Relaxed);
                tally.unwrap()
            });
            // The thread went on with its work all the while.
            assert!(rounds.into_inner() > 0);
            println!("{name}: {tally:?} in {:?}", began.elapsed());
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

/// Ends the process that does not end by itself.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Guards: no capture hangs, crashes, leaks or disturbs a thread, wherever it is; the stacks are whole.
#[test]
fn survival() {
    const ALONE: &str = "HEELER_TEST_SURVIVAL";
    if std::env::var_os(ALONE).is_some() {
        return survive();
    }
    let name = format!("{}::survival", module_path!().split_once("::").unwrap().1);
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
