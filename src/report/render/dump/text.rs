//! A dump as a sentence, and as text for a terminal.

use std::fmt::{self, Write as _};

use crate::inflight::Usage;
use crate::report::assemble::location::place;
use crate::report::render::stack_text;
use crate::report::{Dump, DumpClaim, DumpGroup, DumpKind, DumpPath, DumpResource, DumpWork, RuntimeHealth, Stack};
use crate::text::time::timestamp;
use crate::text::units::{at, count, duration, were};

/// How many groups have their stacks, and how many more a line.
const MAX_GROUPS: usize = 32;
const MAX_LINES: usize = 64;
/// How many stacks each.
const MAX_BRANCHES: usize = 4;
/// The ways to one place.
const MAX_PATHS: usize = 4;
/// How many pieces of work are listed.
const MAX_WORK: usize = 32;
/// How many holders and waiters of a resource are named.
const MAX_CLAIMS: usize = 4;

impl Dump {
    /// Returns the dump in one sentence: `90 in flight: 87 waiting for a connection of the pool in app::load_invoice at
    /// src/invoice.rs:41, ..`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = format!("{} in flight", self.in_flight);
        if let Some(ring) = self.deadlocks.first() {
            let names: Vec<&str> = ring.iter().filter_map(|id| self.name(id)).collect();
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} of them in a deadlock ({})", ring.len(), names.join(", "));
        }
        for (number, group) in self.groups.iter().take(2).enumerate() {
            text.push_str(if number == 0 { ": " } else { ", " });
            // Writing to a string cannot fail.
            let _ = write!(text, "{} {}", group.count, group.says());
        }
        if self.groups.len() > 2 {
            let rest: u64 = self.groups.iter().skip(2).map(|group| group.count).sum();
            // Writing to a string cannot fail.
            let _ = write!(text, ", {rest} elsewhere");
        }
        text
    }

    fn name(&self, id: &str) -> Option<&str> {
        self.work.iter().find(|work| work.id == id).map(|work| &*work.name)
    }

    /// Returns `87 requests, 2 jobs and 1 piece of child work`.
    fn kinds(&self) -> String {
        let all = [
            (DumpKind::Request, "request"),
            (DumpKind::Body, "response body"),
            (DumpKind::Job, "job"),
            (DumpKind::Child, "piece of child work"),
            (DumpKind::Timebox, "timebox"),
        ];
        let many = |kind: DumpKind| self.work.iter().filter(|work| work.kind == kind).count();
        let said = all.into_iter().map(|(kind, name)| (many(kind), name)).filter(|(many, _)| *many > 0);
        let said: Vec<String> = said
            .map(|(many, name)| match (many, name) {
                (1, name) => format!("1 {name}"),
                (many, "response body") => format!("{many} response bodies"),
                (many, "piece of child work") => format!("{many} pieces of child work"),
                (many, "timebox") => format!("{many} timeboxes"),
                (many, name) => format!("{many} {name}s"),
            })
            .collect();
        said.join(", ")
    }
}

impl RuntimeHealth {
    /// Returns `runtime "main": stalled for 312 ms; 2 workers, 94 tasks, 80 queued; delay 0.02 ms, at most 312 ms`.
    pub(crate) fn says(&self) -> String {
        let stalled = self.stalled_for.map(|time| format!("STALLED for {}; ", duration(time))).unwrap_or_default();
        let stalls = if self.stalls > 0 { format!("; {} so far", count(self.stalls, "stall")) } else { String::new() };
        format!(
            "runtime \"{}\": {stalled}{}, {}, {} queued; delay {} (p50), {} (p99), {} at most{stalls}",
            self.name,
            count(self.workers as u64, "worker"),
            count(self.alive_tasks as u64, "task"),
            self.queued_tasks,
            duration(self.delay_p50),
            duration(self.delay_p99),
            duration(self.delay_max)
        )
    }
}

impl DumpPath {
    /// Returns the stacks at different places, each with the number of others that go through the same lines.
    pub(crate) fn branches(&self) -> Vec<(&Stack, u64)> {
        let mut places: Vec<(&Stack, u64)> = Vec::new();
        for stack in self.stacks.iter().filter(|stack| stack.current) {
            match places.iter_mut().find(|(known, _)| known.is_at_same_place_as(stack)) {
                Some((_, more)) => *more += 1,
                None => places.push((stack, 0)),
            }
        }
        places
    }
}

impl DumpGroup {
    /// Returns `waiting for a lock in app::load at src/app.rs:41`.
    pub(crate) fn says(&self) -> String {
        let mut text = self.state.as_str().to_owned();
        if let Some(awaiting) = &self.awaiting {
            // Writing to a string cannot fail.
            let _ = write!(text, " for {awaiting}");
        }
        if let Some(location) = &self.location {
            // Writing to a string cannot fail.
            let _ = write!(text, " in {}", place(location));
        }
        text
    }
}

/// The dump as text: what is in flight by place, each place with its stack; deadlocks and resources; the oldest work; the
/// threads.
impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = &self.process;
        writeln!(f, "{}", self.sentence())?;
        writeln!(f)?;
        let name = process.executable.rsplit('/').next().unwrap_or_default();
        let service = process.service.as_deref().unwrap_or(name);
        writeln!(
            f,
            "{service} (pid {}) on {}, {}, taken in {}",
            process.pid,
            process.hostname,
            timestamp(self.taken_at),
            duration(self.took)
        )?;
        if !self.work.is_empty() {
            writeln!(f, "{}", self.kinds())?;
        }
        if self.omitted > 0 {
            let more = count(self.omitted, "more piece");
            writeln!(f, "{more} of work {} in flight, and {} not looked at", were(self.omitted), were(self.omitted))?;
        }
        if self.unobserved > 0 {
            let pieces = count(self.unobserved, "piece");
            writeln!(
                f,
                "{pieces} of work {} not observed: the workers did not poll what was asked",
                were(self.unobserved)
            )?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for runtime in &self.runtimes {
            writeln!(f, "{}", runtime.says())?;
        }
        self.write_deadlocks(f)?;
        self.write_groups(f)?;
        self.write_resources(f)?;
        self.write_work(f)?;
        if self.threads.threads > 0 {
            writeln!(f, "\nThreads: {}", self.threads)?;
        }
        Ok(())
    }
}

impl Dump {
    /// Returns how that work came to where it is.
    #[cfg(any(feature = "console", feature = "test-util"))]
    pub(crate) fn path_of(&self, work: &DumpWork) -> Option<&DumpPath> {
        self.groups.get(work.group)?.paths.get(work.path?)
    }

    /// Returns one piece of work with all its stacks, and what it has handed on.
    #[cfg(feature = "test-util")]
    pub(crate) fn about(&self, work: &DumpWork) -> String {
        let mut text = String::new();
        let mut add = |work: &DumpWork| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", self.line(work));
            let stacks = self.path_of(work).into_iter().flat_map(|path| &path.stacks);
            for (number, stack) in stacks.filter(|stack| stack.current).enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(text, "  branch {}\n{}", number + 1, stack_text(stack));
            }
        };
        add(work);
        self.work.iter().filter(|child| child.parent.as_ref() == Some(&work.id)).for_each(add);
        text
    }

    fn write_deadlocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ring in &self.deadlocks {
            writeln!(f, "\nDEADLOCK: none of these can make progress")?;
            for id in ring {
                let Some(work) = self.work.iter().find(|work| work.id == *id) else { continue };
                let quoted =
                    |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
                write!(f, "  {} ({id})", work.name)?;
                if work.holds.is_empty() {
                    // A writer in the queue keeps further readers out.
                    writeln!(f, " is next in the queue for {}, and keeps others out", quoted(&work.awaits))?;
                } else {
                    writeln!(f, " holds {}, and waits for {}", quoted(&work.holds), quoted(&work.awaits))?;
                }
            }
        }
        Ok(())
    }

    fn write_groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.groups.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nWhere it is")?;
        for (number, group) in self.groups.iter().take(MAX_LINES).enumerate() {
            let routes: Vec<String> = group
                .routes
                .iter()
                .map(|(route, many)| if *many == 1 { route.clone() } else { format!("{many} x {route}") })
                .collect();
            writeln!(f, "\n{} {}, the oldest for {}", group.count, group.says(), duration(group.oldest))?;
            writeln!(f, "     ({})", routes.join(", "))?;
            if number < MAX_GROUPS {
                for (number, path) in group.paths.iter().take(MAX_PATHS).enumerate() {
                    if group.paths.len() > 1 {
                        let another = if number > 0 { "another way" } else { "this way" };
                        writeln!(f, "   {} came {another}:", path.count)?;
                    }
                    for (stack, more) in path.branches().into_iter().take(MAX_BRANCHES) {
                        f.write_str(&stack_text(stack))?;
                        if more > 0 {
                            writeln!(f, "     and {} through the same lines", count(more, "more wait"))?;
                        }
                    }
                }
                if let Some(more) = group.paths.len().checked_sub(MAX_PATHS).filter(|more| *more > 0) {
                    writeln!(f, "   … {}, in the JSON form", count(more as u64, "more way"))?;
                }
            }
        }
        if let Some(more) = self.groups.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
            writeln!(f, "\n… {} more, in the JSON form", count(more as u64, "place"))?;
        }
        Ok(())
    }

    fn write_resources(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.resources.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nWhat is held and awaited")?;
        for resource in self.resources.iter().take(MAX_LINES) {
            writeln!(f, "  {}", resource.says())?;
        }
        Ok(())
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.work.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nThe oldest")?;
        for work in self.work.iter().take(MAX_WORK) {
            writeln!(f, "  {:>9}  {}  {}", duration(work.elapsed), work.id, self.line(work))?;
        }
        if let Some(more) = self.work.len().checked_sub(MAX_WORK).filter(|more| *more > 0) {
            writeln!(f, "  … {more} more, in the JSON form")?;
        }
        Ok(())
    }

    /// Returns `GET /photos/7: waiting for a lock in app::load at src/app.rs:41, holds "ledger"`.
    pub(crate) fn line(&self, work: &DumpWork) -> String {
        let what = match work.kind {
            DumpKind::Request => work.name.clone(),
            kind => format!("{kind} {}", work.name),
        };
        let mut text = format!("{what}: {}", self.groups.get(work.group).map(DumpGroup::says).unwrap_or_default());
        for (verb, names) in [("holds", &work.holds), ("waits for", &work.awaits)] {
            for name in names {
                // Writing to a string cannot fail.
                let _ = write!(text, ", {verb} \"{name}\"");
            }
        }
        if let Some(left) = work.left {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} left", duration(left));
        }
        text
    }
}

impl DumpResource {
    /// Returns `"invoice pool" (3 of 3 in use): held by GET /export for 34.0 s (src/export.rs:41), and 2 more; 87 wait, the
    /// first for 12.3 s`.
    pub(crate) fn says(&self) -> String {
        let usage =
            self.usage.map(|Usage { in_use, size }| format!(" ({in_use} of {size} in use)")).unwrap_or_default();
        let deadlock = if self.deadlock { ", in a deadlock" } else { "" };
        let holders = match &*self.holders {
            [] => "nobody is known to hold it".to_owned(),
            holders => {
                let named: Vec<String> = holders.iter().take(MAX_CLAIMS).map(claim).collect();
                let more = holders.len().saturating_sub(MAX_CLAIMS) as u64 + self.more_holders;
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                format!("held by {}{more}", named.join(", "))
            }
        };
        let waiters = match &*self.waiters {
            [] => "nobody waits for it".to_owned(),
            [one] if self.more_waiters == 0 => format!("{} waits for it, for {}", one.work, duration(one.time)),
            [first, ..] => {
                let all = self.waiters.len() as u64 + self.more_waiters;
                format!("{all} wait for it, {} first, for {}", first.work, duration(first.time))
            }
        };
        format!("\"{}\"{usage}{deadlock}: {holders}; {waiters}", self.name)
    }
}

fn claim(claim: &DumpClaim) -> String {
    let at = at(claim.at.file.as_deref(), claim.at.line).map(|at| format!(" ({at})")).unwrap_or_default();
    format!("{} for {}{at}", claim.work, duration(claim.time))
}
