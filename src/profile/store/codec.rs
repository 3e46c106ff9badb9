//! Profiles as bytes: JSON in gzip, together with their owner.

use std::io::{self, Read as _, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::item::Kind;
use crate::profile::id::Id;
use crate::profile::{Profile, SCHEMA};

/// The longest JSON, in bytes, because a bucket may hold other people's gzip.
const MAX_JSON: u64 = 256 << 20;

#[derive(Serialize)]
struct Written<'a> {
    principal: Option<&'a str>,
    profile: &'a Profile,
}

#[derive(Deserialize)]
struct Kept {
    principal: Option<String>,
    profile: Profile,
}

pub(super) fn encode(profile: &Profile, principal: Option<&str>) -> Result<Bytes, StoreError> {
    // The fastest level. It yields a tenth of the JSON's size, and the highest one would save a third of that.
    let mut json = Counted { inner: GzEncoder::new(Vec::new(), Compression::fast()), bytes: 0 };
    let encoded = serde_json::to_writer(&mut json, &Written { principal, profile });
    if json.bytes > MAX_JSON {
        return Err(StoreError::TooLarge { bytes: json.bytes, most: MAX_JSON });
    }
    encoded.map_err(|error| StoreError::unavailable("write a profile as JSON", error))?;
    let gzip = json.inner.finish().map_err(|error| StoreError::unavailable("compress a profile", error))?;
    Ok(Bytes::from(gzip))
}

/// Returns the profile of these bytes, if it belongs to `principal`.
pub(super) fn decode(id: Id, bytes: &[u8], principal: Option<&str>) -> Result<Option<Profile>, StoreError> {
    let corrupt = |why: &dyn std::fmt::Display| StoreError::corrupt(Kind::Profile, id, why);
    let mut json = Vec::new();
    GzDecoder::new(bytes).take(MAX_JSON + 1).read_to_end(&mut json).map_err(|error| corrupt(&error))?;
    if json.len() as u64 > MAX_JSON {
        return Err(corrupt(&"it is far too long"));
    }
    // serde quotes only values. It may quote those of a profile, which are the asker's or an attacker's own.
    let kept: Kept = serde_json::from_slice(&json).map_err(|error| corrupt(&place(&error)))?;
    // What a rule wanted belongs to everybody who may profile.
    if kept.principal.as_deref() != principal && kept.profile.reason.is_none() {
        return Ok(None);
    }
    check(id, &kept.profile).map_err(|why| corrupt(&why))?;
    Ok(Some(kept.profile))
}

/// Says where it is wrong, without quoting what is there.
pub(super) fn place(error: &serde_json::Error) -> String {
    format!("no such JSON, at line {}, column {}", error.line(), error.column())
}

/// Checks what the code that shows a profile relies on: its indexes are valid, and a node comes after its parent.
fn check(id: Id, profile: &Profile) -> Result<(), &'static str> {
    let nodes = profile.nodes.len();
    let slices = || profile.slices.iter().chain(&profile.beside);
    if profile.schema > SCHEMA {
        return Err("a newer version has written it");
    }
    if profile.id.parse() != Ok(id) {
        return Err("it is another one");
    }
    if profile.nodes.iter().any(|node| node.frame as usize >= profile.frames.len()) {
        return Err("a node has no frame");
    }
    if profile.nodes.iter().enumerate().any(|(at, node)| node.parent.is_some_and(|parent| parent as usize >= at)) {
        return Err("a node has no parent before it");
    }
    if slices().any(|slice| slice.stack as usize >= nodes) {
        return Err("a slice has no stack");
    }
    if slices().any(|slice| slice.start_nanos.checked_add(slice.nanos).is_none()) {
        return Err("a slice has no end");
    }
    Ok(())
}

/// Counts what it passes on, and stops when that is too much.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_JSON {
            return Err(io::Error::other("too much"));
        }
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
