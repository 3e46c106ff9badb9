//! Seals what lies in a store, so that nobody without the secret can read it, change it, or pass it off as something else.
//!
//! A sealed object is:
//!
//! | bytes | |
//! |---|---|
//! | 8 | `heelseal` |
//! | 1 | the version of this format, 1 |
//! | 8 | which key it is: the beginning of a hash of the key |
//! | 8 | when it was sealed, in milliseconds since 1970, big-endian |
//! | 24 | a random nonce |
//! | the rest | XChaCha20-Poly1305 |
//!
//! The first 25 bytes, the object's kind and its id are the additional data: a sealed object that is moved to another place,
//! or whose time is changed, does not open.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

const MAGIC: [u8; 8] = *b"heelseal";
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Where the parts begin.
const KEY_AT: usize = 9;
const TIME_AT: usize = 17;
const NONCE_AT: usize = 25;
const SEALED_AT: usize = 49;

/// What seals the requests and profiles that go to another machine: a key of 32 random bytes, which all instances have.
///
/// Whoever has it, and can write to the store, can have the service do anything in the name of anybody. Keep it like a
/// password of the database. `openssl rand -base64 32` makes one.
///
/// # Rotation
///
/// Give every instance the new key as one that only [opens](Self::also_opens) first, then as the one that seals, and drop the
/// old one when the oldest profile is gone.
///
/// ```
/// use heeler::profile::remote::Secret;
///
/// # fn main() -> Result<(), heeler::Error> {
/// # let (new, old) = ("RPwe4GBYbwpE9WnOR6pTvYtrLh8UqyPzoVGGUNZRrFI=", "Yw2XHhVpwVKSi0LOJLlCn8kxkQrSJEZ0kDVXHPDqWqk=");
/// let secret = Secret::from_base64(new)?.also_opens(Secret::from_base64(old)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Secret {
    /// The first one seals. All of them open.
    keys: Arc<[Key]>,
}

#[derive(Clone)]
struct Key {
    id: [u8; 8],
    cipher: XChaCha20Poly1305,
}

impl Secret {
    /// Takes 32 bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if there are more or fewer than 32 bytes, or if they are all the same.
    pub fn from_bytes(key: &[u8]) -> Result<Self, Error> {
        if key.len() != KEY_BYTES {
            return Err(Error::config(format!("a secret has 32 bytes, but this one has {}", key.len())));
        }
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(Error::config("all bytes of the secret are the same: it is not random"));
        }
        let cipher = XChaCha20Poly1305::new_from_slice(key);
        let cipher = cipher.map_err(|_| Error::config("a secret has 32 bytes"))?;
        let mut id = [0; 8];
        let hash = Sha256::new().chain_update(b"heeler: which key").chain_update(key).finalize();
        id.copy_from_slice(&hash[..8]);
        Ok(Self { keys: [Key { id, cipher }].into() })
    }

    /// Takes 32 bytes in Base64, as `openssl rand -base64 32` prints them. White space around them is ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if this is no Base64, and those of [`from_bytes`](Self::from_bytes).
    pub fn from_base64(key: &str) -> Result<Self, Error> {
        let bytes = STANDARD.decode(key.trim()).map_err(|_| Error::config("the secret is not valid Base64"))?;
        Self::from_bytes(&bytes)
    }

    /// Returns a secret that also opens what `old` has sealed.
    #[must_use]
    pub fn also_opens(self, old: Self) -> Self {
        Self { keys: self.keys.iter().chain(&*old.keys).cloned().collect() }
    }

    /// Seals `bytes` for one place: a kind of object, and an id.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no random numbers.
    pub(super) fn seal(&self, place: &Place<'_>, bytes: &[u8]) -> Result<Vec<u8>, Unsealed> {
        self.seal_at(SystemTime::now(), place, bytes)
    }

    pub(super) fn seal_at(&self, now: SystemTime, place: &Place<'_>, bytes: &[u8]) -> Result<Vec<u8>, Unsealed> {
        let key = &self.keys[0];
        let mut nonce = [0; SEALED_AT - NONCE_AT];
        getrandom::fill(&mut nonce).map_err(|_| Unsealed::NoRandomNumbers)?;
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut sealed = Vec::with_capacity(SEALED_AT + bytes.len() + 16);
        sealed.extend(MAGIC);
        sealed.push(VERSION);
        sealed.extend(key.id);
        sealed.extend(u64::try_from(millis).unwrap_or(u64::MAX).to_be_bytes());
        let aad = place.bound_to(&sealed);
        let ciphertext = key.cipher.encrypt(&nonce.into(), Payload { msg: bytes, aad: &aad });
        sealed.extend(nonce);
        sealed.extend(ciphertext.map_err(|_| Unsealed::Altered)?);
        Ok(sealed)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    ///
    /// Returns why it does not open. Nothing of it can be trusted then.
    pub(super) fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Opened, Unsealed> {
        let (Some(head), Some(nonce), Some(ciphertext)) =
            (sealed.get(..NONCE_AT), sealed.get(NONCE_AT..SEALED_AT), sealed.get(SEALED_AT..))
        else {
            return Err(Unsealed::NotSealed);
        };
        if head[..MAGIC.len()] != MAGIC {
            return Err(Unsealed::NotSealed);
        }
        if head[MAGIC.len()] != VERSION {
            return Err(Unsealed::OtherVersion);
        }
        let key = self.keys.iter().find(|key| key.id == head[KEY_AT..TIME_AT]).ok_or(Unsealed::OtherKey)?;
        let nonce = nonce.try_into().map_err(|_| Unsealed::NotSealed)?;
        let payload = Payload { msg: ciphertext, aad: &place.bound_to(head) };
        let bytes = key.cipher.decrypt(nonce, payload).map_err(|_| Unsealed::Altered)?;
        let millis = head[TIME_AT..].iter().fold(0, |millis: u64, byte| millis << 8 | u64::from(*byte));
        let sealed_at = UNIX_EPOCH.checked_add(Duration::from_millis(millis)).ok_or(Unsealed::Altered)?;
        Ok(Opened { bytes, sealed_at })
    }
}

impl fmt::Debug for Secret {
    /// Shows how many keys there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Where a sealed object belongs.
pub(super) struct Place<'a> {
    pub(super) kind: &'a str,
    pub(super) id: String,
}

impl Place<'_> {
    /// Returns the additional data. No two places have the same: an id has a fixed length.
    fn bound_to(&self, head: &[u8]) -> Vec<u8> {
        [head, self.kind.as_bytes(), b"/", self.id.as_bytes()].concat()
    }
}

/// What was sealed.
pub(super) struct Opened {
    pub(super) bytes: Vec<u8>,
    /// By the clock of the machine that sealed it.
    pub(super) sealed_at: SystemTime,
}

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsealed {
    NotSealed,
    OtherVersion,
    OtherKey,
    Altered,
    NoRandomNumbers,
}

impl fmt::Display for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSealed => "it is not sealed",
            Self::OtherVersion => "another version of heeler has sealed it",
            Self::OtherKey => "another secret has sealed it",
            Self::Altered => "it was altered, or belongs elsewhere",
            Self::NoRandomNumbers => "the system has no random numbers",
        })
    }
}

impl std::error::Error for Unsealed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: u8) -> Secret {
        let key: Vec<u8> = (0..32).map(|at| seed.wrapping_add(at)).collect();
        Secret::from_bytes(&key).unwrap()
    }

    fn place(id: &str) -> Place<'_> {
        Place { kind: "request", id: id.to_owned() }
    }

    fn why(opened: Result<Opened, Unsealed>) -> Unsealed {
        opened.err().expect("it opened")
    }

    /// Guards: what was sealed opens at its place, with the time of its sealing, and nowhere else.
    #[test]
    fn a_sealed_object_opens_only_at_its_place() {
        let (secret, then) = (secret(1), UNIX_EPOCH + Duration::from_millis(1_764_530_000_123));
        let sealed = secret.seal_at(then, &place("a"), b"GET /").unwrap();
        let opened = secret.open(&place("a"), &sealed).unwrap();
        assert_eq!((&*opened.bytes, opened.sealed_at), (&b"GET /"[..], then));
        assert_eq!(why(secret.open(&place("b"), &sealed)), Unsealed::Altered);
        let other = Place { kind: "status", id: "a".to_owned() };
        assert_eq!(why(secret.open(&other, &sealed)), Unsealed::Altered);
        assert!(!sealed.windows(5).any(|bytes| bytes == b"GET /"));
        // A nonce is never used twice.
        assert_ne!(sealed, secret.seal_at(then, &place("a"), b"GET /").unwrap());
    }

    /// Guards: with a new secret that also opens the old one's objects, both open. With the new one alone, only its own do.
    #[test]
    fn a_secret_can_be_rotated() {
        let (old, new) = (secret(1), secret(100));
        let both = new.clone().also_opens(old.clone());
        let sealed = old.seal(&place("a"), b"x").unwrap();
        assert_eq!(both.open(&place("a"), &sealed).unwrap().bytes, b"x");
        assert_eq!(why(new.open(&place("a"), &sealed)), Unsealed::OtherKey);
        let sealed = both.seal(&place("a"), b"x").unwrap();
        assert_eq!(new.open(&place("a"), &sealed).unwrap().bytes, b"x");
        assert_eq!(why(old.open(&place("a"), &sealed)), Unsealed::OtherKey);
    }

    /// Guards: of 100,000 sealed requests that were changed, cut, lengthened or mixed, none opens.
    #[test]
    fn an_altered_object_never_opens() {
        let secret = secret(1);
        let (one, other) = (secret.seal(&place("a"), &[7; 200]).unwrap(), secret.seal(&place("a"), &[8; 300]).unwrap());
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..100_000 {
            let mut sealed = one.clone();
            match round % 5 {
                0 => {
                    let at = random.usize(..sealed.len());
                    sealed[at] ^= 1 << random.u32(..8);
                }
                1 => sealed.truncate(random.usize(..sealed.len())),
                2 => sealed.extend((0..random.usize(1..40)).map(|_| random.u8(..))),
                3 => {
                    let at = random.usize(1..sealed.len());
                    sealed.truncate(at);
                    sealed.extend(&other[at..]);
                }
                _ => sealed.iter_mut().skip(random.usize(..50)).for_each(|byte| *byte = random.u8(..)),
            }
            // Both begin alike.
            assert!(sealed == other || secret.open(&place("a"), &sealed).is_err(), "round {round}");
        }
        assert!(secret.open(&place("a"), &one).is_ok());
    }

    /// Guards: a secret that is none is an error, and `Debug` does not show one.
    #[test]
    fn a_weak_secret_is_refused() {
        assert!(Secret::from_base64("c2hvcnQ=").is_err());
        assert!(Secret::from_base64("not base64!").is_err());
        assert!(Secret::from_bytes(&[0; 32]).is_err());
        assert_eq!(format!("{:?}", secret(1)), "Secret { keys: 1, .. }");
    }
}
