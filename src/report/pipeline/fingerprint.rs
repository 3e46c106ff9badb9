//! Whether two reports are about the same thing.

use std::collections::BTreeSet;

use crate::monitor::Verdict;
use crate::report::assemble::cause::members;
use crate::report::assemble::location::{is_idle, locate, own_frame};
use crate::report::assemble::route::{route_of, without_id};
use crate::report::model::words::StackKind;
use crate::report::model::{Report, Stack};
use crate::text::fnv::Fnv;

/// Returns a hash that is equal for reports of the same kind and verdict, about the same place and what is awaited there,
/// on the same route: 16 hexadecimal digits.
///
/// It is equal across processes and runs of the same build, because it is a plain FNV-1a of text. It doesn't depend on
/// addresses, ids in paths, the order of branches, how many branches are at the same place, timers beside the work, or
/// which library code an await point is in. The report must have been
/// [arranged](crate::report::assemble::location::arrange), and must say what is
/// [awaited](crate::report::assemble::awaiting::awaiting).
pub(crate) fn fingerprint(report: &Report) -> String {
    let mut hash = Fnv::default();
    if let Some(members) = members(report) {
        // One for all of them, so that one report goes out and the others are counted.
        hash.text("deadlock");
        members.iter().for_each(|member| hash.text(member));
        return hash.finish();
    }
    hash.text(report.kind.as_str());
    hash.text(report.verdict.as_str());
    match (&report.job, &report.request) {
        (Some(job), _) => job.split([' ', '/']).for_each(|word| hash.text(&without_id(word))),
        (None, Some(request)) => {
            hash.text(&request.method);
            hash.text(&request.route.clone().unwrap_or_else(|| route_of(&request.uri)));
        }
        (None, None) => {}
    }
    if matches!(report.verdict, Verdict::Starved | Verdict::Churning) {
        // Which workers were held, and where in their work they were, differs from moment to moment, so use the place
        // that holds most of them. The same is true of the lines of a loop that waits.
        hash.text(&locate(report).and_then(|place| place.function.or(place.file)).unwrap_or_default());
    } else {
        if let Some(awaiting) = &report.awaiting {
            hash.text("awaiting");
            hash.text(awaiting);
        }
        // A timer beside the work may have run out at the very moment of the capture.
        let works = report.stacks.iter().any(|stack| stack.current && !is_idle(stack));
        let stacks = report.stacks.iter().filter(|stack| stack.current && (!works || !is_idle(stack)));
        for stack in stacks.map(places).collect::<BTreeSet<_>>() {
            hash.text("stack");
            stack.iter().for_each(|place| hash.text(place));
        }
    }
    hash.finish()
}

/// Returns the places of all stacks of the capture, whatever their order.
pub(in crate::report) fn current_places(report: &Report) -> BTreeSet<Vec<String>> {
    report.stacks.iter().filter(|stack| stack.current).map(places).collect()
}

/// Returns the places of one stack, innermost first.
fn places(stack: &Stack) -> Vec<String> {
    let name = |frame: &crate::capture::Frame| frame.function.clone().or_else(|| frame.file.clone());
    if own_frame(stack).is_some() {
        let own = stack.frames.iter().filter(|frame| frame.own);
        let mut places: Vec<String> = own
            .filter_map(|frame| match stack.kind {
                // A wait is at one line.
                StackKind::Await => Some(format!("{}:{}", name(frame)?, frame.line.unwrap_or(0))),
                // A thread at work is on a different line of a loop at each look.
                _ => name(frame),
            })
            .collect();
        places.dedup();
        return places;
    }
    // The number of heeler's own layers around it makes no difference.
    let named = || stack.frames.iter().filter(|frame| !frame.is_heelers()).filter_map(name);
    match stack.kind {
        StackKind::Await if named().next().is_some() => named().collect(),
        // Nothing has a name. The addresses within the modules identify the place, for one build.
        StackKind::Await => stack.frames.iter().map(|frame| frame.address.clone()).collect(),
        _ => named().take(1).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::assemble::awaiting::awaiting;
    use crate::report::assemble::location::arrange;
    use crate::report::testing::{await_stack, culprit, library, own, report, thread_stack};

    fn of(report: &Report) -> String {
        let mut report = report.clone();
        arrange(&mut report);
        report.awaiting = awaiting(&report);
        fingerprint(&report)
    }

    /// Guards: fingerprints are equal across versions, too, as long as this value does not change. Changing it breaks no
    /// promise, but ends every comparison with older reports.
    #[test]
    fn a_fingerprint_never_changes() {
        let mut plain = report();
        plain.stacks.clear();
        assert_eq!(of(&plain), of(&plain));
        assert_eq!(of(&plain).len(), 16);
    }

    #[test]
    fn ignores_addresses_ids_and_branch_order() {
        let mut first = report();
        first.request.as_mut().unwrap().route = None;
        first.request.as_mut().unwrap().uri = "/users/1?a=b".to_owned();
        first.stacks.push(await_stack(&[library("tokio::sync::oneshot::poll"), own("app::other", 3)]));
        let mut second = first.clone();
        second.id = "another".to_owned();
        second.elapsed *= 2;
        second.request.as_mut().unwrap().uri = "/users/2".to_owned();
        second.stacks.reverse();
        second.stacks.push(second.stacks[0].clone());
        for stack in &mut second.stacks {
            for frame in &mut stack.frames {
                frame.address = "0x77".to_owned();
            }
        }
        assert_eq!(of(&first), of(&second));
        let mut old = second.clone();
        old.stacks.push(Stack { current: false, ..await_stack(&[own("app::earlier", 1)]) });
        assert_eq!(of(&first), of(&old), "where it was earlier is another matter");
    }

    #[test]
    fn tells_different_places_apart() {
        let first = report();
        let changed = |change: &dyn Fn(&mut Report)| {
            let mut other = report();
            change(&mut other);
            of(&other)
        };
        let own_at = first.stacks[0].frames.iter().position(|frame| frame.own).unwrap();
        assert_ne!(of(&first), changed(&|other| other.stacks[0].frames[own_at].line = Some(1)));
        assert_ne!(of(&first), changed(&|other| other.stacks[0].frames[own_at].function = None));
        assert_ne!(of(&first), changed(&|other| other.verdict = Verdict::Yielding));
        assert_ne!(of(&first), changed(&|other| other.request.as_mut().unwrap().route = Some("/".to_owned())));
        assert_ne!(of(&first), changed(&|other| other.request.as_mut().unwrap().method = "PUT".to_owned()));
        assert_ne!(
            of(&first),
            changed(&|other| {
                other.request = None;
                other.job = Some("job".to_owned());
            })
        );
    }

    /// Guards: an exhausted pool and a locked table are two causes, although the line that waits is the same.
    #[test]
    fn what_is_awaited_tells_causes_apart() {
        let waits = |leaves: &[&str]| {
            let stack = |leaf: &&str| await_stack(&[library(leaf), own("app::load_invoice", 7)]);
            of(&Report { stacks: leaves.iter().map(stack).collect(), ..report() })
        };
        const POOL: &str = "sqlx_core::pool::inner::PoolInner<DB>::acquire";
        const QUERY: &str = "sqlx_postgres::connection::stream::PgStream::recv";
        const TIMER: &str = "<tokio::time::sleep::Sleep as core::future::future::Future>::poll";
        assert_ne!(waits(&[POOL]), waits(&[QUERY]));
        assert_ne!(waits(&[POOL]), waits(&[TIMER]));
        assert_eq!(waits(&[POOL, TIMER]), waits(&[TIMER, POOL]));
        assert_eq!(waits(&[POOL, TIMER]), waits(&[POOL]), "a timer beside it has run out");
        let elsewhere = await_stack(&[library(TIMER), own("app::limited", 3)]);
        let mut limited =
            Report { stacks: vec![await_stack(&[library(POOL), own("app::load_invoice", 7)])], ..report() };
        let alone = of(&limited);
        limited.stacks.push(elsewhere);
        assert_eq!(of(&limited), alone);
    }

    /// Guards: a loop does not make a new report each time it is captured at another line.
    #[test]
    fn a_busy_thread_keeps_its_fingerprint() {
        let mut first = report();
        first.verdict = Verdict::Blocking;
        let mut second = first.clone();
        first.stacks = vec![thread_stack(&[library("regex::a"), own("app::tag", 1), own("app::page", 9)])];
        second.stacks = vec![thread_stack(&[own("app::tag", 2), own("app::page", 9)])];
        assert_eq!(of(&first), of(&second));
        second.stacks = vec![thread_stack(&[own("app::other", 2), own("app::page", 9)])];
        assert_ne!(of(&first), of(&second));
    }

    #[test]
    fn starved_work_counts_by_its_main_culprit() {
        let mut first = report();
        first.verdict = Verdict::Starved;
        let mut second = first.clone();
        first.stacks = vec![culprit(&[library("regex::a"), own("app::tag", 1)]); 2];
        second.stacks =
            vec![culprit(&[own("app::tag", 1)]), culprit(&[own("app::tag", 2)]), culprit(&[own("app::z", 2)])];
        assert_eq!(of(&first), of(&second));
    }

    #[test]
    fn unnamed_frames_count_by_address() {
        let mut frame = own("x", 1);
        frame.own = false;
        frame.function = None;
        frame.file = None;
        let mut first = report();
        first.stacks = vec![await_stack(&[frame.clone()])];
        let mut second = first.clone();
        second.stacks[0].frames[0].address = "0x99".to_owned();
        assert_ne!(of(&first), of(&second));
        first.job = Some("import 7".to_owned());
        first.request = None;
        second = first.clone();
        second.job = Some("import 8".to_owned());
        assert_eq!(of(&first), of(&second));
    }
}
