//! The timelines of reports as a profile of slow traffic.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pprof::protos;

use super::target::{Source, Target};
use crate::capture::PerProcess;
use crate::report::model::words::Activity;
use crate::report::pipeline::timelines::{Share, Timelines, Work};
use crate::report::pprof::{OTHER_STACKS, Writer, fitted, int};
use crate::report::sink::{Delivery, DynAsyncSink, SinkError};
use crate::report::{Digest, Report};
use crate::sync::lock_std;

/// How many pieces of work are remembered, so that an update adds only what is new in it. Each takes about a kilobyte.
const MAX_WORK: usize = 1_024;

/// Pushes where the time of reported work went: once per interval, all reports together.
pub(crate) struct SlowTraffic {
    name: String,
    target: Target,
    interval: Duration,
    pushed: PerProcess<Mutex<Pushed>>,
}

/// How much of the time of each piece of work has been pushed.
#[derive(Debug, Default)]
struct Pushed {
    /// Nanoseconds and waits, by work and by the key of its shares.
    shares: HashMap<String, HashMap<u64, (u64, u64)>>,
    order: VecDeque<String>,
}

impl Pushed {
    /// Returns what of this share has not been pushed: nanoseconds and waits.
    fn rest(&self, work: &Work, share: &Share) -> (u64, u64) {
        let before = self.shares.get(&work.id).and_then(|shares| shares.get(&share.key));
        let (nanos, count) = before.copied().unwrap_or_default();
        (share.nanos.saturating_sub(nanos), share.count.saturating_sub(count))
    }

    fn note(&mut self, work: &Work) {
        let shares = work.shares.iter().map(|share| (share.key, (share.nanos, share.count))).collect();
        if self.shares.insert(work.id.clone(), shares).is_none() {
            self.order.push_back(work.id.clone());
        }
        if self.order.len() > MAX_WORK
            && let Some(oldest) = self.order.pop_front()
        {
            self.shares.remove(&oldest);
        }
    }
}

type Labels = [(&'static str, String); 4];

/// A sample, before it is written.
struct Row<'a> {
    activity: Activity,
    stack: Option<u32>,
    labels: &'a Labels,
    nanos: u64,
    count: u64,
}

impl SlowTraffic {
    pub(super) fn new(target: Target, interval: Duration) -> Self {
        let name = format!("pyroscope {}", target.host());
        Self { name, target, interval, pushed: PerProcess::new(Mutex::default) }
    }

    async fn push(&self, timelines: &Timelines, since: SystemTime, until: SystemTime) -> Result<(), SinkError> {
        let Some(message) = self.message(timelines, since, until) else { return Ok(()) };
        let push = self.target.push(Source::SlowRequests, timelines.process(), &message, since, until)?;
        self.target.send(&push).await?;
        let mut pushed = lock_std(self.pushed.get());
        timelines.works().iter().for_each(|work| pushed.note(work));
        Ok(())
    }

    /// Returns what is new in the timelines, if anything is.
    fn message(&self, timelines: &Timelines, since: SystemTime, until: SystemTime) -> Option<protos::Profile> {
        let labels: Vec<Labels> = timelines.works().iter().map(|work| self.labels(work)).collect();
        let rows = self.rows(timelines, &labels);
        let frames = timelines.frames();
        let message = fitted(rows.len(), |stacks| {
            let mut writer = Writer::new(&frames, &timelines.process().executable);
            writer.sample_types(&[("samples", "count"), ("wall", "nanoseconds")]);
            let (own, others) = rows.split_at(stacks);
            own.iter().for_each(|row| write(&mut writer, timelines, row));
            // By state and route, without the traces.
            let mut rest: BTreeMap<(&str, &str, &str), (u64, u64)> = BTreeMap::new();
            for row in others {
                let [(_, route), (_, job), ..] = row.labels;
                let (nanos, count) = rest.entry((word(row.activity), route, job)).or_default();
                (*nanos, *count) = (nanos.saturating_add(row.nanos), count.saturating_add(row.count));
            }
            for ((state, route, job), (nanos, count)) in rest {
                let labels = [("state", state), ("route", route), ("job", job)];
                writer.remark(OTHER_STACKS, vec![int(count), int(nanos)], &labels);
            }
            let wall = writer.value_type("wall", "nanoseconds");
            let after = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
            protos::Profile {
                // A server refuses what is too old, and not what took long.
                time_nanos: nanos(after(until)),
                duration_nanos: nanos(until.duration_since(since).unwrap_or_default()),
                default_sample_type: wall.ty,
                period_type: Some(wall),
                period: 1,
                ..writer.finish()
            }
        });
        (!message.sample.is_empty()).then_some(message)
    }

    fn labels(&self, work: &Work) -> Labels {
        let ids = work.trace.as_ref().map(|ids| (&*ids.trace, &*ids.span)).unzip();
        self.target.labels_of(work.route.as_deref(), work.job.as_deref(), ids.0, ids.1)
    }

    /// Returns one row per stack, state and labels, longest first.
    fn rows<'a>(&self, timelines: &Timelines, labels: &'a [Labels]) -> Vec<Row<'a>> {
        let pushed = lock_std(self.pushed.get());
        let mut rows: Vec<Row<'a>> = Vec::new();
        let mut known: HashMap<(Activity, Option<u32>, &Labels), usize> = HashMap::new();
        for (work, labels) in timelines.works().iter().zip(labels) {
            for share in &work.shares {
                let (nanos, count) = pushed.rest(work, share);
                if nanos == 0 {
                    continue;
                }
                let (activity, stack) = (share.activity, share.stack);
                let at = *known.entry((activity, stack, labels)).or_insert_with(|| {
                    rows.push(Row { activity, stack, labels, nanos: 0, count: 0 });
                    rows.len() - 1
                });
                let row = &mut rows[at];
                (row.nanos, row.count) = (row.nanos.saturating_add(nanos), row.count.saturating_add(count));
            }
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.nanos));
        rows
    }
}

fn write(writer: &mut Writer<'_>, timelines: &Timelines, row: &Row<'_>) {
    let value = vec![int(row.count), int(row.nanos)];
    let state = [("state", word(row.activity))];
    let labels: Vec<(&str, &str)> =
        state.into_iter().chain(row.labels.iter().map(|(key, value)| (*key, &**value))).collect();
    match row.stack {
        Some(stack) => writer.sample(timelines.stack_frames(stack), value, &labels),
        None => writer.remark(remark(row.activity), value, &labels),
    }
}

/// Returns the value of the label `state`.
const fn word(activity: Activity) -> &'static str {
    match activity {
        Activity::Waiting => "waiting",
        Activity::Running => "running",
        Activity::Runnable => "runnable",
        Activity::Yielding => "yielding",
        Activity::Unobserved => "unobserved",
    }
}

/// Returns what stands for a stack that isn't known.
const fn remark(activity: Activity) -> &'static str {
    match activity {
        Activity::Waiting | Activity::Yielding | Activity::Running => "[unknown stack]",
        Activity::Runnable => "[not scheduled]",
        Activity::Unobserved => "[not observed]",
    }
}

impl DynAsyncSink for SlowTraffic {
    fn name(&self) -> &str {
        &self.name
    }

    /// How work has ended is no time of its own.
    fn has_news(&self, report: &Report) -> bool {
        report.ending.is_none() && !report.timeline.is_empty()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> Delivery<'a> {
        Box::pin(async move {
            let mut timelines = Timelines::default();
            timelines.add(report);
            self.push(&timelines, report.started_at, report.captured_at).await
        })
    }

    fn digest_every(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn digest<'a>(&'a self, digest: &'a Digest) -> Delivery<'a> {
        Box::pin(async move {
            let Some(timelines) = &digest.timelines else { return Ok(()) };
            self.push(timelines, digest.since, digest.until).await
        })
    }
}

impl fmt::Debug for SlowTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowTraffic")
            .field("target", &self.target)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use pprof::protos::Message as _;

    use super::*;
    use crate::report::sink::Pyroscope;
    use crate::report::testing::{report, traced};

    fn slow() -> SlowTraffic {
        Pyroscope::new("http://localhost:4040").prepare().unwrap()
    }

    fn message(slow: &SlowTraffic, timelines: &Timelines) -> protos::Profile {
        let until = UNIX_EPOCH + Duration::from_secs(1_735_689_615);
        slow.message(timelines, until - Duration::from_secs(15), until).expect("there is something new")
    }

    fn wall(message: &protos::Profile) -> u128 {
        message.sample.iter().map(|sample| u128::try_from(sample.value[1]).unwrap()).sum()
    }

    /// Guards: samples have the route, the trace and the state, and the profile says which time it is about.
    #[test]
    fn a_profile_says_when_where_and_in_which_trace() {
        let mut timelines = Timelines::default();
        timelines.add(&traced());
        let message = message(&slow(), &timelines);
        let text = |at: i64| message.string_table[at as usize].as_str();
        let labels = |sample: &protos::Sample| {
            let labels = sample.label.iter().map(|label| format!("{}={}", text(label.key), text(label.str)));
            labels.collect::<Vec<_>>()
        };
        let [trace, span] = ["trace_id=4bf92f3577b34da6a3ce929d0e0e4736", "span_id=00f067aa0ba902b7"];
        let states = ["state=waiting", "state=unobserved", "state=running"];
        let expected = states.map(|state| vec![state, "route=/slow/{what}", trace, span]);
        assert_eq!(message.sample.iter().map(labels).collect::<Vec<_>>(), expected);
        assert_eq!((message.time_nanos, message.duration_nanos), (1_735_689_615_000_000_000, 15_000_000_000));
        assert_eq!(wall(&message), traced().elapsed.as_nanos());
    }

    /// Guards: ten thousand reports of as many stacks and traces are within a server's limits, with all their time.
    #[test]
    fn very_many_reports_fit_into_one_push() {
        let mut timelines = Timelines::default();
        let mut report = traced();
        for number in 1..=10_000_u32 {
            report.id = number.to_string();
            report.trace_id = Some(format!("{number:032x}"));
            report.stacks[0].frames[0].line = Some(number);
            timelines.add(&report);
        }
        let message = message(&slow(), &timelines);
        assert!(message.encoded_len() <= 4 << 20 && message.sample.len() <= 16_000, "{}", message.sample.len());
        assert_eq!(wall(&message), 10_000 * report.elapsed.as_nanos());
        assert!(message.sample.len() > 1_000);
    }

    /// Guards: what was pushed is not pushed again, and what is remembered for that takes bounded memory.
    #[test]
    fn only_what_is_new_is_pushed() {
        let slow = slow();
        let mut timelines = Timelines::default();
        timelines.add(&report());
        let note = |timelines: &Timelines| {
            let mut pushed = lock_std(slow.pushed.get());
            timelines.works().iter().for_each(|work| pushed.note(work));
        };
        note(&timelines);
        assert!(slow.message(&timelines, UNIX_EPOCH, UNIX_EPOCH).is_none());
        let mut update = Report { update: 1, elapsed: 2 * report().elapsed, ..report() };
        update.timeline[0].time += report().elapsed;
        timelines.add(&update);
        assert_eq!(wall(&message(&slow, &timelines)), report().elapsed.as_nanos());
        let mut twice = Report { id: "twice".to_owned(), ..report() };
        twice.timeline.extend(twice.timeline.clone());
        let mut timelines = Timelines::default();
        timelines.add(&twice);
        assert_eq!(wall(&message(&slow, &timelines)), 2 * twice.elapsed.as_nanos());
        note(&timelines);
        assert!(slow.message(&timelines, UNIX_EPOCH, UNIX_EPOCH).is_none(), "a stack that the timeline has twice");
        for number in 0..2 * MAX_WORK {
            let mut others = Timelines::default();
            others.add(&Report { id: number.to_string(), ..report() });
            note(&others);
        }
        let pushed = lock_std(slow.pushed.get());
        assert_eq!((pushed.shares.len(), pushed.order.len()), (MAX_WORK, MAX_WORK));
    }
}
