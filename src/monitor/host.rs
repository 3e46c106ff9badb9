//! CPU time that this process did not get: because its cgroup had used up its quota, because it was stopped, or because
//! other processes had the CPUs. The capture thread takes a sample now and then while work is near its threshold.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::host_files::{HostFiles, Pressure, Process, Throttling};
use super::{DeniedBy, Evidence, Kind, Verdict};
use crate::capture::{self, RuntimeId, slots, sys};
use crate::text::units::duration;

const MILLISECOND: u64 = 1_000_000;
/// How often a sample is taken while work is near its threshold.
const PERIOD: u64 = 100 * MILLISECOND;
/// A sample that is this old is still good for a report.
const FRESH: u64 = 10 * MILLISECOND;
/// How many samples are kept. When there are more, one goes whose neighbours are near each other for their age, so that
/// the others reach back far.
const MAX_SAMPLES: usize = 64;
/// How many threads are read at most.
const MAX_THREADS: usize = 16;
/// Less than this is not worth a word, and less than a tenth of the time isn't, either.
const LEAST: u64 = 20 * MILLISECOND;
/// A thread that sleeps is woken a little late on any machine.
const PUNCTUAL: u64 = MILLISECOND;
/// A thread that was woken this much too late may have been stopped.
const GAP: u64 = 100 * MILLISECOND;
/// From this many on, major page faults are mentioned.
const FAULTS: u64 = 100;

/// CPU time that the process did not get. Durations are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) nanos: u64,
    /// The time that was looked at.
    pub(crate) of: u64,
    pub(crate) by: DeniedBy,
}

/// What was known at one moment. All but the time only grow.
#[derive(Debug, Clone, Default)]
struct Sample {
    at: u64,
    /// Threads that poll watched work.
    threads: Vec<ThreadTimes>,
    /// The same of this thread.
    own_delay: u64,
    /// How much too late this thread was woken, altogether.
    late: u64,
    /// How long all threads stood still.
    stopped: u64,
    throttling: Option<Throttling>,
    process: Option<Process>,
    /// How long everything waited for memory, and for disks.
    stalled: [Option<u64>; Pressure::ALL.len()],
}

/// A thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ThreadTimes {
    tid: i32,
    /// How long it has run.
    cpu: u64,
    /// How long it was ready to run without a CPU, without a wait that goes on.
    delay: u64,
    /// The wait that goes on.
    queued: Option<Queued>,
    runtime: Option<RuntimeId>,
}

/// A thread that has waited for a CPU ever since it was looked at before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queued {
    /// It did not wait before this moment ..
    after: u64,
    /// .. and did at this one.
    by: u64,
}

impl ThreadTimes {
    /// Notes what is known of a wait that goes on. `before` is what was seen at the moment `earlier`.
    fn queued_since(self, before: Option<Self>, earlier: u64, now: u64) -> Self {
        let unmoved = before.filter(|before| (before.cpu, before.delay) == (self.cpu, self.delay));
        let queued = unmoved.map(|before| before.queued.unwrap_or(Queued { after: earlier, by: now }));
        Self { queued, ..self }
    }

    /// Returns how long it was ready to run without a CPU by then, the wait that goes on included as far as it was seen.
    fn delay_at(self, now: u64) -> u64 {
        self.delay + self.queued.map_or(0, |queued| now.saturating_sub(queued.by))
    }
}

/// Returns the threads to read: of each runtime some, rather than all of the one whose threads came first.
fn spread(threads: impl Iterator<Item = (i32, Option<RuntimeId>)>) -> impl Iterator<Item = (i32, Option<RuntimeId>)> {
    let mut many: HashMap<Option<RuntimeId>, usize> = HashMap::new();
    let number = |thread: (i32, Option<RuntimeId>)| {
        let number = many.entry(thread.1).or_default();
        *number += 1;
        (*number, thread)
    };
    let mut numbered: Vec<_> = threads.map(number).collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, thread)| thread).take(MAX_THREADS)
}

/// The samples, oldest first.
#[derive(Debug)]
pub(super) struct Host {
    files: HostFiles,
    cpus: u64,
    samples: Vec<Sample>,
    /// Since the last sample: how much too late this thread was woken at most at once, and altogether.
    longest: u64,
    late: u64,
}

impl Sample {
    fn thread(&self, tid: i32) -> Option<ThreadTimes> {
        self.threads.iter().find(|thread| thread.tid == tid).copied()
    }
}

/// The same for a thread of the floor above that asks a runtime again and again.
#[derive(Debug)]
pub(crate) struct HostWatch(Host);

impl HostWatch {
    pub(crate) fn new() -> Self {
        Self(Host::new(Path::new("/")))
    }

    /// Notes that this thread was to be woken at `wanted`.
    pub(crate) fn woken(&mut self, wanted: u64, now: u64) {
        self.0.woken(wanted, now);
    }

    /// Takes a sample if one is due.
    pub(crate) fn look(&mut self, now: u64) {
        self.0.look(now);
    }

    /// Returns whether the process, or a thread of that runtime, was denied the CPU for half of the time since then, or more.
    pub(crate) fn explains(&mut self, runtime: Option<RuntimeId>, since: u64, now: u64) -> bool {
        self.0.sample(now);
        self.is_explained(runtime, since, now)
    }

    fn is_explained(&self, runtime: Option<RuntimeId>, since: u64, now: u64) -> bool {
        // What came first is in the sample from before. The next one may be from after a stop, and know nothing of it.
        let from = self.0.samples.iter().rev().map(|sample| sample.at).find(|at| *at <= since).unwrap_or(since);
        let time = now.saturating_sub(since).max(1);
        // A thread that was asked something at that moment, and has not run since, may have waited all the time.
        let threads = self.0.samples.last().into_iter().flat_map(|last| &last.threads);
        let queued = threads.filter(|thread| thread.runtime == runtime).filter_map(|thread| thread.queued);
        let queued = queued.map(|queued| now.saturating_sub(queued.after.max(since))).max().unwrap_or(0);
        let denied = self.0.denied(from).map_or(0, |denied| denied.nanos);
        denied.max(queued).saturating_mul(2) >= time
    }
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        Self { files: HostFiles::new(root), cpus, samples: Vec::new(), longest: 0, late: 0 }
    }

    /// Notes that this thread was to be woken at `wanted`.
    pub(super) fn woken(&mut self, wanted: u64, now: u64) {
        let late = now.saturating_sub(wanted);
        if late >= PUNCTUAL {
            self.late += late;
            self.longest = self.longest.max(late);
        }
    }

    /// Takes a sample if one is due. Returns when the next one is.
    pub(super) fn look(&mut self, now: u64) -> u64 {
        let due = self.samples.last().map_or(0, |last| last.at + PERIOD);
        if now < due && self.longest < GAP {
            return due;
        }
        self.sample(now);
        now + PERIOD
    }

    fn sample(&mut self, now: u64) {
        let threads = spread(slots().into_iter().filter_map(|slot| slot.with_life(|life| (life.tid, life.runtime))));
        let before = self.samples.last();
        let times = |(tid, runtime): (i32, Option<RuntimeId>)| {
            let (cpu, delay) = self.files.run_times(tid)?;
            let times = ThreadTimes { tid, cpu, delay, queued: None, runtime };
            let is_ready = || capture::is_runnable(tid);
            Some(match before {
                Some(before) if is_ready() => times.queued_since(before.thread(tid), before.at, now),
                _ => times,
            })
        };
        let threads = threads.filter_map(times).collect();
        self.add(Sample {
            at: now,
            threads,
            own_delay: self.files.run_times(sys::thread_id()).map_or(0, |(_, delay)| delay),
            throttling: self.files.throttling(),
            process: self.files.process(),
            stalled: Pressure::ALL.map(|pressure| self.files.stalled(pressure)),
            ..Sample::default()
        });
    }

    fn add(&mut self, mut sample: Sample) {
        let before = self.samples.last().cloned().unwrap_or_default();
        sample.at = sample.at.max(before.at);
        sample.late = before.late + self.late;
        let stood_still = self.longest >= GAP && !self.samples.is_empty() && self.stood_still(&before, &sample);
        sample.stopped = before.stopped + if stood_still { self.longest } else { 0 };
        (self.longest, self.late) = (0, 0);
        if self.samples.len() == MAX_SAMPLES {
            let at = |index: usize| self.samples[index].at;
            let gap = |index: &usize| {
                let (before, after) = (at(index - 1), at(index + 1));
                (after - before).saturating_mul(1_000) / (sample.at - before).max(1)
            };
            if let Some(index) = (1..MAX_SAMPLES - 1).min_by_key(gap) {
                self.samples.remove(index);
            }
        }
        self.samples.push(sample);
    }

    /// Returns whether, while this thread was not woken, it was not ready to run either, and no other thread ran.
    fn stood_still(&self, before: &Sample, now: &Sample) -> bool {
        let ran = grown(before.process, now.process, |process| process.cpu).unwrap_or(u64::MAX);
        let throttled = grown(before.throttling, now.throttling, |throttling| throttling.nanos).unwrap_or(0);
        let awake = (now.at - before.at).saturating_sub(self.longest);
        now.own_delay - before.own_delay.min(now.own_delay) < self.longest / 2
            && throttled < self.longest / 2
            && ran <= awake.saturating_mul(self.cpus) + self.longest / 8
    }

    /// Returns how long the process was denied the CPU from then on, as far as samples reach, and by what.
    fn denied(&self, since: u64) -> Option<Denied> {
        let (first, last) = (self.samples.iter().find(|sample| sample.at >= since)?, self.samples.last()?);
        let of = last.at - first.at;
        let delay = |thread: &ThreadTimes| {
            let before = first.thread(thread.tid);
            before.map_or(0, |before| thread.delay_at(last.at).saturating_sub(before.delay_at(first.at)))
        };
        let delay = last.threads.iter().map(delay).max().unwrap_or(0).min(of);
        let stopped = (last.stopped - first.stopped).min(of);
        let late = (last.late - first.late).saturating_sub(last.stopped - first.stopped).min(of);
        let throttled = grown(first.throttling, last.throttling, |throttling| throttling.nanos).unwrap_or(0);
        // The kernel adds up CPUs. That a thread wanted to run there, it shows itself.
        let throttled = throttled.min(of).min(delay.max(late)).max((throttled / self.cpus).min(of));
        let ran = grown(first.process, last.process, |process| process.cpu).unwrap_or(u64::MAX);
        // Threads that wait for each other are not the host's fault.
        let others = if ran < of.saturating_mul(self.cpus) / 2 { delay } else { 0 };
        let causes = [(stopped, DeniedBy::Stopped), (throttled, DeniedBy::Quota), (others, DeniedBy::Others)];
        // Of two that explain as much, the first.
        let (nanos, by) = causes.into_iter().rev().max_by_key(|(nanos, _)| *nanos)?;
        let by = if by == DeniedBy::Others && throttled >= nanos / 2 { DeniedBy::Quota } else { by };
        (nanos >= LEAST && nanos >= of / 10).then_some(Denied { nanos, of, by })
    }

    /// Adds to the evidence what the process did not get, and makes that the verdict if it explains most of the time.
    pub(super) fn judge(&mut self, evidence: &mut Evidence) {
        // Up to this moment. Reports about one incident come close together.
        if self.samples.last().is_some_and(|last| last.at + FRESH < evidence.moment) {
            self.sample(evidence.moment);
        }
        let since = evidence.moment.saturating_sub(evidence.elapsed);
        if let Some(faults) = self.faults(since) {
            evidence.notes.push(format!("{faults} major page faults meanwhile: memory had to be read from a disk"));
        }
        evidence.notes.extend(self.stalls(since));
        let Some(denied) = self.denied(since) else { return };
        evidence.denied = Some(denied);
        if explains(&denied, evidence) {
            evidence.verdict = Verdict::Throttled;
        } else {
            evidence.notes.push(format!(
                "denied the CPU for {} of {}: {}",
                duration(Duration::from_nanos(denied.nanos)),
                duration(Duration::from_nanos(denied.of)),
                denied.by.explain()
            ));
        }
    }

    /// Returns notes on what the whole machine waited for.
    fn stalls(&self, since: u64) -> Vec<String> {
        let first = self.samples.iter().find(|sample| sample.at >= since);
        let Some((first, last)) = first.zip(self.samples.last()) else { return Vec::new() };
        let of = last.at - first.at;
        let note = |(at, pressure): (usize, Pressure)| {
            let nanos = grown(first.stalled[at], last.stalled[at], |nanos| nanos)?.min(of);
            (nanos >= LEAST && nanos >= of / 10).then(|| {
                format!(
                    "for {} of {}, no task on this machine could run: all of them waited for {}",
                    duration(Duration::from_nanos(nanos)),
                    duration(Duration::from_nanos(of)),
                    pressure.resource()
                )
            })
        };
        Pressure::ALL.into_iter().enumerate().filter_map(note).collect()
    }

    fn faults(&self, since: u64) -> Option<u64> {
        let (first, last) = (self.samples.iter().find(|sample| sample.at >= since)?, self.samples.last()?);
        grown(first.process, last.process, |process| process.major_faults).filter(|faults| *faults >= FAULTS)
    }
}

fn grown<T>(before: Option<T>, now: Option<T>, of: impl Fn(T) -> u64) -> Option<u64> {
    Some(of(now?).saturating_sub(of(before?)))
}

/// Returns whether the CPU that the process did not get explains most of the time that the work wanted to run.
fn explains(denied: &Denied, evidence: &Evidence) -> bool {
    if matches!(evidence.kind, Kind::Abandoned | Kind::Interrupted) {
        return false;
    }
    let wanted = match (denied.by, evidence.verdict) {
        // Nothing ran, whatever the work was doing.
        (DeniedBy::Stopped, Verdict::NoWaker) => return false,
        (DeniedBy::Stopped, _) => evidence.elapsed,
        (DeniedBy::Quota, Verdict::Starved | Verdict::Blocking | Verdict::Yielding | Verdict::Unknown) => {
            evidence.runnable + evidence.busy
        }
        // If a thread of its own is known to hold a worker, that is the cause.
        (DeniedBy::Others, Verdict::Starved) if evidence.culprits.is_empty() => evidence.runnable + evidence.busy,
        _ => return false,
    };
    wanted > 0 && denied.nanos.saturating_mul(2) >= wanted
}

#[cfg(all(test, not(heeler_loom)))]
mod tests {
    use super::*;
    use crate::report::testing::evidence;

    const MS: u64 = MILLISECOND;

    /// A host of two CPUs, of which nothing can be read.
    fn host() -> Host {
        let mut host = Host::new(Path::new("/nowhere"));
        host.cpus = 2;
        host
    }

    /// What one thread and the process have seen by then: milliseconds of delay, of throttling, and of CPU time.
    fn at(ms: u64, delay: u64, throttled: u64, cpu: u64) -> Sample {
        Sample {
            at: ms * MS,
            threads: vec![ThreadTimes { tid: 7, cpu: cpu * MS, delay: delay * MS, queued: None, runtime: None }],
            throttling: Some(Throttling { times: throttled / 50, nanos: throttled * MS }),
            process: Some(Process { major_faults: ms, cpu: cpu * MS }),
            ..Sample::default()
        }
    }

    fn denied(host: &Host, since: u64) -> Option<(u64, u64, DeniedBy)> {
        host.denied(since * MS).map(|denied| (denied.nanos / MS, denied.of / MS, denied.by))
    }

    /// Guards: throttling is what a thread that wanted to run has seen of it. Where it has seen none, none is told.
    #[test]
    fn a_quota_denies_the_cpu() {
        let mut host = host();
        host.add(at(100, 5, 0, 0));
        host.add(at(1_300, 805, 1_500, 400));
        assert_eq!(denied(&host, 50), Some((800, 1_200, DeniedBy::Quota)));
        assert_eq!(denied(&host, 101), None, "there is only one sample since");
        host.add(at(1_400, 805, 1_500, 500));
        host.add(at(2_400, 806, 1_510, 900));
        assert_eq!(denied(&host, 1_350), None);
    }

    /// Guards: other processes are to blame for a delay only if this one leaves them the CPUs.
    #[test]
    fn its_own_threads_are_no_other_process() {
        for (cpu, expected) in [(300, Some((700, 1_000, DeniedBy::Others))), (1_900, None)] {
            let mut host = host();
            host.add(at(0, 0, 0, 0));
            host.add(at(1_000, 700, 0, cpu));
            assert_eq!(denied(&host, 0), expected, "{cpu} ms of CPU time");
        }
    }

    /// Guards: a process that stood still as a whole was stopped. One whose monitor alone was late was not.
    #[test]
    fn a_stop_is_told_from_being_late() {
        for (own_delay, cpu, expected) in
            [(0, 50, Some((1_000, 1_100, DeniedBy::Stopped))), (900, 50, None), (0, 900, None)]
        {
            let mut host = host();
            host.add(at(0, 0, 0, 0));
            host.woken(100 * MS, 1_100 * MS);
            host.add(Sample { own_delay: own_delay * MS, ..at(1_100, 0, 0, cpu) });
            assert_eq!(denied(&host, 0), expected, "{own_delay} {cpu}");
        }
    }

    /// Guards: a runtime whose threads come after many of another one is looked at, too.
    #[test]
    fn each_runtime_has_threads_that_are_read() {
        let runtimes = [None, Some(RuntimeId::numbered(1)), Some(RuntimeId::numbered(2))];
        let many = (0..40).map(|tid| (tid, runtimes[1]));
        let read: Vec<_> = spread(many.chain([(40, runtimes[2]), (41, runtimes[0])])).collect();
        assert_eq!(read.len(), MAX_THREADS);
        for runtime in runtimes {
            assert!(read.iter().any(|(_, of)| *of == runtime), "{runtime:?} {read:?}");
        }
    }

    /// Guards: a stop explains a stall that is as short, although nothing was looked at since it began.
    #[test]
    fn a_stop_explains_a_stall() {
        for stopped in [true, false] {
            let mut watch = HostWatch(host());
            watch.0.add(at(0, 0, 0, 0));
            // Asked at 50, and woken at 320 instead of 100.
            watch.woken(100 * MS, if stopped { 320 * MS } else { 100 * MS });
            watch.0.add(at(320, 0, 0, 50));
            assert_eq!(watch.explains(None, 50 * MS, 320 * MS), stopped);
        }
    }

    /// Guards: the kernel says nothing of a wait for a CPU before it is over. A thread that is ready to run, and has done
    /// nothing since the stall began, waits for one.
    #[test]
    fn a_wait_for_a_cpu_that_goes_on_explains_a_stall() {
        let seen = |cpu, delay| ThreadTimes { tid: 7, cpu, delay, queued: None, runtime: None };
        for (cpu, explains) in [(5, true), (6, false)] {
            let mut watch = HostWatch(host());
            watch.0.add(Sample { threads: vec![seen(5, 3)], ..at(0, 0, 0, 0) });
            // Asked at 50. It is ready at 100, and at 260.
            let (mut before, mut earlier) = (seen(5, 3), 0);
            for (ms, cpu) in [(100, 5), (260, cpu)] {
                let now = seen(cpu, 3).queued_since(Some(before), earlier, ms * MS);
                watch.0.add(Sample { threads: vec![now], ..at(ms, 0, 0, 0) });
                (before, earlier) = (now, ms * MS);
            }
            assert_eq!(watch.is_explained(None, 50 * MS, 260 * MS), explains, "{cpu}");
        }
    }

    /// Guards: a wait for a CPU counts once, before it is over and after.
    #[test]
    fn a_wait_counts_once() {
        let seen = |cpu, delay| ThreadTimes { tid: 7, cpu, delay: delay * MS, queued: None, runtime: None };
        let waits = seen(5, 10).queued_since(Some(seen(5, 10)), 0, 100 * MS);
        let goes_on = seen(5, 10).queued_since(Some(waits), 100 * MS, 300 * MS);
        assert_eq!((waits.delay_at(100 * MS), goes_on.delay_at(300 * MS)), (10 * MS, 210 * MS));
        let over = seen(6, 260).queued_since(Some(goes_on), 300 * MS, 400 * MS);
        assert_eq!((over.queued, over.delay_at(400 * MS)), (None, 260 * MS));
    }

    /// Guards: samples are bounded, and still reach back to the beginning of a long request.
    #[test]
    fn samples_reach_back() {
        let mut host = host();
        for turn in 0..10_000 {
            host.add(at(turn * 100, 0, 0, 0));
            assert!(host.samples.len() <= MAX_SAMPLES);
        }
        assert_eq!(host.samples[0].at, 0);
        host.add(at(1_000_000, 500_000, 0, 0));
        assert!(denied(&host, 10).is_some_and(|(_, of, _)| of > 600_000));
    }

    /// Guards: a machine whose disks hold everything up is named, and one that only had a hiccup isn't.
    #[test]
    fn what_the_machine_waited_for_is_told() {
        for (stalled, expected) in [
            (900, &["for 900 ms of 1.00 s, no task on this machine could run: all of them waited for disks"][..]),
            (90, &[]),
        ] {
            let mut host = host();
            host.add(Sample { stalled: [None, Some(0)], ..at(0, 0, 0, 0) });
            host.add(Sample { stalled: [Some(7), Some(stalled * MS)], ..at(1_000, 0, 0, 0) });
            assert_eq!(host.stalls(0), expected);
        }
    }

    /// Guards: without the files nothing is said.
    #[test]
    fn nothing_is_said_of_what_cannot_be_read() {
        let mut host = host();
        for turn in 0..50 {
            host.look(turn * PERIOD);
        }
        assert_eq!(denied(&host, 0), None);
        let mut seen = evidence(crate::Reports::builder().without_log().build().unwrap());
        (seen.moment, seen.elapsed, seen.busy) = (50 * PERIOD, 40 * PERIOD, 40 * PERIOD);
        host.judge(&mut seen);
        assert_eq!((seen.verdict, seen.notes.len()), (Verdict::Unknown, 0));
    }

    /// Guards: the verdict changes only if the CPU that was denied explains most of it. Otherwise a note says it.
    #[test]
    fn what_explains_most_is_the_verdict() {
        use DeniedBy::{Others, Quota, Stopped};
        let judged = |by, verdict, kind, busy| {
            let reports = crate::Reports::builder().without_log().build().unwrap();
            let seen = Evidence { verdict, kind, busy, elapsed: 1_000, ..evidence(reports) };
            explains(&Denied { nanos: 500, of: 1_000, by }, &seen)
        };
        let slow = Kind::SlowRequest;
        assert!(judged(Quota, Verdict::Starved, slow, 900) && judged(Quota, Verdict::Blocking, slow, 1_000));
        assert!(!judged(Quota, Verdict::Blocking, slow, 1_001) && !judged(Quota, Verdict::Waiting, slow, 10));
        assert!(judged(Stopped, Verdict::Waiting, slow, 0) && !judged(Stopped, Verdict::NoWaker, slow, 0));
        assert!(judged(Others, Verdict::Starved, slow, 900) && !judged(Others, Verdict::Blocking, slow, 900));
        assert!(judged(Quota, Verdict::Blocking, Kind::BlockingPoll, 900));
        assert!(!judged(Quota, Verdict::Interrupted, Kind::Interrupted, 900), "its time was up for another reason");
        assert!(!judged(Quota, Verdict::Starved, slow, 0));
    }
}
