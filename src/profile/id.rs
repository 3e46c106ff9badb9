//! The ids of profiles, which nobody can guess.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::{Choice, ConstantTimeEq as _};

/// How many hexadecimal digits an id has.
const DIGITS: usize = 32;

/// How many of them others than the asker may see: in logs, in `Debug`.
const SHORT: usize = 8;

/// 128 random bits. Anybody who knows an id can ask for the profile. The authorizer decides whether they get it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id([u8; 16]);

impl Id {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system has no random numbers to give.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Returns whether the two are equal. The time it takes does not tell how much of them is.
    pub(crate) fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// Returns the part of it that can be logged.
    pub(crate) fn short(&self) -> String {
        let [a, b, c, d, ..] = self.0;
        format!("{:0SHORT$x}", u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({}…)", self.short())
    }
}

impl FromStr for Id {
    type Err = ();

    /// Parses exactly 32 lowercase hexadecimal digits: there is one spelling per id, so that it can be compared as
    /// text.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != DIGITS || !text.bytes().all(is_digit) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(|bits| Self(bits.to_be_bytes())).map_err(|_| ())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| D::Error::custom("not an id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: only one spelling is accepted, and it survives a round trip.
    #[test]
    fn an_id_has_only_one_spelling() {
        let text = "0123456789abcdef0000000000000007";
        let id: Id = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::from_str::<Id>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        let others = [
            "",
            "0123456789abcdef000000000000000",
            "0123456789abcdef00000000000000070",
            "0123456789ABCDEF0000000000000007",
            "+123456789abcdef0000000000000007",
            " 123456789abcdef0000000000000007",
            "0x23456789abcdef0000000000000007",
            "0123456789abcdeg0000000000000007",
            "0123456789abcdef00000000000000é",
            "../../../../../../../etc/passwd0",
        ];
        for other in others {
            assert_eq!(other.parse::<Id>(), Err(()), "{other:?}");
        }
        assert!(serde_json::from_str::<Id>("\"7\"").is_err());
    }

    /// Guards: what may reach a log is eight digits.
    #[test]
    fn debug_shows_only_eight_digits() {
        let id: Id = "0123456789abcdef0000000000000007".parse().unwrap();
        assert_eq!((id.short(), format!("{id:?}")), ("01234567".into(), "Id(01234567…)".into()));
    }

    #[test]
    fn random_ids_differ_in_every_byte() {
        let mut ids: Vec<_> = (0..1_000).map(|_| Id::random().unwrap()).collect();
        for at in 0..16 {
            assert!(ids.iter().any(|id| id.0[at] != ids[0].0[at]), "byte {at} is always the same");
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1_000);
    }
}
