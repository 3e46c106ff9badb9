//! Deadlines on the wire: how much time a caller has left, as a header of its request.
//!
//! There are two spellings. `grpc-timeout` is one to eight digits and a unit, as [gRPC over HTTP/2] defines it. A
//! header that the user names holds whole milliseconds as digits, like Envoy's `x-envoy-expected-rq-timeout-ms`.
//!
//! The values come from strangers, so every input has a meaning. A value that is not exactly of that form (a sign, a
//! fraction, another unit, nothing at all, more than 64 bits hold) counts as missing. Of several values, whether in
//! headers of one name or in a list with commas, the smallest valid one counts. Zero says that nothing is left.
//!
//! Written values are rounded down, so a peer never believes that it has more time than is left.
//!
//! [gRPC over HTTP/2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of gRPC calls.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The units of `grpc-timeout`, finest first, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The largest number with eight digits.
const GRPC_MOST: u128 = 99_999_999;

/// Returns whether these are the headers of a gRPC call (or answer): `application/grpc`, and everything that begins
/// with it.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..GRPC.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Returns the smallest valid value of the headers with this name.
pub(crate) fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    // A proxy may have joined several headers of one name with commas. That means the same.
    let values = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let parse = if *name == GRPC_TIMEOUT { parse_grpc } else { parse_named };
    values.filter_map(|value| parse(value.trim_ascii())).min()
}

/// Returns what to write into this header while `left` is left. Returns `None` if that is too little to write, so there
/// is no time for a call.
///
/// In a named header that is less than a millisecond. Zero is never written, because some peers take it for "no limit".
pub(crate) fn write(name: &HeaderName, left: Duration) -> Option<HeaderValue> {
    if *name == GRPC_TIMEOUT { write_grpc(left) } else { write_millis(left) }
}

fn write_grpc(left: Duration) -> Option<HeaderValue> {
    let nanos = left.as_nanos();
    if nanos == 0 {
        return None;
    }
    // The finest unit that needs at most eight digits. The longest duration takes twelve digits in hours.
    let (unit, length) =
        UNITS.into_iter().find(|(_, length)| nanos / length <= GRPC_MOST).unwrap_or(UNITS[UNITS.len() - 1]);
    let count = (nanos / length).min(GRPC_MOST);
    // Digits and a letter are always a valid value.
    HeaderValue::try_from(format!("{count}{}", char::from(unit))).ok()
}

fn write_millis(left: Duration) -> Option<HeaderValue> {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    (millis > 0).then(|| HeaderValue::from(millis))
}

fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > 8 {
        return None;
    }
    let (_, length) = UNITS.into_iter().find(|(letter, _)| letter == unit)?;
    // Eight digits of hours are below 2^69 nanoseconds, and 2^39 seconds: nothing overflows.
    let nanos = u128::from(parse_digits(digits)?) * length;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

fn parse_named(value: &[u8]) -> Option<Duration> {
    parse_digits(value).map(Duration::from_millis).or_else(|| parse_grpc(value))
}

/// Parses decimal digits and nothing else, up to 20 of them, so that no header is slow to read.
fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

    fn headers(name: &HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        headers
    }

    fn one(name: &HeaderName, value: &str) -> Option<Duration> {
        read(&headers(name, &[value.as_bytes()]), name)
    }

    /// Guards: each unit means what the specification says, up to the largest value there is.
    #[test]
    fn reads_every_unit_of_grpc_timeout() {
        for (value, expected) in [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("300m", Duration::from_millis(300)),
            ("4S", Duration::from_secs(4)),
            ("5M", Duration::from_secs(300)),
            ("6H", Duration::from_secs(21_600)),
            ("00000007S", Duration::from_secs(7)),
            ("0S", Duration::ZERO),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(one(&GRPC_TIMEOUT, value), Some(expected), "{value}");
            assert_eq!(one(&NAMED, value), Some(expected), "{value} in a named header");
        }
    }

    /// Guards: a named header counts milliseconds, up to the largest value.
    #[test]
    fn a_named_header_counts_milliseconds() {
        for (value, expected) in [
            ("0", 0),
            ("1", 1),
            ("1500", 1_500),
            ("0001500", 1_500),
            ("100000000", 100_000_000),
            ("18446744073709551615", u64::MAX),
            (" 20\t", 20),
        ] {
            assert_eq!(one(&NAMED, value), Some(Duration::from_millis(expected)), "{value}");
        }
    }

    /// Guards: an invalid deadline counts as missing, so that the layer's own limit holds.
    #[test]
    fn invalid_deadlines_are_ignored() {
        let long = "9".repeat(60_000);
        let zeros = "0".repeat(60_000);
        for value in [
            "",
            " ",
            "S",
            "n",
            "-1S",
            "+1S",
            "-1",
            "+1",
            "1.5",
            "1.5S",
            "1e3",
            "0x10",
            "1 S",
            "1s",
            "1h",
            "1ms",
            "SS",
            "5SS",
            "123456789n",
            "000000001S",
            "1_000",
            "NaN",
            "inf",
            "18446744073709551616",
            "99999999999999999999",
            &long,
            &zeros,
            "\u{663}S",
            "1;2",
        ] {
            assert_eq!(one(&NAMED, value), None, "{value:.40}");
            assert_eq!(one(&GRPC_TIMEOUT, value), None, "{value:.40}");
        }
        // bare milliseconds aren't gRPC
        assert_eq!(one(&GRPC_TIMEOUT, "1500"), None);
        assert_eq!(read(&headers(&NAMED, &[b"\xff\xfe", b"\x80S"]), &NAMED), None);
        assert_eq!(read(&HeaderMap::new(), &NAMED), None);
    }

    /// Guards: of several headers, or of a list that a proxy made from them, the smallest valid one counts.
    #[test]
    fn the_smallest_valid_deadline_counts() {
        assert_eq!(read(&headers(&NAMED, &[b"300", b"junk", b"20", b"1S"]), &NAMED), Some(Duration::from_millis(20)));
        assert_eq!(read(&headers(&NAMED, &[b"300, 1H,,-5 , 200"]), &NAMED), Some(Duration::from_millis(200)));
        assert_eq!(
            read(&headers(&GRPC_TIMEOUT, &[b"3S", b"10m", b""]), &GRPC_TIMEOUT),
            Some(Duration::from_millis(10))
        );
        assert_eq!(read(&headers(&GRPC_TIMEOUT, &[b"x", b"y"]), &GRPC_TIMEOUT), None);
    }

    /// Guards: the written value is in the finest unit that fits, rounded down, and has at most eight digits.
    #[test]
    fn writes_the_finest_unit_that_fits() {
        let grpc = |left| write(&GRPC_TIMEOUT, left);
        for (left, expected) in [
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(2), "2000000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_millis(100_000), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(99_999_999 * 60 + 59), "99999999M"),
            (Duration::from_secs(100_000_000 * 60), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(grpc(left).as_ref().map(HeaderValue::as_bytes), Some(expected.as_bytes()), "{left:?}");
        }
        let named = |left| write(&NAMED, left).map(|value| value.to_str().expect("digits").to_owned());
        assert_eq!(named(Duration::from_micros(1_999)).as_deref(), Some("1"));
        assert_eq!(named(Duration::from_millis(1_500)).as_deref(), Some("1500"));
        assert_eq!(named(Duration::MAX).as_deref(), Some("18446744073709551615"));
    }

    /// Guards: zero is never written, because some peers take it for "no limit".
    #[test]
    fn zero_is_never_written() {
        assert_eq!(write(&GRPC_TIMEOUT, Duration::ZERO), None);
        assert_eq!(write(&NAMED, Duration::ZERO), None);
        assert_eq!(write(&NAMED, Duration::from_nanos(999_999)), None);
    }

    /// Guards: gRPC is recognised by its content type, in all its forms, and nothing else is taken for it.
    #[test]
    fn recognises_grpc_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("Application/GRPC+json", true),
            ("application/grpc-web", true),
            ("application/json", false),
            ("application/grp", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&headers(&CONTENT_TYPE, &[value.as_bytes()])), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    fn durations() -> impl Strategy<Value = Duration> {
        // all magnitudes, not only the large ones that a uniform choice gives
        (any::<u64>(), 0_u32..64, 0_u32..1_000_000_000)
            .prop_map(|(seconds, shift, nanos)| Duration::new(seconds >> shift >> 1, nanos))
    }

    /// Any bytes, and values near valid ones.
    fn values() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (
                prop::collection::vec(b'0'..=b'9', 0..24),
                prop::option::of(prop::sample::select(b"HMSmunhs-+ .,".to_vec()))
            )
                .prop_map(|(mut digits, unit)| {
                    digits.extend(unit);
                    digits
                }),
        ]
    }

    proptest! {
        /// Guards: a peer never believes that it has more time than is left, nor much less.
        #[test]
        fn a_peer_reads_no_more_time_than_is_left(left in durations()) {
            for name in [GRPC_TIMEOUT, NAMED] {
                let Some(value) = write(&name, left) else {
                    prop_assert!(left < Duration::from_millis(1));
                    continue;
                };
                let mut headers = HeaderMap::new();
                headers.insert(&name, value.clone());
                let back = read(&headers, &name).expect("what was written can be read");
                prop_assert!(back <= left, "{value:?}: {back:?} > {left:?}");
                prop_assert!(!back.is_zero());
                if name == GRPC_TIMEOUT {
                    prop_assert!(value.len() <= 9);
                    // a count of at least 100,000, or the largest value of all
                    let lost = left - back;
                    prop_assert!(lost <= left / 100_000 || back == Duration::from_secs(99_999_999 * 3_600));
                } else if left.as_millis() <= u128::from(u64::MAX) {
                    prop_assert!(left - back < Duration::from_millis(1));
                }
            }
        }

        /// Guards: no header causes a panic, and the value read is the smallest of what each header gives alone.
        #[test]
        fn any_headers_give_the_smallest_value(all in prop::collection::vec(values(), 0..5)) {
            for name in [GRPC_TIMEOUT, NAMED] {
                let mut headers = HeaderMap::new();
                let mut each = Vec::new();
                for value in &all {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        let mut alone = HeaderMap::new();
                        alone.insert(&name, value.clone());
                        each.push(read(&alone, &name));
                        headers.append(&name, value);
                    }
                }
                prop_assert_eq!(read(&headers, &name), each.into_iter().flatten().min());
            }
        }
    }
}
