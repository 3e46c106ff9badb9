//! Turns polls, waits and samples into a timeline without gaps.
//!
//! A wait belongs to the branch that ended it. If work that the request had handed on woke that branch, the wait shows
//! what that work did meanwhile, and so on. Work that nobody waited for is listed beside.

use super::pieces::{Piece, pieces};
use super::recording::Record;
use super::samples::{Sample, Samples};
use super::stacks::{EMPTY, Stacks};
use super::tree::Tree;
use crate::inflight::recording::{Log, PollEntry, WaitEntry};
use crate::inflight::{How, WaitKind};
use crate::profile::{Quality, Slice, State};
use crate::text::units::{count, were};

/// How many nested hand-overs are followed.
const MAX_DEPTH: u32 = 32;

/// Builds a profile's parts from what was seen. `began` and `ended` are the request's, `period` is the samples'. All
/// are in nanoseconds.
pub(super) fn build(logs: &[Log], stacks: &Stacks, samples: &Samples, began: u64, ended: u64, period: u64) -> Record {
    let mut of_task: Vec<Vec<Sample>> = vec![Vec::new(); logs.len()];
    for sample in &samples.taken {
        if let Some(taken) = of_task.get_mut(sample.recorder as usize) {
            taken.push(*sample);
        }
    }
    let inside: Vec<Vec<Piece>> =
        logs.iter().zip(&of_task).map(|(log, taken)| pieces(log, taken, stacks, ended, period)).collect();
    drop(of_task);
    let covered = vec![Vec::new(); logs.len()];
    let mut builder =
        Builder { logs, inside: &inside, stacks, tree: Tree::new(stacks), began, ended, slices: Vec::new(), covered };
    builder.expand(0, began, ended, None, 0);
    let slices = std::mem::take(&mut builder.slices);
    builder.beside();
    let mut beside = std::mem::take(&mut builder.slices);
    beside.sort_by_key(|slice| slice.start_nanos);
    let done = logs.iter().flat_map(|log| &log.polls).map(|poll| poll.ended.saturating_sub(poll.began));
    let going_on = logs.iter().filter_map(|log| log.polling).map(|polling| ended.saturating_sub(polling));
    let polling: u64 = done.chain(going_on).sum();
    let polls = || logs.iter().flat_map(|log| &log.polls);
    let unwritten: u64 = logs.iter().map(|log| log.unwritten).sum();
    let quality = Quality {
        polls: polls().count() as u64 + unwritten,
        waits: logs.iter().map(|log| log.polls.len().saturating_sub(1) as u64).sum(),
        expected: polling / period.max(1),
        taken: samples.taken.len() as u64,
        lost: samples.lost,
        late: samples.late,
        truncated: stacks.truncated,
        waits_lost: polls().map(|poll| u64::from(poll.wait.lost)).sum(),
        own_nanos: logs.iter().map(|log| log.own).sum(),
        sampler_nanos: samples.cpu,
    };
    let mut notes = Vec::new();
    if unwritten > 0 {
        let their = if unwritten == 1 { "its" } else { "their" };
        let (polls, were) = (count(unwritten, "poll"), were(unwritten));
        notes.push(format!("{polls} {were} too many to be written down: {their} time is unattributed"));
    }
    let (frames, nodes) = builder.tree.finish();
    Record {
        started_at: std::time::SystemTime::UNIX_EPOCH,
        wall_nanos: ended.saturating_sub(began),
        frames,
        nodes,
        slices,
        beside,
        quality,
        notes,
    }
}

struct Builder<'a> {
    logs: &'a [Log],
    /// What each task did inside its polls.
    inside: &'a [Vec<Piece>],
    stacks: &'a Stacks,
    tree: Tree<'a>,
    began: u64,
    ended: u64,
    slices: Vec<Slice>,
    /// The stretches of each task that are in the timeline.
    covered: Vec<Vec<(u64, u64)>>,
}

impl Builder<'_> {
    fn emit(&mut self, (from, to): (u64, u64), state: State, stack: u32, count: u32) {
        if from >= to {
            return;
        }
        let (start_nanos, nanos) = (from - self.began.min(from), to - from);
        if let Some(last) = self.slices.last_mut()
            && (last.state, last.stack) == (state, stack)
            && last.start_nanos + last.nanos == start_nanos
        {
            last.nanos += nanos;
            last.count += count;
            return;
        }
        self.slices.push(Slice { start_nanos, nanos, state, stack, count });
    }

    fn emit_label(&mut self, stretch: (u64, u64), state: State, parent: Option<u32>, label: &str) {
        if stretch.0 < stretch.1 {
            let node = self.tree.label(parent, label);
            self.emit(stretch, state, node, 0);
        }
    }

    /// Adds what a task did in that stretch, on top of the task that waits for it.
    fn expand(&mut self, recorder: usize, from: u64, to: u64, parent: Option<u32>, depth: u32) {
        let logs = self.logs;
        let Some(log) = logs.get(recorder).filter(|_| from < to) else { return };
        self.covered[recorder].push((from, to));
        if let Some(cut) = log.cut.filter(|cut| *cut < to).map(|cut| cut.max(from)) {
            // After that, nobody knows when it ran.
            self.expand(recorder, from, cut, parent, depth);
            return self.emit_label((cut, to), State::OnCpu, parent, "[unattributed]");
        }
        let created = log.created.clamp(from, to);
        self.emit_label((from, created), State::Waiting, parent, "[not begun]");
        let mut at = created;
        let first = log.polls.partition_point(|poll| poll.ended <= from);
        // The previous poll says where it waits.
        let mut before: Option<&PollEntry> = first.checked_sub(1).map(|index| &log.polls[index]);
        for poll in &log.polls[first..] {
            if poll.began >= to {
                break;
            }
            let began = poll.began.max(at);
            self.wait(log, before, Some(poll), (at, began), parent, depth);
            at = poll.ended.min(to);
            self.polled(recorder, (began, at), parent);
            before = Some(poll);
        }
        if let Some(polling) = log.polling.map(|polling| polling.max(at)).filter(|polling| *polling < to) {
            self.wait(log, before, None, (at, polling), parent, depth);
            self.polled(recorder, (polling, to), parent);
            at = to;
        }
        let end = log.ended.unwrap_or(self.ended).clamp(at, to);
        let next = log.polls.get(log.polls.partition_point(|poll| poll.began < to));
        self.wait(log, before, next, (at, end), parent, depth);
        self.emit_label((end, to), State::Waiting, parent, "[after its end]");
    }

    /// Adds a stretch in which a task does not run: between one poll and the next.
    fn wait(
        &mut self,
        log: &Log,
        before: Option<&PollEntry>,
        next: Option<&PollEntry>,
        (from, to): (u64, u64),
        parent: Option<u32>,
        depth: u32,
    ) {
        if from >= to {
            return;
        }
        let Some(before) = before else {
            // The task has not been polled yet.
            return self.emit_label((from, to), State::Runnable, parent, "[not scheduled]");
        };
        let wake = next.and_then(|next| next.wake);
        let woken = wake.map_or(to, |wake| wake.at.clamp(from, to));
        let node = self.waits_at(log, &before.wait, wake.and_then(|wake| wake.stack), parent);
        match wake.and_then(|wake| wake.by).map(|by| by as usize) {
            Some(by) if depth < MAX_DEPTH && self.logs.get(by).is_some_and(|log| log.parent.is_some()) => {
                let how = self.logs[by].parent.map(|(_, how)| how);
                let label = match how {
                    Some(How::SpawnBlocking) => "[blocking task]",
                    _ => "[spawned task]",
                };
                let node = self.tree.label(Some(node), label);
                self.expand(by, from, woken, Some(node), depth + 1);
            }
            _ => self.emit((from, woken), State::Waiting, node, 1),
        }
        self.emit_label((woken, to), State::Runnable, Some(node), "[not scheduled]");
    }

    /// Returns where a task waits: at the branch that was woken, if that is known.
    fn waits_at(&mut self, log: &Log, wait: &WaitEntry, woken: Option<u32>, parent: Option<u32>) -> u32 {
        let mut places: Vec<u32> = match woken {
            Some(stack) => self.stacks.awaited(stack).into_iter().collect(),
            None => log.branches(wait).iter().filter_map(|stack| self.stacks.awaited(*stack)).collect(),
        };
        places.sort_unstable();
        places.dedup();
        let node = match places.as_slice() {
            [] => None,
            [place] => self.tree.place(parent, *place),
            [first, rest @ ..] => {
                let common = rest.iter().fold(*first, |common, place| self.stacks.common(common, *place));
                let parent = self.tree.place(parent, common);
                return self.tree.label(parent, &format!("[any of {}]", places.len()));
            }
        };
        match node {
            Some(node) if !places.is_empty() => node,
            _ if wait.kind == WaitKind::NoWaker => self.tree.label(parent, "[nobody keeps its waker]"),
            _ => self.tree.label(parent, "[stack not kept]"),
        }
    }

    /// Adds a stretch in which a task is inside polls.
    fn polled(&mut self, recorder: usize, (from, to): (u64, u64), parent: Option<u32>) {
        let inside = self.inside;
        let Some(pieces) = inside.get(recorder) else { return };
        let first = pieces.partition_point(|piece| piece.to <= from);
        let mut at = from;
        for piece in &pieces[first..] {
            if piece.from >= to {
                break;
            }
            self.emit_label((at, piece.from), State::OnCpu, parent, "[unattributed]");
            let (start, end) = (piece.from.max(at), piece.to.min(to));
            let state = piece.state;
            let node = self.tree.place(parent, piece.place);
            let is_known = !piece.unattributed && piece.place != EMPTY;
            match node {
                // A look at heeler's own work before or after the request's.
                node if is_known && node == parent => self.emit_label((start, end), state, node, "[profiler]"),
                Some(node) if is_known => self.emit((start, end), state, node, piece.count),
                node => self.emit_label((start, end), state, node, "[unattributed]"),
            }
            at = end;
        }
        self.emit_label((at, to), State::OnCpu, parent, "[unattributed]");
    }

    /// Adds the polls of handed-on work that nobody waited for.
    fn beside(&mut self) {
        for recorder in 1..self.logs.len() {
            let Some((_, how)) = self.logs[recorder].parent else { continue };
            let mut covered = std::mem::take(&mut self.covered[recorder]);
            covered.sort_unstable();
            let label = if matches!(how, How::SpawnBlocking) { "[blocking task]" } else { "[spawned task]" };
            let parent = self.tree.label(None, label);
            let log = &self.logs[recorder];
            let going_on = log.polling.map(|began| (began, self.ended));
            let polls = log.polls.iter().map(|poll| (poll.began, poll.ended)).chain(going_on);
            let mut next = 0;
            for (began, ended) in polls {
                let ended = ended.min(self.ended);
                if began >= self.ended {
                    break;
                }
                let mut at = began;
                while let Some((from, to)) = covered.get(next).copied() {
                    if from >= ended {
                        break;
                    }
                    self.polled(recorder, (at, from.clamp(at, ended)), Some(parent));
                    at = at.max(to.min(ended));
                    if to > ended {
                        break;
                    }
                    next += 1;
                }
                self.polled(recorder, (at, ended), Some(parent));
            }
        }
    }
}
