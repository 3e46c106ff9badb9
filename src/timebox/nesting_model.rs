//! Checks boxes within boxes against the simplest model: a list of all deadlines, and a clock that is set by hand.

use proptest::prelude::*;

use super::open::is_effective;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    /// The innermost box ends by itself.
    Close,
    /// Time passes. Boxes that expire in that time are interrupted.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limit = prop_oneof![8 => 0..1_000_u64, 1 => Just(u64::MAX)];
    let step = prop_oneof![
        3 => limit.prop_map(Step::Open),
        2 => Just(Step::Close),
        2 => (0..300_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

/// As in the core: each box knows its own deadline, and the next box further out that has an effect.
#[derive(Debug)]
struct Open {
    number: usize,
    deadline: u64,
    effective: bool,
}

/// Returns the innermost open box that has an effect: which one, and when it expires.
fn innermost(open: &[Open]) -> Option<(usize, u64)> {
    open.iter().rev().find(|open| open.effective).map(|open| (open.number, open.deadline))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Guards: of all open timeboxes the earliest interrupts, and of several the outermost. It ends what is within it and
    /// nothing else, and the deadlines of those around it stay what they were.
    #[test]
    fn the_earliest_deadline_interrupts(steps in steps()) {
        let mut now = 0_u64;
        let mut open: Vec<Open> = Vec::new();
        // Number and deadline, from the outermost in.
        let mut model: Vec<(usize, u64)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Open(limit) => {
                    let deadline = now.saturating_add(limit);
                    let around = innermost(&open).map(|(_, deadline)| deadline);
                    open.push(Open { number, deadline, effective: is_effective(deadline, around) });
                    model.push((number, deadline));
                }
                Step::Close => {
                    open.pop();
                    model.pop();
                }
                Step::Wait(time) => {
                    let until = now + time;
                    // An interruption is caught at once, and the boxes around it go on.
                    loop {
                        let next = innermost(&open).filter(|&(_, deadline)| deadline <= until);
                        // `min_by_key` returns the first of several, which is the outermost.
                        let expected = model.iter().min_by_key(|one| one.1).copied().filter(|one| one.1 <= until);
                        prop_assert_eq!(next, expected);
                        let Some((number, deadline)) = next else { break };
                        prop_assert!(deadline >= now, "it should have been interrupted before");
                        now = deadline;
                        open.truncate(open.iter().position(|open| open.number == number).unwrap());
                        model.truncate(model.iter().position(|one| one.0 == number).unwrap());
                    }
                    now = until;
                }
            }
            let left = model.iter().map(|one| one.1).min().filter(|&deadline| deadline != u64::MAX);
            prop_assert_eq!(innermost(&open).map(|(_, deadline)| deadline), left, "what `remaining` follows from");
        }
    }
}
