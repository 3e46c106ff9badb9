//! What the objects contain, as JSON. Readers ignore fields that they don't know.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::store::Failure;
use crate::report::assemble::route::route_line;
use crate::report::{FleetIncident, FleetInstance};
use crate::report::{ProcessInfo, Report};
use crate::text::fnv::Fnv;
use crate::text::time::{millis, rfc3339};

/// The most bytes of an object with one instance's counts or index.
pub(super) const MAX_OBJECT: u64 = 4 << 20;
/// The most bytes of indexes that were put together, and of a batch of reports: in gzip, and as they are.
pub(super) const MAX_LARGE: u64 = 64 << 20;
const MAX_PLAIN: u64 = 256 << 20;
/// The schema of indexes that this version writes.
pub(super) const INDEX_SCHEMA: u32 = 1;
/// How many instances a message names.
const MAX_INSTANCES: usize = 20;
/// The most characters of a name in a message.
const MAX_NAME: usize = 200;
/// How many routes of an incident an instance tells apart.
const MAX_ROUTES: usize = 50;
/// The most characters of a sentence in an index.
const MAX_SENTENCE: usize = 400;

/// One process of the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Instance {
    /// Random, for each process another one.
    pub(super) id: String,
    /// What people call it.
    pub(super) name: String,
    pub(super) zone: Option<String>,
    pub(super) version: Option<String>,
    pub(super) build_id: Option<String>,
}

/// One instance's reports of an incident: `incidents/<key>/<number>/total-<instance>`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Count {
    pub(super) instance: Instance,
    /// Pieces of work that were reported, held back reports included.
    pub(super) reports: u64,
    pub(super) routes: Vec<String>,
}

/// What people were told: `told` and `news-<what>`. Each is written once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    pub(super) by: String,
    /// Random, so that an attempt whose answer was lost is known again.
    pub(super) attempt: u32,
    pub(super) reports: u64,
    /// [Hashes](hash) of all routes that were hit by then. There may be thousands, each of any length.
    pub(super) routes: Vec<String>,
}

/// Who has claimed an incident: `claim-<number>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Claim {
    pub(super) by: String,
    /// Random, so that an attempt whose answer was lost is known again.
    pub(super) attempt: u32,
}

/// One instance's reports of a day: `index/<day>/<instance>.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Index {
    /// [`INDEX_SCHEMA`]. To be raised with whatever an earlier version would lose when it puts indexes together.
    pub(super) schema: u32,
    pub(super) instance: Instance,
    pub(super) lines: Vec<Line>,
    /// Reports for which there was no line left.
    pub(super) others: u64,
}

/// Reports of one fingerprint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) fingerprint: String,
    /// The incident's key.
    pub(super) key: String,
    pub(super) sentence: String,
    pub(super) reports: u64,
    #[serde(with = "rfc3339")]
    pub(super) first: SystemTime,
    #[serde(with = "rfc3339")]
    pub(super) last: SystemTime,
    /// The longest time that the work had taken.
    #[serde(rename = "worst_ms", with = "millis")]
    pub(super) worst: Duration,
    /// The first and the worst of the reports that are in the store.
    #[serde(default)]
    pub(super) first_stored: Option<Stored>,
    #[serde(default)]
    pub(super) worst_stored: Option<Stored>,
}

/// A report in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) day: String,
    pub(super) batch: String,
    pub(super) id: String,
    #[serde(rename = "elapsed_ms", with = "millis")]
    pub(super) elapsed: Duration,
}

impl Instance {
    pub(super) fn new(id: String, process: &ProcessInfo) -> Self {
        let name = process.instance_name();
        let ProcessInfo { zone, version, build_id, .. } = process.clone();
        Self { id, name, zone, version, build_id }
    }
}

impl Index {
    /// Reads an index, if it is one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // Nearly anything could be read as an index without anything in it.
        decode::<Self>(bytes).filter(|index| !index.instance.id.is_empty())
    }

    /// Returns whether a later version wrote it, with fields that this one may not know.
    pub(super) fn is_later(&self) -> bool {
        self.schema > INDEX_SCHEMA
    }
}

impl Count {
    /// Counts a report.
    pub(super) fn note(&mut self, report: &Report) {
        self.reports += 1;
        self.add_route(route_line(report));
    }

    fn add_route(&mut self, route: String) {
        if self.routes.len() < MAX_ROUTES && !self.routes.contains(&route) {
            self.routes.push(route);
        }
    }

    /// Adds what was counted elsewhere.
    pub(super) fn merge(&mut self, other: Self) {
        self.reports = self.reports.saturating_add(other.reports);
        other.routes.into_iter().for_each(|route| self.add_route(route));
    }
}

impl Line {
    pub(super) fn new(report: &Report, key: &str) -> Self {
        Self {
            fingerprint: report.fingerprint.clone(),
            key: key.to_owned(),
            sentence: String::new(),
            reports: 0,
            first: report.captured_at,
            last: report.captured_at,
            worst: Duration::ZERO,
            first_stored: None,
            worst_stored: None,
        }
    }

    /// Counts a report.
    pub(super) fn note(&mut self, report: &Report) {
        self.reports += 1;
        self.see(report);
    }

    /// Notes a report without counting it.
    pub(super) fn see(&mut self, report: &Report) {
        self.first = self.first.min(report.captured_at);
        self.last = self.last.max(report.captured_at);
        if report.elapsed >= self.worst {
            self.worst = report.elapsed;
            self.sentence = report.sentence().chars().take(MAX_SENTENCE).collect();
        }
    }

    /// Notes where a report is.
    pub(super) fn stored(&mut self, stored: &Stored) {
        self.first_stored.get_or_insert_with(|| stored.clone());
        if self.worst_stored.as_ref().is_none_or(|worst| worst.elapsed < stored.elapsed) {
            self.worst_stored = Some(stored.clone());
        }
    }
}

/// Returns who is affected, those with the most reports first.
pub(super) fn affected(counts: &[Count], incident: FleetIncident) -> FleetIncident {
    let mut names: BTreeMap<(&str, &str), FleetInstance> = BTreeMap::new();
    for Count { instance, reports, .. } in counts {
        let affected = names.entry((&instance.name, &instance.id)).or_default();
        affected.name = short(&instance.name);
        affected.version = instance.version.as_deref().map(short);
        affected.reports = affected.reports.saturating_add(*reports);
    }
    let mut instances: Vec<FleetInstance> = names.into_values().collect();
    // The order of names remains among equals.
    instances.sort_by_key(|instance| std::cmp::Reverse(instance.reports));
    let more_instances = instances.len().saturating_sub(MAX_INSTANCES) as u64;
    instances.truncate(MAX_INSTANCES);
    let reports = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(count.reports));
    // All of them: a route that is left out here would be news later.
    let routes: BTreeSet<&String> = counts.iter().flat_map(|count| &count.routes).collect();
    let routes = routes.into_iter().cloned().collect();
    FleetIncident { reports, instances, more_instances, routes, ..incident }
}

/// Returns the beginning of a text from the store, which may be of any length there.
pub(super) fn short(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

/// Returns what stands for a route in [`Told`].
pub(super) fn hash(route: &str) -> String {
    let mut hash = Fnv::default();
    hash.text(route);
    hash.finish()
}

pub(super) fn hashes<'a>(routes: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    routes.into_iter().map(|route| hash(route)).collect()
}

/// Returns a record as bytes.
pub(super) fn encode(record: &impl Serialize) -> Bytes {
    // Fails only for maps with odd keys and for values that refuse to be serialized. No record has either.
    Bytes::from(serde_json::to_vec(record).unwrap_or_default())
}

/// Reads a record, if it is one. A bucket may hold anything.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// Returns bytes in gzip.
pub(super) fn compress(bytes: &[u8]) -> io::Result<Bytes> {
    // The fastest level: it yields a tenth of the JSON's size.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes)?;
    gzip.finish().map(Bytes::from)
}

/// Returns what was [compressed](compress).
pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(MAX_PLAIN + 1).read_to_end(&mut plain).map_err(Failure::new)?;
    if plain.len() as u64 > MAX_PLAIN { Err(Failure::new("it is far too long")) } else { Ok(plain) }
}
