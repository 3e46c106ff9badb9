//! The header `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context/). It comes from outside.

/// A trace and a span in it, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceIds {
    pub(crate) trace: String,
    pub(crate) span: String,
}

/// The length of version 00, which later versions begin like.
const LENGTH: usize = 55;

impl TraceIds {
    /// Parses `00-<32 digits>-<16 digits>-<2 digits>`. Returns `None` for anything that the specification calls
    /// invalid: another length, capitals, the version `ff`, ids of zeros. A later version may have more after a `-`.
    pub(crate) fn parse(header: &[u8]) -> Option<Self> {
        let (known, more) = header.split_at_checked(LENGTH)?;
        let version = &known[..2];
        let fits = if version == b"00" { more.is_empty() } else { more.first().is_none_or(|next| *next == b'-') };
        let dashes = [2, 35, 52].into_iter().all(|at| known[at] == b'-');
        if !fits || !dashes || version == b"ff" || !is_hex(version) || !is_hex(&known[53..]) {
            return None;
        }
        let text = |bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Self { trace: text(&known[3..35])?, span: text(&known[36..52])? }.checked()
    }

    /// Returns these ids if they are valid.
    pub(crate) fn checked(self) -> Option<Self> {
        let is_id = |id: &str, digits: usize| {
            id.len() == digits && is_hex(id.as_bytes()) && id.bytes().any(|digit| digit != b'0')
        };
        (is_id(&self.trace, 32) && is_id(&self.span, 16)).then_some(self)
    }
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_valid_traceparent_is_read() {
        let ids = Some(TraceIds { trace: TRACE.to_owned(), span: SPAN.to_owned() });
        for header in ["00-T-S-01", "00-T-S-00", "00-T-S-ff", "cc-T-S-01", "01-T-S-01-what-comes-later", "fe-T-S-01-"] {
            let header = header.replace('T', TRACE).replace('S', SPAN);
            assert_eq!(TraceIds::parse(header.as_bytes()), ids, "{header}");
        }
    }

    /// Guards: whatever the specification calls invalid is no trace.
    #[test]
    fn an_invalid_traceparent_is_ignored() {
        for header in [
            "",
            "00",
            "T",
            "00-T-S",
            "00-T-S-",
            "00-T-S-1",
            "00-T-S-0g",
            "00-T-S-01-",
            "00-T-S-01-more",
            "00-T-S-011",
            "01-T-S-01more",
            "ff-T-S-01",
            "0-T-S-01",
            "0g-T-S-01",
            "FE-T-S-01",
            "00_T-S-01",
            "00-T_S-01",
            "00-T-S_01",
            " 00-T-S-01",
            "00-T-S-01 ",
            "00-00000000000000000000000000000000-S-01",
            "00-T-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-S-01",
            "00-T-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-S-01",
        ] {
            let header = header.replace('T', TRACE).replace('S', SPAN);
            assert_eq!(TraceIds::parse(header.as_bytes()), None, "{header}");
        }
    }

    proptest! {
        /// Guards: no header from outside panics, and what is read is an id.
        #[test]
        fn any_header_is_an_id_or_none(header in proptest::collection::vec(any::<u8>(), 0..80), fitting in "[0f]{2}-[0-9a-g]{32}-[0-9a-f]{16}-[0-9A-F]{2}-?") {
            for header in [&header[..], fitting.as_bytes()] {
                if let Some(ids) = TraceIds::parse(header) {
                    prop_assert_eq!((ids.trace.len(), ids.span.len()), (32, 16));
                    prop_assert!(is_hex(ids.trace.as_bytes()) && is_hex(ids.span.as_bytes()));
                    prop_assert!(ids.checked().is_some());
                }
            }
        }
    }
}
