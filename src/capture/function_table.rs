//! The functions that the tables for unwinding cover. `.eh_frame_hdr` lists them in order, with where to read on.

use std::ops::Range;

use super::modules::Module;

/// A function's entry in the table.
struct Entry {
    begins: u64,
    /// Where in `.eh_frame` the rest is.
    record: u64,
}

impl Module {
    /// Returns where the function begins that has the code at that address, or `None` if the tables don't cover it.
    pub(crate) fn function_at(&self, address: u64) -> Option<u64> {
        Some(self.entry_before(address)?.begins)
    }

    /// Returns whether its tables say how to unwind from there. For code written by hand they often don't, and musl's
    /// never do.
    pub(crate) fn is_described(&self, address: u64) -> bool {
        if self.header.1.is_empty() {
            return false;
        }
        // In another encoding this is unknown, so it counts as described.
        if !self.is_searchable() {
            return true;
        }
        let Some(entry) = self.entry_before(address) else { return false };
        self.length(&entry).is_none_or(|length| address - entry.begins < length)
    }

    /// Returns the code of the function that begins at that address, if the tables cover it.
    pub(crate) fn code_of(&self, function: u64) -> Option<Range<u64>> {
        let entry = self.entry_before(function).filter(|entry| entry.begins == function)?;
        Some(function..function.checked_add(self.length(&entry)?)?)
    }

    /// Returns how many bytes of code the function has, if its entry is in the encoding that compilers use.
    fn length(&self, entry: &Entry) -> Option<u64> {
        let record = entry.record.checked_sub(self.frames.0)?;
        // The length, the header's position, the first address, and their number.
        let field = |index: usize| word(&self.frames.1, record as usize + index * 4);
        let (first, length) = field(2).zip(field(3))?;
        let first = (self.frames.0 + record + 8).wrapping_add_signed(first.cast_signed().into());
        (first == entry.begins).then_some(length.into())
    }

    /// Returns whether the table is in the one encoding that linkers use: a count of 32 bits, and pairs of 32-bit
    /// offsets from the header's start. (See `DW_EH_PE`. The bytes before are checked when a module is read.)
    fn is_searchable(&self) -> bool {
        const UDATA4: u8 = 0x03;
        const DATAREL_SDATA4: u8 = 0x3b;
        self.header.1.get(2..4) == Some(&[UDATA4, DATAREL_SDATA4])
    }

    /// Returns the last function that begins at or before that address.
    fn entry_before(&self, address: u64) -> Option<Entry> {
        const PAIR: usize = 8;
        let (start, header) = (self.header.0, &*self.header.1);
        let pairs = header.get(12..).filter(|_| self.is_searchable())?;
        let count = (word(header, 8)? as usize).min(pairs.len() / PAIR);
        let at = |offset: usize| Some(start.wrapping_add_signed(word(pairs, offset)?.cast_signed().into()));
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if at(middle * PAIR)? <= address { low = middle + 1 } else { high = middle }
        }
        let last = low.checked_sub(1)? * PAIR;
        Some(Entry { begins: at(last)?, record: at(last + PAIR / 2)? })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use crate::capture::modules::Modules;

    #[cfg(target_arch = "x86_64")]
    std::arch::global_asm!(
        ".pushsection .text.heeler_test_bare, \"ax\", @progbits",
        "heeler_test_bare:",
        ".skip 64, 0xc3",
        ".popsection",
    );

    #[inline(never)]
    fn described(input: u64) -> u64 {
        std::hint::black_box(input) + 1
    }

    /// Guards: functions in the tables are distinguished from those that the tables leave out, within a module and
    /// beyond it.
    #[test]
    fn finds_functions_without_a_table() {
        let modules = Modules::current();
        let here = described as fn(u64) -> u64 as usize as u64;
        let module = modules.find(here).unwrap();
        assert!(module.is_described(here) && module.is_described(here + 1), "{:#x?}", module.code);
        assert!(!module.is_described(module.code[0].start - 1) && !module.is_described(module.code[0].end));
        #[cfg(target_arch = "x86_64")]
        {
            unsafe extern "C" {
                static heeler_test_bare: u8;
            }
            let bare = (&raw const heeler_test_bare).addr() as u64;
            assert!(module.range.contains(&bare) && !module.is_described(bare + 32));
        }
        let libc = modules.find(libc::getpid as *const () as u64);
        assert!(libc.is_none_or(|module| module.is_described(libc::getpid as *const () as u64)));
    }

    #[inline(never)]
    fn first(input: u64) -> u64 {
        std::hint::black_box(input) + 1
    }

    #[inline(never)]
    fn second(input: u64) -> u64 {
        std::hint::black_box(input) * 3
    }

    /// Guards: each of the executable's functions is found, from its first byte on.
    #[test]
    fn finds_functions_from_their_first_byte() {
        let modules = Modules::current();
        for function in [first as fn(u64) -> u64, second] {
            let address = function as usize as u64;
            let module = modules.find(address).unwrap();
            assert_eq!(module.function_at(address), Some(address));
            assert_eq!(module.function_at(address + 1), Some(address));
            assert_ne!(module.function_at(address - 1), Some(address));
        }
        assert_eq!(modules.find(first as *const () as u64).unwrap().function_at(0), None);
    }
}
