//! A hash of texts that is equal across processes and versions.

/// FNV-1a with 64 bits, which never changes, unlike the standard library's hash.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Hashes `text`, followed by a byte that UTF-8 never contains, so that `ab` + `c` differs from `a` + `bc`.
    pub(crate) fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Returns 16 hexadecimal digits.
    pub(crate) fn finish(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: fingerprints are equal across versions, too, as long as this value does not change. Changing it breaks no
    /// promise, but ends every comparison with older reports.
    #[test]
    fn the_hash_never_changes() {
        let mut hash = Fnv::default();
        hash.text("");
        assert_eq!(hash.finish(), "af64724c8602eb6e");
    }
}
