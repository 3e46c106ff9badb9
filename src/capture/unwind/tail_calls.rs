//! Functions that have left the stack by a tail call: `fn load() { std::thread::sleep(..) }` becomes a jump, and the
//! stack shows `load`'s caller and the sleep alone. The call instruction in the caller still says which function was
//! called.

use std::ops::Range;

use super::{Address, Unwinder, Unwound};
use crate::capture::code_range;
use crate::capture::snapshot::{Origin, Snapshot};

impl Unwinder {
    /// Unwinds for a reader, who wants to see functions that have left the stack by a tail call, too.
    pub(crate) fn unwind_with_tail_calls(&mut self, snapshot: &Snapshot) -> Unwound {
        let unwound = self.unwind(snapshot);
        // What was put together, or is cut, says less about what was called from where.
        if !unwound.complete || snapshot.origin == Origin::DeadFrames {
            return unwound;
        }
        let code = code_range();
        let mut addresses = Vec::with_capacity(unwound.addresses.len());
        for pair in unwound.addresses.windows(2) {
            addresses.push(pair[0].clone());
            addresses.extend(self.left_between(&pair[0], &pair[1], &code));
        }
        addresses.extend(unwound.addresses.last().cloned());
        Unwound { addresses, ..unwound }
    }

    /// Returns the function that `outer` has called, if that jumps to the one that `inner` is in. Only calls and jumps that
    /// name their function are known.
    fn left_between(&self, inner: &Address, outer: &Address, code: &Range<u64>) -> Option<Address> {
        let called = self.called_function(outer.pc, code).filter(|_| outer.is_return)?;
        let within = inner.pc.checked_sub(u64::from(inner.is_return))?;
        let running = self.modules.find(within)?.function_at(within)?;
        let has_left = running != called && self.jumps_to(called, running, code);
        has_left.then(|| Address { has_left, ..self.address(called, false) })
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use crate::capture::symbols::Symbols;
    use crate::capture::unwind::Unwinder;
    use crate::capture::{Sampler, ThreadSlot};

    #[inline(never)]
    fn sleeps(end: &std::sync::mpsc::Receiver<()>) {
        let _ = end.recv();
        black_box(end);
    }

    /// In a release build, a jump.
    #[inline(never)]
    fn leaves(end: &std::sync::mpsc::Receiver<()>) {
        sleeps(end);
    }

    #[inline(never)]
    fn calls(end: &std::sync::mpsc::Receiver<()>) {
        leaves(end);
        black_box(end);
    }

    /// Guards: a function is on the stack whether or not the compiler has turned its last call into a jump, and is there
    /// once.
    #[test]
    #[cfg_attr(
        target_arch = "aarch64",
        ignore = "there, a sleeping thread does not say where its innermost function returns to"
    )]
    fn a_function_that_has_left_by_a_tail_call_is_shown() {
        let (tell, tid) = std::sync::mpsc::channel();
        let (keep, end) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            ThreadSlot::mine();
            tell.send(crate::capture::sys::thread_id()).unwrap();
            calls(&end);
        });
        let tid = tid.recv().unwrap();
        let mut sampler = Sampler::new(None);
        let (mut unwinder, mut symbols) = (Unwinder::new(), Symbols::new());
        let mut found = Vec::new();
        let began = std::time::Instant::now();
        while began.elapsed().as_secs() < 20 {
            let Some((snapshot, _)) = sampler.look_at(&crate::capture::look(tid)) else { continue };
            let frames = symbols.frames(&unwinder.unwind_with_tail_calls(&snapshot).addresses);
            let own = frames
                .iter()
                .filter(|frame| frame.function.as_deref().is_some_and(|name| name.contains("tail_calls::")));
            found = own.map(|frame| (frame.function.clone().unwrap_or_default(), frame.tail_call)).collect();
            if found.iter().any(|(name, _)| name.ends_with("::sleeps")) {
                break;
            }
        }
        drop(keep);
        thread.join().unwrap();
        let named: Vec<&str> = found.iter().filter_map(|(name, _)| name.rsplit("::").next()).take(3).collect();
        assert_eq!(named, ["sleeps", "leaves", "calls"], "{found:?}");
        let left: Vec<bool> = found.iter().map(|(_, left)| *left).take(3).collect();
        assert_eq!(left, [false, !cfg!(debug_assertions), false], "{found:?}");
    }
}
