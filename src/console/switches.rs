//! Watchdogs and rules that are switched off, or have another threshold or budget, for some minutes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::capture::{PerProcess, sys};
use crate::inflight::{Policy, Tool};
use crate::report::rules::RuleBudget;
use crate::report::{Reports, log_later};
use crate::sync::lock_std;

/// A change lasts this long at most.
const LONGEST: Duration = Duration::from_secs(3_600);
/// No rule may fire more often in an hour.
const MOST: u64 = 1_000;

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    what: What,
    to: To,
    time: Duration,
}

/// What is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The watchdog with that number.
    Watchdog(u32),
    /// The rule with that number, of those that the console's reports have.
    Rule(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Off,
    /// A threshold in milliseconds, or how often in an hour.
    Number(u64),
    /// As it was before any change.
    Normal,
}

/// What can be changed.
#[derive(Debug, Clone)]
enum Switch {
    Watchdog(&'static Policy),
    Rule(Arc<RuleBudget>),
}

/// How a switch is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Watchdog {
        enabled: bool,
        threshold: Duration,
    },
    /// How often in an hour.
    Rule(u32),
}

/// How a switch was before it was changed.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    switch: Switch,
    pub(super) before: Setting,
    /// How it is since then.
    set: Setting,
    pub(super) until: Instant,
    pub(super) by: String,
}

#[derive(Default)]
struct All {
    changed: Vec<Changed>,
    has_thread: bool,
}

static ALL: PerProcess<Mutex<All>> = PerProcess::new(Mutex::default);

/// One switch, as a page shows it.
pub(super) struct Shown {
    /// What a change of it begins with: `switch=3`.
    pub(super) query: String,
    pub(super) name: String,
    pub(super) now: Setting,
    /// How often a rule has fired in the last hour.
    pub(super) spent: Option<usize>,
    pub(super) changed: Option<Changed>,
}

/// Returns the watchdogs of the process, and the rules of these reports.
pub(super) fn list(reports: &Reports) -> Vec<Shown> {
    let watchdogs = Policy::all().into_iter().filter(|policy| policy.tool == Tool::Watchdog);
    let watchdogs = watchdogs.map(|policy| (format!("switch={}", policy.id.to_bits()), Switch::Watchdog(policy)));
    let rules = reports.budgets().into_iter().enumerate();
    let rules = rules.map(|(number, budget)| (format!("rule={number}"), Switch::Rule(budget)));
    let all = lock_std(ALL.get());
    let shown = |(query, switch): (String, Switch)| Shown {
        query,
        name: switch.name(),
        now: switch.setting(),
        spent: match &switch {
            Switch::Watchdog(_) => None,
            Switch::Rule(budget) => Some(budget.spent()),
        },
        changed: all.changed.iter().find(|changed| changed.switch.is(&switch)).cloned(),
    };
    watchdogs.chain(rules).map(shown).collect()
}

/// Reads a change from the query of a POST.
pub(super) fn parse(query: &str) -> Option<Change> {
    let (mut what, mut to, mut time) = (None, None, None);
    for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
        match name {
            "switch" => what = Some(What::Watchdog(value.parse().ok()?)),
            "rule" => what = Some(What::Rule(value.parse().ok()?)),
            "to" => {
                to = Some(match value {
                    "off" => To::Off,
                    "normal" => To::Normal,
                    _ => To::Number(value.parse().ok().filter(|number| *number > 0)?),
                });
            }
            "minutes" => {
                time = Some(Duration::from_secs(60 * value.parse::<u64>().ok().filter(|minutes| *minutes <= 60)?))
            }
            _ => {}
        }
    }
    let (what, to) = (what?, to?);
    if matches!((what, to), (What::Rule(_), To::Number(number)) if number > MOST) {
        return None;
    }
    Some(Change { what, to, time: time.unwrap_or(LONGEST).min(LONGEST) })
}

/// What has become of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Changed,
    /// There is no such switch.
    Unknown,
    /// No thread could be started that would take it back.
    NoThread,
}

/// Makes a change.
pub(super) fn make(change: &Change, reports: &Reports, caller: Option<&str>) -> Made {
    let Some(switch) = change.what.find(reports) else { return Made::Unknown };
    let by = crate::text::escape(caller.unwrap_or("somebody with access"), 200).into_owned();
    let mut all = lock_std(ALL.get());
    let known = all.changed.iter().position(|changed| changed.switch.is(&switch));
    let known = known.map(|at| all.changed.swap_remove(at));
    if change.to == To::Normal {
        if let Some(changed) = known {
            changed.restore();
        }
    } else {
        if !all.has_thread {
            all.has_thread = std::thread::Builder::new().name("heeler-console".into()).spawn(go_back).is_ok();
        }
        if !all.has_thread {
            all.changed.extend(known);
            return Made::NoThread;
        }
        // The first change knows how it was, but for what the application has set since then.
        let before = known.map_or_else(|| switch.setting(), |changed| changed.restored());
        switch.change(change.to);
        let (set, until) = (switch.setting(), Instant::now() + change.time);
        all.changed.push(Changed { switch: switch.clone(), before, set, until, by: by.clone() });
    }
    drop(all);
    let (what, to, minutes) = (switch.name(), change.to, change.time.as_secs() / 60);
    log_later(
        move || tracing::warn!(target: "heeler", %what, ?to, minutes, by = %by, "a switch was changed on the console"),
    );
    Made::Changed
}

impl What {
    fn find(self, reports: &Reports) -> Option<Switch> {
        match self {
            Self::Watchdog(id) => {
                let is_it = |policy: &&Policy| policy.tool == Tool::Watchdog && policy.id.to_bits() == id;
                Policy::all().into_iter().find(is_it).map(Switch::Watchdog)
            }
            Self::Rule(number) => reports.budgets().into_iter().nth(number).map(Switch::Rule),
        }
    }
}

impl Switch {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Watchdog(one), Self::Watchdog(other)) => std::ptr::eq(*one, *other),
            (Self::Rule(one), Self::Rule(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Watchdog(policy) => match &policy.name {
                Some(name) => format!("watchdog {name}"),
                None => format!("watchdog {}", policy.id.to_bits()),
            },
            Self::Rule(budget) => format!("rule: {}", budget.rule),
        }
    }

    fn setting(&self) -> Setting {
        match self {
            Self::Watchdog(policy) => Setting::Watchdog { enabled: policy.is_enabled(), threshold: policy.threshold() },
            Self::Rule(budget) => Setting::Rule(budget.at_most()),
        }
    }

    fn change(&self, to: To) {
        match (self, to) {
            (_, To::Normal) => {}
            (Self::Watchdog(policy), To::Off) => policy.set_enabled(false),
            (Self::Watchdog(policy), To::Number(ms)) => {
                policy.set_enabled(true);
                policy.set_threshold(Duration::from_millis(ms));
            }
            (Self::Rule(budget), To::Off) => budget.set_at_most(0),
            (Self::Rule(budget), To::Number(times)) => budget.set_at_most(u32::try_from(times).unwrap_or(u32::MAX)),
        }
    }
}

impl Changed {
    /// Returns how it was before, but for what the application has set since the change.
    fn restored(&self) -> Setting {
        match (self.switch.setting(), self.set, self.before) {
            (
                Setting::Watchdog { enabled, threshold },
                Setting::Watchdog { enabled: set_enabled, threshold: set_threshold },
                Setting::Watchdog { enabled: was_enabled, threshold: old_threshold },
            ) => Setting::Watchdog {
                enabled: if enabled == set_enabled { was_enabled } else { enabled },
                threshold: if threshold == set_threshold { old_threshold } else { threshold },
            },
            // The application cannot set a rule's budget.
            (_, _, before) => before,
        }
    }

    /// Takes the change back.
    fn restore(&self) {
        match (&self.switch, self.restored()) {
            (Switch::Watchdog(policy), Setting::Watchdog { enabled, threshold }) => {
                policy.set_threshold(threshold);
                policy.set_enabled(enabled);
            }
            (Switch::Rule(budget), Setting::Rule(before)) => budget.set_at_most(before),
            _ => {}
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
            let over: Vec<Changed> = all.changed.extract_if(.., |changed| changed.until <= now).collect();
            over.iter().for_each(Changed::restore);
            all.has_thread = !all.changed.is_empty();
            (over, !all.has_thread)
        };
        for changed in over {
            let what = changed.switch.name();
            log_later(
                move || tracing::warn!(target: "heeler", %what, "a switch is as it was before it was changed on the console"),
            );
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: what the application sets while a change lasts is what comes back, also if there is another change first.
    #[cfg(feature = "watchdog")]
    #[test]
    fn what_the_application_sets_stays() {
        let seconds = Duration::from_secs;
        let reports = Reports::default();
        let handle = crate::WatchdogLayer::new(seconds(5)).name("shop of this test").handle();
        let shown = || list(&reports).into_iter().find(|shown| shown.name == "watchdog shop of this test");
        let query = shown().expect("a switch").query;
        let change = |to: &str| {
            let change = parse(&format!("{query}&to={to}")).unwrap();
            assert_eq!(make(&change, &reports, Some("ada")), Made::Changed);
        };
        change("1000");
        handle.set_threshold(seconds(7));
        change("25000");
        assert_eq!(handle.threshold(), seconds(25));
        change("off");
        assert!(!handle.is_enabled());
        change("normal");
        assert_eq!((handle.threshold(), handle.is_enabled()), (seconds(7), true));
    }

    #[test]
    fn a_change_is_read_from_a_query() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let off = Change { what: What::Watchdog(3), to: To::Off, time: minutes(10) };
        assert_eq!(parse("switch=3&to=off&minutes=10"), Some(off));
        let second = Change { what: What::Watchdog(3), to: To::Number(1_000), time: LONGEST };
        assert_eq!(parse("switch=3&to=1000"), Some(second));
        let often = Change { what: What::Rule(0), to: To::Number(60), time: minutes(10) };
        assert_eq!(parse("rule=0&to=60&minutes=10"), Some(often));
        assert_eq!(parse("switch=3&to=normal").unwrap().to, To::Normal);
        for nonsense in [
            "",
            "switch=3",
            "to=off",
            "switch=x&to=off",
            "switch=3&to=0",
            "switch=3&to=-1",
            "switch=3&to=off&minutes=61",
            "rule=-1&to=off",
            "rule=0&to=1001",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
