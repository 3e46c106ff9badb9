//! Times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// RFC 3339 in UTC, with milliseconds. A clock before 1970 or after 9999 is wrong, but no reason to fail.
pub(crate) fn timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a wrong clock causes no panic on the reporter thread.
    #[test]
    fn any_time_has_a_timestamp() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(1_735_689_600_123)), "2025-01-01T00:00:00.123Z");
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.000Z");
    }
}
