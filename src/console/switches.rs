//! Watchdogs that are switched off, or have another threshold, for some minutes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::capture::{PerProcess, sys};
use crate::inflight::{Policy, Tool};
use crate::log::log_safely;
use crate::sync::lock_std;

/// A change lasts this long at most.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) watchdog: u32,
    pub(super) to: To,
    pub(super) time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Off,
    Threshold(Duration),
    /// As it was before any change.
    Normal,
}

/// How a watchdog was before it was changed.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) enabled: bool,
    pub(super) threshold: Duration,
    /// How it is since then.
    set: (bool, Duration),
    pub(super) until: Instant,
    pub(super) by: String,
}

#[derive(Default)]
struct All {
    changed: HashMap<u32, Changed>,
    has_thread: bool,
}

static ALL: PerProcess<Mutex<All>> = PerProcess::new(Mutex::default);

/// One watchdog, as a page shows it.
pub(super) struct Shown {
    pub(super) id: u32,
    pub(super) enabled: bool,
    pub(super) threshold: Duration,
    pub(super) changed: Option<Changed>,
}

/// Returns the watchdogs of the process.
pub(super) fn list() -> Vec<Shown> {
    let all = lock_std(ALL.get());
    let shown = |policy: &'static Policy| {
        let id = policy.id.to_bits();
        let changed = all.changed.get(&id).cloned();
        Shown { id, enabled: policy.is_enabled(), threshold: policy.threshold(), changed }
    };
    Policy::all().into_iter().filter(|policy| policy.tool == Tool::Watchdog).map(shown).collect()
}

/// Reads a change from the query of a POST.
pub(super) fn parse(query: &str) -> Option<Change> {
    let (mut watchdog, mut to, mut time) = (None, None, None);
    for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
        match name {
            "switch" => watchdog = Some(value.parse().ok()?),
            "to" => {
                to = Some(match value {
                    "off" => To::Off,
                    "normal" => To::Normal,
                    _ => To::Threshold(Duration::from_millis(value.parse().ok().filter(|ms| *ms > 0)?)),
                });
            }
            "minutes" => {
                time = Some(Duration::from_secs(60 * value.parse::<u64>().ok().filter(|minutes| *minutes <= 60)?))
            }
            _ => {}
        }
    }
    let time = time.unwrap_or(LONGEST).min(LONGEST);
    Some(Change { watchdog: watchdog?, to: to?, time })
}

/// What has become of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Changed,
    /// There is no such watchdog.
    Unknown,
    /// No thread could be started that would take it back.
    NoThread,
}

/// Makes a change.
pub(super) fn make(change: &Change, caller: Option<&str>) -> Made {
    let Some(policy) = watchdog(change.watchdog) else { return Made::Unknown };
    let by = crate::text::escape(caller.unwrap_or("somebody with access"), 200).into_owned();
    let mut all = lock_std(ALL.get());
    if change.to == To::Normal {
        if let Some(changed) = all.changed.remove(&change.watchdog) {
            changed.restore(policy);
        }
    } else {
        if !all.has_thread {
            all.has_thread = std::thread::Builder::new().name("heeler-console".into()).spawn(go_back).is_ok();
        }
        if !all.has_thread {
            return Made::NoThread;
        }
        // The first change knows how it was.
        let known = all.changed.get(&change.watchdog).map(|changed| (changed.enabled, changed.threshold));
        let (enabled, threshold) = known.unwrap_or_else(|| (policy.is_enabled(), policy.threshold()));
        match change.to {
            To::Off => policy.set_enabled(false),
            To::Threshold(threshold) => {
                policy.set_enabled(true);
                policy.set_threshold(threshold);
            }
            To::Normal => {}
        }
        let set = (policy.is_enabled(), policy.threshold());
        let until = Instant::now() + change.time;
        all.changed.insert(change.watchdog, Changed { enabled, threshold, set, until, by: by.clone() });
    }
    drop(all);
    log_safely(|| {
        let (watchdog, minutes) = (change.watchdog, change.time.as_secs() / 60);
        tracing::warn!(target: "heeler", watchdog, to = ?change.to, minutes, by = %by, "a watchdog was changed on the console");
    });
    Made::Changed
}

fn watchdog(id: u32) -> Option<&'static Policy> {
    Policy::all().into_iter().find(|policy| policy.tool == Tool::Watchdog && policy.id.to_bits() == id)
}

impl Changed {
    /// Takes the change back, unless the application has made another one since.
    fn restore(&self, policy: &Policy) {
        let (enabled, threshold) = self.set;
        if policy.threshold() == threshold {
            policy.set_threshold(self.threshold);
        }
        if policy.is_enabled() == enabled {
            policy.set_enabled(self.enabled);
        }
    }
}

/// Takes changes back when their time is up.
fn go_back() {
    sys::block_signals();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let (over, is_last) = {
            let mut all = lock_std(ALL.get());
            let now = Instant::now();
            let over: Vec<(u32, Changed)> = all.changed.extract_if(|_, changed| changed.until <= now).collect();
            for (id, changed) in &over {
                if let Some(policy) = watchdog(*id) {
                    changed.restore(policy);
                }
            }
            all.has_thread = !all.changed.is_empty();
            (over, !all.has_thread)
        };
        // Without the lock: a log is the application's code.
        for (watchdog, _) in over {
            log_safely(|| {
                tracing::warn!(target: "heeler", watchdog, "a watchdog is as it was before it was changed on the console");
            });
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_from_a_query() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let off = Change { watchdog: 3, to: To::Off, time: minutes(10) };
        assert_eq!(parse("switch=3&to=off&minutes=10"), Some(off));
        let second = To::Threshold(Duration::from_secs(1));
        assert_eq!(parse("switch=3&to=1000"), Some(Change { watchdog: 3, to: second, time: LONGEST }));
        assert_eq!(parse("switch=3&to=normal").unwrap().to, To::Normal);
        for nonsense in [
            "",
            "switch=3",
            "to=off",
            "switch=x&to=off",
            "switch=3&to=0",
            "switch=3&to=-1",
            "switch=3&to=off&minutes=61",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
