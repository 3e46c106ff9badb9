//! What `/proc` tells about a thread of this process. Needs no privilege, because a thread group may always look at
//! itself.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

/// What a thread is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) tid: i32,
    pub(crate) name: String,
    /// `R`, `S`, `D`, ..
    pub(crate) state: Option<char>,
    /// The number of the system call it sleeps in.
    pub(crate) call: Option<usize>,
    /// Where in the kernel it sleeps.
    pub(crate) wchan: Option<String>,
    /// The kernel's line on the call: number, arguments, stack pointer, program counter.
    line: String,
}

fn read(tid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/task/{tid}/{file}")).unwrap_or_default()
}

/// The name is in parentheses and may contain any character. The state follows the last parenthesis.
fn state(stat: &str) -> Option<char> {
    stat.rfind(')').and_then(|end| stat[end + 1..].trim_start().chars().next())
}

/// Returns whether a thread has a CPU, or would run if it had one.
pub(crate) fn is_runnable(tid: i32) -> bool {
    state(&read(tid, "stat")) == Some('R')
}

/// Reads how long threads have been ready to run without a CPU, in nanoseconds. The kernel reports such a wait when it
/// is over.
#[derive(Debug, Default)]
pub(crate) struct RunDelays {
    /// Files of the threads that were read last, because opening a file takes longer than reading it.
    open: Vec<(i32, File)>,
}

impl RunDelays {
    /// How many files are kept open.
    const MAX: usize = 16;

    /// Returns `None` if the thread has ended, or the kernel does not tell.
    pub(crate) fn of(&mut self, tid: i32) -> Option<u64> {
        if let Some(at) = self.open.iter().position(|(of, _)| *of == tid) {
            if let Some(delay) = run_delay(&self.open[at].1) {
                return Some(delay);
            }
            // It is of another thread that had this number.
            self.open.remove(at);
        }
        let file = File::open(format!("/proc/self/task/{tid}/schedstat")).ok()?;
        let delay = run_delay(&file)?;
        if self.open.len() == Self::MAX {
            self.open.remove(0);
        }
        self.open.push((tid, file));
        Some(delay)
    }
}

/// Returns the second of three numbers: time on a CPU, time without one, times that it got one.
fn run_delay(mut file: &File) -> Option<u64> {
    let mut text = [0; 80];
    file.seek(SeekFrom::Start(0)).ok()?;
    let length = file.read(&mut text).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()
}

/// Returns the ids of all threads of the process, or none if the kernel does not tell.
pub(crate) fn thread_ids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut ids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// Looks at a thread. What cannot be read stays empty.
pub(crate) fn look(tid: i32) -> Activity {
    let read = |file: &str| read(tid, file);
    let line = read("syscall").trim_end().to_owned();
    let stat = read("stat");
    let wchan = read("wchan");
    Activity {
        tid,
        name: read("comm").trim_end().to_owned(),
        state: state(&stat),
        call: line.split(' ').next().and_then(|number| number.parse().ok()),
        wchan: Some(wchan).filter(|place| !place.is_empty() && place != "0"),
        line,
    }
}

impl Activity {
    /// Returns whether the thread is in a system call, and in the same one at the same place.
    pub(crate) fn same_call(&self, other: &Self) -> bool {
        self.call.is_some() && self.line == other.line
    }

    /// Returns stack pointer and program counter of a thread that is in a system call.
    #[cfg(heeler_copies)]
    pub(crate) fn registers(&self) -> Option<(u64, u64)> {
        self.call?;
        let mut words = self.line.rsplit(' ').map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
        let pc = words.next()?.ok()?;
        let sp = words.next()?.ok()?;
        Some((sp, pc))
    }

    /// Returns the system call's name.
    pub(crate) fn call_name(&self) -> Option<String> {
        let number = self.call?;
        #[cfg(target_os = "linux")]
        if let Some(call) = syscalls::Sysno::new(number) {
            return Some(call.name().to_owned());
        }
        Some(number.to_string())
    }

    /// Returns the state in words.
    pub(crate) fn state_name(&self) -> Option<&'static str> {
        Some(match self.state? {
            'R' => "running",
            'S' => "sleeping",
            'D' => "uninterruptible",
            'T' | 't' => "stopped",
            'Z' | 'X' => "ended",
            'I' => "idle",
            _ => "unknown",
        })
    }

    /// Returns whether it has the CPU, or wants it.
    pub(crate) fn on_cpu(&self) -> Option<bool> {
        self.state.map(|state| state == 'R')
    }
}

#[cfg(all(test, heeler_copies))]
mod tests {
    use super::*;

    /// Guards: the time that a thread waits for a CPU is read, again and again. That of a thread that has ended is not.
    #[test]
    fn reads_run_delays_of_live_threads_only() {
        let mut delays = RunDelays::default();
        let own = super::super::sys::thread_id();
        // The kernel may be built without it.
        let Some(first) = delays.of(own) else { return };
        assert!(delays.of(own).unwrap() >= first && is_runnable(own));
        let ended: Vec<i32> = (0..2 * RunDelays::MAX)
            .map(|_| {
                let (tid, tell) = std::sync::mpsc::channel();
                let (end, ended) = std::sync::mpsc::channel::<()>();
                let thread = std::thread::spawn(move || {
                    tid.send(super::super::sys::thread_id()).unwrap();
                    ended.recv().unwrap_err();
                });
                let tid = tell.recv().unwrap();
                assert!(delays.of(tid).is_some());
                drop(end);
                thread.join().unwrap();
                tid
            })
            .collect();
        assert!(delays.open.len() <= RunDelays::MAX);
        let began = std::time::Instant::now();
        // A joined thread may still be there for a moment.
        while ended.iter().any(|tid| *tid != own && delays.of(*tid).is_some()) {
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "threads that have ended");
        }
    }

    /// Guards: a thread that sleeps is seen sleeping in a named system call.
    #[test]
    fn a_sleeping_thread_is_seen_in_its_call() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tid, tell) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("sleeper (1) x".into())
            .spawn(move || {
                tid.send(super::super::sys::thread_id()).unwrap();
                receive.recv().unwrap_err();
            })
            .unwrap();
        let tid = tell.recv().unwrap();
        // On its way there it may sleep elsewhere, for example for memory.
        let sleeps = |seen: &Activity| seen.state == Some('S') && seen.call_name().as_deref() == Some("futex");
        let seen = std::iter::repeat_with(|| look(tid)).take(1_000_000).find(sleeps).unwrap();
        assert_eq!(seen.name, "sleeper (1) x");
        assert_eq!(seen.on_cpu(), Some(false));
        drop(send);
        thread.join().unwrap();
    }
}
