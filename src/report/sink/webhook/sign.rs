//! The signature of posted reports.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Returns `v1=<hex>`: HMAC-SHA256 with the secret over the timestamp, a full stop and the body.
pub(super) fn signature(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

/// Returns 16 hexadecimal digits that are the same for the same body.
pub(super) fn digits_of(body: &[u8]) -> String {
    hex(&Sha256::digest(body)[..8])
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: receivers can compute it with any other library. The value comes from `openssl dgst -sha256 -hmac key`.
    #[test]
    fn the_signature_matches_openssl() {
        let known = "v1=18a6a644b6c3e88a7eed8836c7b9b13bfa9306f949c7dde5fcaac263f0043420";
        assert_eq!(signature(b"key", "1735689600", b"{}"), known);
        assert_ne!(signature(b"key", "1735689601", b"{}"), known);
        assert_ne!(signature(b"kez", "1735689600", b"{}"), known);
        assert_ne!(signature(b"key", "1735689600", b"{ }"), known);
    }

    #[test]
    fn hashes_into_16_hex_digits() {
        assert_eq!(digits_of(b""), "e3b0c44298fc1c14");
    }
}
