//! What the rest of the process does while a request is profiled, by the `pprof` crate.
//!
//! In its safest configuration: a low rate, and no samples of threads inside libc, the unwinder or the vdso, where walking
//! the stack in a signal handler has deadlocked and crashed programs
//! ([pprof-rs#76](https://github.com/tikv/pprof-rs/issues/76)). So what those cost is missing here. One at a time in a
//! process.

#[cfg(feature = "pprof")]
pub(super) use with_pprof::{finish, start};
#[cfg(not(feature = "pprof"))]
pub(super) use without::{finish, start};

#[cfg(feature = "pprof")]
mod with_pprof {
    use pprof::{ProfilerGuard, ProfilerGuardBuilder, Symbol};

    use crate::profile::lane::LANE;
    use crate::profile::{Meanwhile, ProcessStack};

    /// A rate in step with nothing.
    const RATE_HZ: u32 = 99;
    /// Different stacks that are listed.
    const MAX_STACKS: usize = 1_000;
    const MAX_DEPTH: usize = 128;

    /// Samples until it is dropped.
    pub(in crate::profile) type Watching = Result<ProfilerGuard<'static>, String>;

    /// Begins. Takes milliseconds, as [`finish`] does: for a thread that may block.
    pub(in crate::profile) fn start() -> Watching {
        let builder =
            ProfilerGuardBuilder::default().frequency(RATE_HZ as i32).blocklist(&["libc", "libgcc", "pthread", "vdso"]);
        builder.build().map_err(|error| format!("The rest of the process could not be profiled: {error}."))
    }

    /// Ends; a sentence if there is nothing to show. The threads of the lane ran the request, and are left out.
    pub(in crate::profile) fn finish(watching: Watching) -> Result<Meanwhile, String> {
        let report = watching?.report().build();
        let report = report.map_err(|error| format!("There is no profile of the rest of the process: {error}."))?;
        let mut stacks: Vec<ProcessStack> = Vec::new();
        for (frames, samples) in &report.data {
            if frames.thread_name == LANE.name() || frames.thread_name == "heeler-sampler" {
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
        Ok(Meanwhile { rate_hz: RATE_HZ, samples, stacks, unlisted })
    }
}

#[cfg(not(feature = "pprof"))]
mod without {
    use crate::profile::Meanwhile;

    pub(in crate::profile) fn start() {}

    pub(in crate::profile) fn finish((): ()) -> Result<Meanwhile, String> {
        Err("This build cannot profile the whole process.".to_owned())
    }
}
