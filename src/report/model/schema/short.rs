//! The short form: where the work is stuck and where the time went, in a few kilobytes.

use std::borrow::Cow;

use serde::Serialize;

use super::tables::Picked;
use crate::capture::Frame;
use crate::report::render::significant;
use crate::report::{Interval, Report, Stack, StackKind};

/// The most stacks, and how many of these are from the capture. The others show where most of the time went before.
pub(in crate::report) const MAX_STACKS: usize = 6;
const MAX_CURRENT: usize = 4;

/// The most frames of a stack, from its inner and from its outer end.
pub(in crate::report) const INNER: usize = 12;
pub(in crate::report) const OUTER: usize = 4;

/// What the short form leaves out.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(in crate::report) struct Omitted {
    pub(in crate::report) stacks: usize,
    /// In all stacks, including those left out.
    pub(in crate::report) frames: usize,
}

/// Returns the significant stacks and frames, and the timeline, which refers to these.
pub(in crate::report) fn shorten(report: &Report) -> (Vec<Picked<'_>>, Cow<'_, [Interval]>, Omitted) {
    let numbers = pick(report);
    let picked: Vec<Picked<'_>> = numbers.iter().map(|&number| reduce(&report.stacks[number])).collect();
    let told: usize = picked.iter().map(|picked| picked.frames.len()).sum();
    let all: usize = report.stacks.iter().map(|stack| stack.frames.len()).sum();
    let timeline = report.timeline.iter().map(|interval| {
        let stack = interval.stack.and_then(|stack| numbers.iter().position(|&number| number == stack));
        Interval { stack, ..interval.clone() }
    });
    let omitted = Omitted { stacks: report.stacks.len() - picked.len(), frames: all - told };
    (picked, timeline.collect(), omitted)
}

/// Picks stacks, in their order: one per place of the capture, then those of the longest shares of the time.
fn pick(report: &Report) -> Vec<usize> {
    let mut picked: Vec<usize> = Vec::new();
    let stacks = &report.stacks;
    let mut add = |candidates: &mut dyn Iterator<Item = usize>, most: usize| {
        for number in candidates {
            let says_the_same = |&other: &usize| {
                let (one, other) = (&stacks[number], &stacks[other]);
                one.work == other.work && one.is_at_same_place_as(other)
            };
            if picked.len() >= most {
                break;
            }
            if !picked.iter().any(says_the_same) {
                picked.push(number);
            }
        }
    };
    let all = 0..stacks.len();
    let in_timeline = report.timeline.iter().filter_map(|interval| interval.stack);
    add(&mut all.clone().filter(|&number| stacks[number].current), MAX_CURRENT);
    // An older stack is better than none.
    add(&mut in_timeline.filter(|number| all.contains(number)), MAX_STACKS);
    add(&mut all.clone(), 1);
    picked.sort_unstable();
    picked
}

/// Keeps the application's own frames and the library frames that say what is waited on.
fn reduce(stack: &Stack) -> Picked<'_> {
    let all: Vec<&Frame> = stack.frames.iter().collect();
    let significant = significant(&all, stack.kind == StackKind::Await);
    let mut frames: Vec<&Frame> =
        all.iter().zip(significant).filter_map(|(&frame, tells)| tells.then_some(frame)).collect();
    if frames.len() > INNER + OUTER {
        // More than that is a recursion.
        frames.drain(INNER..frames.len() - OUTER);
    }
    Picked { stack, omitted: Some(all.len() - frames.len()), frames }
}
