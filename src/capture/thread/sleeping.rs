//! The stack of a thread that sleeps in a system call, captured without waking it.
//!
//! A signal ends `poll`, `nanosleep` and a few other calls early, which a program can notice. A sleeping thread need
//! not be asked. The kernel says where its stack pointer is and at which instruction it went to sleep, and its stack
//! has not changed as long as it has used no CPU time. The kernel does not say the frame pointer, which some frames
//! need. If one does, it is searched for on the stack. A stack counts only if it unwinds all the way to the poll's own
//! frame, and in only one way, whatever the frame pointer may be. Otherwise the thread gets its signal after all.
//!
//! On aarch64 the kernel does not say the link register either. If the innermost function has not saved it, nothing
//! does. That is the case in `syscall`, by which the standard library waits for a futex (a call that is restarted
//! unnoticed). The C library's calls that a signal would end (`poll`, `nanosleep`, ..) have saved it.

use std::sync::Arc;

use super::MAX_COPY;
use crate::capture::ThreadSlot;
use crate::capture::memory::{LEAST, Memory, THREAD_APART, extent, reaches};
use crate::capture::procfs::{Activity, look};
use crate::capture::snapshot::{Data, Origin, Registers, Snapshot};
use crate::capture::unwind::{End, Unwinder, Unwound};
use crate::capture::{code_range, sys};

/// Stands for the unknown link register. It is a return address that no module has.
const UNKNOWN: u64 = 8;

/// How many places on the stack are tried as the frame pointer. Each takes some microseconds.
const MAX_TRIES: usize = 256;

/// Copies stacks of sleeping threads. Belongs to a sampler.
#[derive(Debug)]
pub(super) struct SleepingStacks {
    unwinder: Unwinder,
}

impl SleepingStacks {
    pub(super) fn new() -> Self {
        Self { unwinder: Unwinder::new() }
    }

    /// Copies the stack of the slot's thread, if it has been asleep all the time in the call that `activity` describes,
    /// and is in its poll number `sequence`. `cpu` is its CPU time before. `room` has [`MAX_COPY`] bytes.
    pub(super) fn copy(
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
        let memory = Memory::prepare();
        let copied = slot.with_life(|life| {
            let (start, end) = (sp as usize & !7, slot.frame());
            let is_own = life.stack.contains(&start) && life.stack.contains(&end) && start < end;
            if (is_own && end - start > MAX_COPY) || !slot.is_in(sequence) {
                return None;
            }
            let wanted = extent(start, end, THREAD_APART) / 8;
            // If the thread runs and writes there, the copy is thrown away below.
            let len = match memory {
                // SAFETY: the room has `MAX_COPY` bytes, and no more are wanted.
                Some(memory) => unsafe { memory.read(start, room.as_mut_ptr(), wanted) },
                None if is_own => {
                    // SAFETY: `[start, end)` is mapped, because it is part of the stack of a thread that cannot end
                    // while its life is held. It is read by instructions that the compiler knows nothing of. As for the
                    // room.
                    unsafe { sys::copy_words(start as *const u64, room.as_mut_ptr(), wanted) };
                    wanted
                }
                None => 0,
            };
            let foreign = !reaches(start, end, len * 8);
            (len >= LEAST && !(is_own && foreign)).then_some((len, foreign, foreign && len == wanted))
        });
        let (len, foreign, truncated) = copied.flatten()?;
        // It used no CPU time, and is still in the same call and the same poll, so it has slept through the copying.
        let now = look(activity.tid);
        if sys::cpu_time(activity.tid) != cpu || !activity.same_call(&now) || !slot.is_in(sequence) {
            return None;
        }
        #[cfg_attr(not(feature = "spans"), allow(unused_mut, reason = "always empty then"))]
        let mut spans = [0; crate::capture::SPANS];
        #[cfg(feature = "spans")]
        slot.spans.copy(&mut spans);
        let spans: Vec<u64> = spans.iter().copied().take_while(|id| *id != 0).collect();
        self.find((sp, pc), &room[..len].into(), (foreign, truncated), &spans)
    }

    /// Copies the stack of any thread of this process that sleeps in a call, whether or not it has a slot. `activity`
    /// describes the call. The stack ends where the thread began. Also returns whether it is the only one that the copy
    /// can be.
    pub(super) fn copy_of_any(&mut self, activity: &Activity, room: &mut [u64]) -> Option<(Snapshot, bool)> {
        let cpu = sys::cpu_time(activity.tid)?;
        let (sp, pc) = activity.registers().filter(|_| activity.on_cpu() == Some(false))?;
        let memory = Memory::prepare()?;
        let start = sp as usize & !7;
        // Most stacks are far smaller than the largest, and reading those takes a tenth of the time.
        for wanted in [THREAD_APART, MAX_COPY] {
            // SAFETY: the room has `MAX_COPY` bytes, and no more are wanted.
            let len = unsafe { memory.read(start, room.as_mut_ptr(), wanted / 8) };
            // It used no CPU time, and is still in the same call, so it has slept through the copying.
            let is_asleep = sys::cpu_time(activity.tid) == Some(cpu) && activity.same_call(&look(activity.tid));
            if !is_asleep || len < LEAST {
                return None;
            }
            let found = self.longest((sp, pc), &room[..len].into(), len * 8 == wanted);
            if found.is_some() {
                return found;
            }
        }
        // As in `find`.
        self.unwinder.refresh();
        None
    }

    /// Returns the longest stack that the copied words can be, if it ends as a thread's does. Stale frames lead to the
    /// end, too, but past some that are live. Also returns whether all others are a part of it.
    fn longest(&mut self, (sp, pc): (u64, u64), words: &Arc<[u64]>, truncated: bool) -> Option<(Snapshot, bool)> {
        let snapshot = |fp: u64| Snapshot {
            origin: Origin::Signal,
            data: Data::Copied { registers: Registers { pc, sp, fp, lr: UNKNOWN }, words: words.clone() },
            truncated,
            foreign: true,
            spans: Vec::new(),
        };
        let without = self.unwind(&snapshot(0)).filter(|(_, end)| *end == End::Known);
        if without.is_some() && without == self.unwind(&snapshot(8)) {
            return Some((snapshot(0), true));
        }
        let pointers: Vec<u64> = frame_pointers(sp & !7, words, &self.unwinder).take(MAX_TRIES).collect();
        let chains: Vec<(u64, Vec<u64>)> = pointers
            .into_iter()
            .filter_map(|fp| Some((fp, self.unwind(&snapshot(fp)).filter(|(_, end)| *end == End::Known)?.0)))
            .collect();
        let (fp, longest) = chains.iter().rev().max_by_key(|(_, chain)| chain.len())?;
        // The innermost frames are the same in all of them.
        let is_part = |chain: &Vec<u64>| chain.iter().all(|address| longest.contains(address));
        Some((snapshot(*fp), chains.iter().all(|(_, chain)| is_part(chain))))
    }

    /// Returns the one stack that the copied words are.
    fn find(
        &mut self,
        (sp, pc): (u64, u64),
        words: &Arc<[u64]>,
        (foreign, truncated): (bool, bool),
        spans: &[u64],
    ) -> Option<Snapshot> {
        let snapshot = |fp: u64, words: &Arc<[u64]>| Snapshot {
            origin: Origin::Signal,
            data: Data::Copied { registers: Registers { pc, sp, fp, lr: UNKNOWN }, words: words.clone() },
            truncated,
            foreign,
            spans: spans.to_vec(),
        };
        // Try without a frame pointer. On a stack whose end is unknown, a wrong one may look like the end. With two of
        // them, it is not the same end.
        let certain = snapshot(0, words);
        if let Some(found) = self.unwind(&certain)
            && (!foreign || self.unwind(&snapshot(8, words)).as_ref() == Some(&found))
        {
            return Some(certain);
        }
        let mut found: Option<(Snapshot, Chain)> = None;
        let pointers: Vec<u64> = frame_pointers(sp & !7, words, &self.unwinder).take(MAX_TRIES).collect();
        for fp in pointers {
            let candidate = snapshot(fp, words);
            let Some(chain) = self.unwind(&candidate).filter(|(_, end)| *end == End::Known) else { continue };
            match &found {
                None => found = Some((candidate, chain)),
                Some((_, known)) if *known == chain => {}
                // Stale frames lead to the end, too, so it is unknown which way is right.
                Some(_) => return None,
            }
        }
        if found.is_none() {
            found = self.beyond_tables(sp & !7, words, snapshot);
        }
        if found.is_none() {
            // Perhaps it needs a library that was loaded since. Not checked before, because this takes the loader's
            // lock.
            self.unwinder.refresh();
        }
        found.map(|(snapshot, _)| snapshot)
    }

    /// Does the same for a thread that sleeps in code without tables.
    fn beyond_tables(
        &mut self,
        start: u64,
        words: &Arc<[u64]>,
        snapshot: impl Fn(u64, &Arc<[u64]>) -> Snapshot,
    ) -> Option<(Snapshot, Chain)> {
        let pointers: Vec<u64> =
            std::iter::once(0).chain(frame_pointers(start, words, &self.unwinder).take(MAX_TRIES)).collect();
        let found = self.unwinder.unwind_out_of_untabled(&snapshot(0, words), &pointers);
        let mut chains = found.iter().map(|(fp, unwound)| (*fp, chain(unwound)));
        let (fp, first) = chains.next()?;
        // As above.
        chains.all(|(_, other)| other == first).then(|| (snapshot(fp, words), first))
    }

    /// Returns the addresses, if the stack unwinds to the poll's own frame, or to the end of a stack that isn't the
    /// thread's own.
    fn unwind(&mut self, snapshot: &Snapshot) -> Option<Chain> {
        let unwound = self.unwinder.unwind_strictly(snapshot);
        let needs_link = unwound.addresses.get(1).is_some_and(|address| address.pc == UNKNOWN);
        let is_whole = unwound.complete && unwound.end != End::Lost && !needs_link;
        (is_whole && self.unwinder.is_certain(&unwound)).then(|| chain(&unwound))
    }
}

fn chain(unwound: &Unwound) -> Chain {
    (unwound.addresses.iter().map(|address| address.pc).collect(), unwound.end)
}

/// The addresses of a stack, and how it ended.
type Chain = (Vec<u64>, End);

/// Returns addresses on the stack that may be a frame pointer: the word above is a return address. What it points to,
/// the caller's own frame pointer, may be anything, because not every function has one.
fn frame_pointers(start: u64, words: &[u64], unwinder: &Unwinder) -> impl Iterator<Item = u64> {
    let code = code_range();
    let returns = words.iter().enumerate().skip(1).filter(move |(_, word)| code.contains(&unwinder.plain(**word)));
    returns.map(move |(index, _)| start + (index as u64 - 1) * 8)
}
