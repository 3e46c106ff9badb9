//! What a task did inside its polls, from samples.
//!
//! A sample stands for the time around it, half a period to either side. Only time inside polls counts, so samples of
//! many short polls also stand for the polls between them. If samples are missing, the time goes to the stack that the
//! samples on both sides have in common, and is marked as unattributed.

use super::samples::{Sample, Spent};
use super::stacks::{EMPTY, Stacks};
use crate::inflight::recording::Log;
use crate::profile::State;

/// A stretch inside one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) state: State,
    pub(super) place: u32,
    /// Whether no sample covers it.
    pub(super) unattributed: bool,
    pub(super) count: u32,
}

/// A stretch of time inside polls, end to end.
struct Claim {
    /// Where it ends.
    to: u64,
    spent: Spent,
    place: u32,
    unattributed: bool,
    /// Whether it belongs to a sample.
    counts: bool,
}

/// Returns the pieces in order, without gaps within a poll. `ended` is the end of the recording, for a poll that goes
/// on.
pub(super) fn pieces(log: &Log, samples: &[Sample], stacks: &Stacks, ended: u64, period: u64) -> Vec<Piece> {
    let going_on = log.polling.map(|began| (began, ended.max(began), None));
    let done = log.polls.iter().map(|poll| (poll.began, poll.ended, Some(poll.cpu)));
    let polls: Vec<(u64, u64, Option<u64>)> = done.chain(going_on).collect();
    let mut offsets = Vec::with_capacity(polls.len());
    let mut total = 0;
    for (began, ended, _) in &polls {
        offsets.push(total);
        total += ended.saturating_sub(*began);
    }
    // Each sample, with its time inside polls and its poll.
    let located: Vec<(u64, usize, Sample)> = samples
        .iter()
        .filter_map(|sample| {
            let poll = polls.partition_point(|(began, ..)| *began <= sample.at).checked_sub(1)?;
            let (began, ended, _) = polls[poll];
            (sample.at <= ended).then(|| (offsets[poll] + (sample.at - began), poll, *sample))
        })
        .collect();
    let claims = claims(&located, total, stacks, period);
    let mut pieces = Vec::with_capacity(claims.len() + polls.len());
    let (mut claim, mut fresh) = (0, true);
    for (index, (began, ended, cpu)) in polls.iter().enumerate() {
        let (mut at, end) = (offsets[index], offsets[index] + ended.saturating_sub(*began));
        let wall = |at: u64| began + (at - offsets[index]);
        while at < end {
            let Some(current) = claims.get(claim) else { break };
            let to = current.to.min(end);
            if to > at {
                let mut count = u32::from(current.counts && fresh);
                fresh = false;
                let Claim { spent, place, unattributed, .. } = *current;
                let nanos = to - at;
                let parts = if unattributed && spent.micros() == 0 {
                    // Only the poll's CPU time is known.
                    let cpu = cpu.unwrap_or(u64::MAX).min(nanos);
                    [(State::OnCpu, cpu), (State::NoCpu, 0), (State::Blocked, nanos - cpu)]
                } else if spent.micros() * 1_000 > period + period / 2 {
                    // A late look stands for everything that the thread did meanwhile.
                    spent.divide(nanos)
                } else {
                    [(spent.mostly(), nanos), (State::NoCpu, 0), (State::Blocked, 0)]
                };
                let mut from = wall(at);
                for (state, nanos) in parts.into_iter().filter(|(_, nanos)| *nanos > 0) {
                    pieces.push(Piece { from, to: from + nanos, state, place, unattributed, count });
                    from += nanos;
                    count = 0;
                }
            }
            at = to.max(at);
            if current.to <= at {
                claim += 1;
                fresh = true;
            }
        }
    }
    pieces
}

/// Returns which sample stands for which time, from zero to `total`.
fn claims(located: &[(u64, usize, Sample)], total: u64, stacks: &Stacks, period: u64) -> Vec<Claim> {
    let half = period / 2;
    let blank = |to: u64| Claim { to, spent: Spent::default(), place: EMPTY, unattributed: true, counts: false };
    let mut claims = Vec::with_capacity(located.len() + 2);
    let Some((first, ..)) = located.first() else { return vec![blank(total)] };
    // A first sample is due within a period.
    if *first > period {
        claims.push(blank(first - half));
    }
    for (index, (at, poll, sample)) in located.iter().enumerate() {
        let speaks =
            |to: u64| Claim { to, spent: sample.spent, place: sample.stack, unattributed: false, counts: true };
        let Some((next_at, next_poll, next)) = located.get(index + 1) else {
            if total.saturating_sub(*at) <= period {
                claims.push(speaks(total));
            } else {
                claims.push(speaks(at + half));
                claims.push(blank(total));
            }
            continue;
        };
        let gap = next_at.saturating_sub(*at);
        if gap <= period + half {
            claims.push(speaks(at + gap / 2));
            continue;
        }
        claims.push(speaks(at + half));
        let to = next_at - half;
        if poll == next_poll {
            let place = stacks.common(sample.stack, next.stack);
            claims.push(Claim { to, spent: next.spent, place, unattributed: true, counts: false });
        } else {
            claims.push(blank(to));
        }
    }
    claims
}
