//! What the rest of the process does while a request is profiled, sampled by the `pprof` crate.
//!
//! It uses the crate's safest configuration: a low rate, and no samples of threads inside libc, the unwinder or the
//! vdso, where walking the stack in a signal handler has deadlocked and crashed programs
//! ([pprof-rs#76](https://github.com/tikv/pprof-rs/issues/76)). So the time in those is missing here. Only one can run
//! at a time in a process.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pprof::{ProfilerGuard, ProfilerGuardBuilder, Symbol};

use super::{ProcessProfile, ProcessStack};
use crate::capture::{process_number, unforked};

/// A rate that is not in step with anything.
const RATE_HZ: u32 = 99;
/// The number of different stacks that are listed.
const MAX_STACKS: usize = 1_000;
const MAX_DEPTH: usize = 128;
/// As the kernel knows their names: 15 bytes of each.
const OWN_THREADS: [&str; 3] = ["heeler-profile", "heeler-supervis", "heeler-sampler"];

/// Samples until it is dropped.
pub(super) struct Watching(ProfilerGuard<'static>);

impl Watching {
    /// Begins to sample. Takes milliseconds, or seconds where there is much debug information.
    ///
    /// # Errors
    ///
    /// Returns a sentence if somebody else profiles this process with `pprof`, or if it cannot begin.
    pub(super) fn start() -> Result<Self, String> {
        // The process, plus one, that has used the crate. Its state may have been copied in the middle of a change.
        static USER: AtomicU32 = AtomicU32::new(0);
        let own = process_number() + 1;
        match USER.compare_exchange(0, own, Relaxed, Relaxed) {
            Err(user) if user != own => {
                let why = "the rest of a process cannot be profiled once the one that forked it has tried that";
                return Err(why.to_owned());
            }
            Ok(_) | Err(_) => {}
        }
        // It reads what is loaded, and has `backtrace` name a stack.
        let built = unforked(|| {
            let builder = ProfilerGuardBuilder::default().frequency(RATE_HZ as i32);
            builder.blocklist(&["libc", "libgcc", "pthread", "vdso"]).build()
        });
        built.map(Self).map_err(|error| format!("the rest of the process could not be profiled: {error}"))
    }

    /// Ends. Takes milliseconds, or seconds where there is much debug information, so call it on a thread that may block.
    /// Leaves out profile threads and heeler's threads that serve them.
    ///
    /// # Errors
    ///
    /// Returns a sentence if `pprof` has no report.
    pub(super) fn finish(self) -> Result<ProcessProfile, String> {
        // `backtrace` names the functions.
        let report = unforked(|| self.0.report().build());
        let report = report.map_err(|error| format!("there is no profile of the rest of the process: {error}"))?;
        let mut stacks: Vec<ProcessStack> = Vec::new();
        for (frames, samples) in &report.data {
            if OWN_THREADS.contains(&&*frames.thread_name) {
                continue;
            }
            let symbols = frames.frames.iter().rev().flat_map(|inlined| inlined.iter().rev());
            let functions: Vec<String> = symbols.map(Symbol::name).take(MAX_DEPTH).collect();
            let samples = u64::try_from(*samples).unwrap_or(0);
            match stacks.iter_mut().find(|one| one.thread == frames.thread_name && one.functions == functions) {
                Some(one) => one.samples += samples,
                None => stacks.push(ProcessStack { thread: frames.thread_name.clone(), functions, samples }),
            }
        }
        stacks.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.functions.cmp(&b.functions)));
        let samples = stacks.iter().map(|stack| stack.samples).sum();
        let unlisted = stacks.iter().skip(MAX_STACKS).map(|stack| stack.samples).sum();
        stacks.truncate(MAX_STACKS);
        Ok(ProcessProfile { rate_hz: RATE_HZ, samples, stacks, unlisted })
    }
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}
