//! A thread that reads the clock without a pause, and what keeps it from that.

#![allow(unsafe_code, reason = "a count of context switches, and a signal")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::common::nanos;

/// The signal of [`Signal`]. Heeler takes one at the other end.
const SIGNAL: i32 = libc::SIGUSR1;

/// How often this thread has had to leave the CPU to another, or has given it away.
fn switches() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: fills in `usage`, which is plain data for which zeros are valid.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nivcsw + usage.ru_nvcsw
}

/// Between two readings of the clock. In microseconds.
struct Gap {
    at: f64,
    length: f64,
    /// Another thread had the CPU meanwhile.
    switched: bool,
}

/// The gaps that are longer than a reading.
pub(crate) struct Gaps {
    start: Instant,
    end: Instant,
    list: Vec<Gap>,
}

/// Reads the clock for so long.
#[inline(never)]
pub(crate) fn spin(time: Duration) -> Gaps {
    let mut list = Vec::with_capacity(4096);
    let mut switched = switches();
    let start = Instant::now();
    let mut last = start;
    while last - start < time {
        let mut now = Instant::now();
        if now - last > Duration::from_nanos(300) && list.len() < list.capacity() {
            let before = std::mem::replace(&mut switched, switches());
            let (at, length) = (nanos(last - start) / 1e3, nanos(now - last) / 1e3);
            list.push(Gap { at, length, switched: before != switched });
            now = Instant::now();
        }
        last = now;
    }
    Gaps { start, end: last, list }
}

impl Gaps {
    /// The longest gap in a short time from then on, in microseconds; `None` if another thread had the CPU in that time, or
    /// if it is not part of the reading.
    pub(crate) fn longest(&self, from: Duration) -> Option<f64> {
        const WINDOW: Duration = Duration::from_micros(300);
        let (begin, end) = (nanos(from) / 1e3, nanos(from + WINDOW) / 1e3);
        let window = || self.list.iter().filter(|gap| gap.at + gap.length >= begin && gap.at <= end);
        let undisturbed = self.start + from + WINDOW <= self.end && !window().any(|gap| gap.switched);
        undisturbed.then(|| window().map(|gap| gap.length).fold(0.0, f64::max))
    }

    /// The same from a moment on.
    pub(crate) fn longest_since(&self, moment: Instant) -> Option<f64> {
        self.longest(moment.saturating_duration_since(self.start))
    }
}

/// Sleeps on a thread of its own, a few milliseconds at a time, until the result is called: by how many milliseconds each
/// sleep was too long.
pub(crate) fn oversleep() -> impl FnOnce() -> Vec<f64> {
    const NAP: Duration = Duration::from_millis(5);
    let (stop, stopped) = channel::<()>();
    let sleeper = std::thread::spawn(move || {
        let mut late = Vec::new();
        while stopped.try_recv().is_err() {
            let start = Instant::now();
            std::thread::sleep(NAP);
            late.push(nanos(start.elapsed() - NAP) / 1e6);
        }
        late
    });
    move || {
        stop.send(()).expect("it sleeps");
        sleeper.join().expect("no panic")
    }
}

/// Sends a signal whose handler does nothing to the thread that made this.
pub(crate) struct Signal(Sender<Duration>, Receiver<Instant>);

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Signal {
    pub(crate) fn new() -> Self {
        // SAFETY: a zeroed `sigaction` is valid, and a handler that does nothing is safe at any point.
        let thread = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut());
            libc::pthread_self()
        };
        let (sender, receiver) = channel();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            while let Ok(time) = receiver.recv() {
                std::thread::sleep(time);
                let now = Instant::now();
                // SAFETY: the thread lives as long as the sender does.
                unsafe { libc::pthread_kill(thread, SIGNAL) };
                if tell.send(now).is_err() {
                    return;
                }
            }
        });
        Self(sender, told)
    }

    pub(crate) fn send_after(&self, time: Duration) {
        self.0.send(time).expect("the thread listens");
    }

    /// When that was.
    pub(crate) fn sent(&self) -> Instant {
        self.1.recv().expect("the thread answers")
    }
}
