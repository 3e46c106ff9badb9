//! Times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// RFC 3339 in UTC, with milliseconds. A clock before 1970 or after 9999 is wrong, but no reason to fail.
pub(crate) fn timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// `2026-11-21 09:30:00 UTC`.
#[cfg(any(feature = "console", feature = "profile"))]
pub(crate) fn to_the_second(time: SystemTime) -> String {
    let timestamp = timestamp(time);
    format!("{} {} UTC", &timestamp[..10], &timestamp[11..19])
}

/// For `#[serde(with)]`: RFC 3339 in UTC.
pub(crate) mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, SystemTime, timestamp};
    use serde::de::Error as _;

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&timestamp(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

/// The time in milliseconds.
pub(crate) fn in_millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// For `#[serde(with)]`: milliseconds, with a fraction.
pub(crate) mod millis {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, in_millis};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(in_millis(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        read(f64::deserialize(deserializer)?)
    }

    fn read<E: serde::de::Error>(ms: f64) -> Result<Duration, E> {
        Duration::try_from_secs_f64(ms / 1e3).map_err(E::custom)
    }

    /// A list of the same.
    pub(crate) mod list {
        use super::{Deserialize as _, Deserializer, Duration, Serializer, in_millis, read};

        pub(crate) fn serialize<S: Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(times.iter().copied().map(in_millis))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
            Vec::<f64>::deserialize(deserializer)?.into_iter().map(read).collect()
        }
    }

    /// The same, or nothing.
    pub(crate) mod optional {
        use super::{Deserialize as _, Deserializer, Duration, Serialize as _, Serializer, in_millis, read};

        pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            time.map(in_millis).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Option::<f64>::deserialize(deserializer)?.map(read).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a wrong clock causes no panic on the reporter thread.
    #[test]
    fn any_time_has_a_timestamp() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(1_735_689_600_123)), "2025-01-01T00:00:00.123Z");
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.000Z");
        #[cfg(any(feature = "console", feature = "profile"))]
        assert_eq!(to_the_second(UNIX_EPOCH + Duration::from_millis(1_735_689_600_999)), "2025-01-01 00:00:00 UTC");
    }

    /// Guards: milliseconds that are no duration are an error, wherever the file comes from.
    #[test]
    fn only_durations_are_read() {
        #[derive(Deserialize)]
        struct Read {
            #[serde(with = "millis")]
            ms: Duration,
            #[serde(default, with = "millis::optional")]
            or_nothing: Option<Duration>,
        }
        let read = |ms: &str| serde_json::from_str::<Read>(&format!("{{\"ms\": {ms}}}"));
        assert_eq!(read("2510.25").unwrap().ms, Duration::from_micros(2_510_250));
        assert_eq!(read("2").unwrap().or_nothing, None);
        assert_eq!(read("2, \"or_nothing\": 0.5").unwrap().or_nothing, Some(Duration::from_micros(500)));
        for hostile in ["-1", "1e300", "null", "\"2\"", "2, \"or_nothing\": -1"] {
            assert!(read(hostile).is_err(), "{hostile}");
        }
        for micros in [0, 1, 309_600, 2_510_500, 86_400_000_001] {
            let time = Duration::from_micros(micros);
            assert_eq!(read(&in_millis(time).to_string()).unwrap().ms, time, "what is written is read back");
        }
    }
}
