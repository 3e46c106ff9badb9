//! The stack of a thread that sleeps in a system call, without waking it.
//!
//! A signal ends `poll`, `nanosleep` and a few other calls early, which a program can notice. A sleeping thread need not be
//! asked: the kernel says where its stack pointer is and at which instruction it went to sleep, and as long as it has used
//! no CPU time, its stack has not changed. What the kernel does not say is the frame pointer, which some frames need. Where
//! one does, it is looked for on the stack. A stack is taken only if it unwinds all the way to the poll's own frame, and
//! only in one way, whatever the frame pointer may be; else the thread gets its signal after all.

use std::sync::Arc;

use super::procfs::{Activity, look};
use super::snapshot::{Data, Origin, Registers, Snapshot};
use super::thread::MAX_COPY;
use super::unwind::Unwinder;
use super::{code_range, sys};
use crate::inflight::ThreadSlot;

/// Places on the stack that are tried as the frame pointer: some microseconds each.
const MAX_TRIES: usize = 256;

/// Copies stacks of sleeping threads. Belongs to the monitor.
#[derive(Debug)]
pub(super) struct Peeker {
    unwinder: Unwinder,
}

impl Peeker {
    pub(super) fn new() -> Self {
        Self { unwinder: Unwinder::new() }
    }

    /// The stack of the slot's thread, if it has slept in the call that `activity` speaks of all the while, and is in its
    /// poll number `sequence`. `cpu` is its CPU time as of before. `room` has [`MAX_COPY`] bytes.
    pub(super) fn peek(
        &mut self,
        slot: &'static ThreadSlot,
        sequence: u64,
        activity: &Activity,
        cpu: Option<u64>,
        room: &mut [u64],
    ) -> Option<Snapshot> {
        if activity.on_cpu() != Some(false) || cpu.is_none() {
            return None;
        }
        let (sp, pc) = activity.registers()?;
        let copied = slot.with_life(|life| {
            let (start, end) = (sp as usize & !7, slot.frame());
            let on_stack = life.stack.contains(&start) && life.stack.contains(&end) && start < end;
            if !on_stack || end - start > MAX_COPY || !slot.is_in(sequence) {
                return None;
            }
            let len = (end - start) / 8;
            // SAFETY: `[start, end)` is mapped: it is part of the stack of a thread that cannot end meanwhile, for its
            // life is held. Should it run and write there, the copy is thrown away below; it is made by instructions
            // that the compiler knows nothing of. The room has `MAX_COPY` bytes.
            unsafe { sys::copy_words(start as *const u64, room.as_mut_ptr(), len) };
            Some(len)
        });
        let len = copied.flatten()?;
        // Used no CPU time, still in the same call, still in the same poll: it has slept through the copying.
        let now = look(activity.tid);
        if sys::cpu_time(activity.tid) != cpu || !activity.same_call(&now) || !slot.is_in(sequence) {
            return None;
        }
        #[cfg_attr(not(feature = "spans"), allow(unused_mut, reason = "always empty then"))]
        let mut spans = [0; super::SPANS];
        #[cfg(feature = "spans")]
        slot.spans.copy(&mut spans);
        let snapshot = |fp: u64, words: &Arc<[u64]>| Snapshot {
            origin: Origin::Signal,
            data: Data::Copied { registers: Registers { pc, sp, fp, lr: 0 }, words: words.clone() },
            truncated: false,
            spans: spans.iter().copied().take_while(|id| *id != 0).collect(),
        };
        let words: Arc<[u64]> = room[..len].into();
        let certain = snapshot(0, &words);
        if self.unwind(&certain).is_some() {
            return Some(certain);
        }
        let mut found: Option<(Snapshot, Vec<u64>)> = None;
        for fp in frame_pointers(sp & !7, &words).take(MAX_TRIES) {
            let candidate = snapshot(fp, &words);
            let Some(addresses) = self.unwind(&candidate) else { continue };
            match &found {
                None => found = Some((candidate, addresses)),
                Some((_, known)) if *known == addresses => {}
                // Stale frames lead to the end, too: nobody can say which way is the right one.
                Some(_) => return None,
            }
        }
        if found.is_none() {
            // Perhaps through a library that was loaded since. Not before: this takes the loader's lock.
            self.unwinder.refresh();
        }
        found.map(|(snapshot, _)| snapshot)
    }

    /// The addresses, if the stack unwinds to the poll's own frame.
    fn unwind(&mut self, snapshot: &Snapshot) -> Option<Vec<u64>> {
        let unwound = self.unwinder.unwind_strictly(snapshot);
        unwound.complete.then(|| unwound.addresses.iter().map(|address| address.pc).collect())
    }
}

/// Addresses on the stack that may be a frame pointer: above it lies a return address. What it points to, the caller's own
/// frame pointer, may be anything, for not every function has one.
fn frame_pointers(start: u64, words: &[u64]) -> impl Iterator<Item = u64> {
    let code = code_range();
    let returns = words.iter().enumerate().skip(1).filter(move |(_, word)| code.contains(word));
    returns.map(move |(index, _)| start + (index as u64 - 1) * 8)
}
