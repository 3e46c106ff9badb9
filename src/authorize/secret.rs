//! A secret, and whether somebody knows it.

use subtle::{Choice, ConstantTimeEq as _};

use crate::error::{Error, Result};

/// The minimum length of a secret, in bytes.
pub const MIN_SECRET: usize = 16;

/// The maximum length, in bytes. Both sides are padded to this length and compared, whatever their own is.
const MAX_SECRET: usize = 256;

/// Has no `Debug` and isn't `Copy`, because nobody may see it.
pub(super) struct Secret(Box<Padded>);

struct Padded {
    bytes: [u8; MAX_SECRET],
    len: u64,
}

impl Padded {
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; MAX_SECRET];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bytes: padded, len: bytes.len() as u64 })
    }
}

impl Secret {
    pub(super) fn new(secret: &str) -> Result<Self> {
        let sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
        let padded = match secret.len() {
            0 => return Err(Error::config("the secret of `authorize::bearer` is empty")),
            1..MIN_SECRET => {
                let problem = format!("the secret of `authorize::bearer` is shorter than {MIN_SECRET} bytes");
                return Err(Error::config(problem));
            }
            _ if !secret.bytes().all(sendable) => {
                return Err(Error::config(
                    "the secret of `authorize::bearer` has characters that a cookie cannot carry: it may be of visible \
                     ASCII characters without quotes, commas, semicolons and backslashes",
                ));
            }
            _ => Padded::new(secret.as_bytes()),
        };
        let too_long = || Error::config(format!("the secret of `authorize::bearer` is longer than {MAX_SECRET} bytes"));
        padded.map(|padded| Self(Box::new(padded))).ok_or_else(too_long)
    }

    /// Returns whether `said` is the secret. The time this takes reveals neither how much of it is right nor how long
    /// the secret is.
    pub(super) fn is(&self, said: &[u8]) -> Choice {
        let Some(said) = Padded::new(said) else { return Choice::from(0) };
        self.0.bytes.ct_eq(&said.bytes) & self.0.len.ct_eq(&said.len)
    }
}
