//! Puts the indexes of many processes together as they are read, for a page about all of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::path::Path;

use super::records::{Index, Instance, Line, MAX_LARGE, MAX_OBJECT, Stored, decode, decompress};
use super::store::Failure;
use crate::report::shared::{Affected, FleetView, Release, SharedIncident};

/// How many times as long JSON is as it is in gzip, about.
const EXPANDS: u64 = 10;

/// An object with the index of a process, or with those of a day.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) day: String,
    pub(super) path: Path,
    pub(super) bytes: u64,
    pub(super) is_compacted: bool,
}

impl Source {
    /// Returns about how many bytes of JSON it has.
    pub(super) fn weight(&self) -> u64 {
        if self.is_compacted { self.bytes.saturating_mul(EXPANDS) } else { self.bytes }
    }

    /// Returns how many bytes it may have at most.
    pub(super) fn most(&self) -> u64 {
        if self.is_compacted { MAX_LARGE } else { MAX_OBJECT }
    }
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct Merging {
    incidents: HashMap<String, Merged>,
    /// The days and processes whose reports are counted.
    seen: HashSet<(String, String)>,
    names: Names,
    reports: u64,
    others: u64,
    unreadable: usize,
    /// Objects that are not to be read.
    pub(super) left_out: usize,
    /// Days of which an index has gone since it was listed.
    gone: BTreeSet<String>,
}

/// What an instance may not know of itself.
type Text = Option<Arc<str>>;

/// Names that occur in many indexes, each once.
#[derive(Default)]
struct Names {
    instances: HashMap<(Arc<str>, Text), usize>,
    /// Their names, zones and versions.
    all_instances: Vec<(Arc<str>, Text, Text)>,
    /// By version and build id.
    releases: HashMap<(Text, Text), usize>,
    all_releases: Vec<(Text, Text)>,
}

/// Reports of one fingerprint.
struct Merged {
    sentence: String,
    reports: u64,
    first: SystemTime,
    last: SystemTime,
    worst: Duration,
    first_stored: Option<Stored>,
    worst_stored: Option<Stored>,
    /// By their numbers in [`Names`]: how many reports, and the last of them.
    instances: HashMap<usize, (u64, SystemTime)>,
    /// How many reports, and the first of them.
    releases: HashMap<usize, (u64, SystemTime)>,
}

impl Merging {
    /// Adds an object, as it was read.
    pub(super) fn add(&mut self, source: &Source, bytes: Result<Option<Bytes>, Failure>) {
        let indexes = match bytes {
            Ok(Some(bytes)) if source.is_compacted => decompress(&bytes).ok().and_then(|plain| decode(&plain)),
            Ok(Some(bytes)) => Index::read(&bytes).map(|index| vec![index]),
            Ok(None) if source.bytes > source.most() => None,
            // It was put together with the others, or removed, because it is old.
            Ok(None) => {
                self.gone.extend((!source.is_compacted).then(|| source.day.clone()));
                return;
            }
            Err(_) => None,
        };
        let Some(indexes) = indexes else {
            self.unreadable += 1;
            return;
        };
        for index in indexes {
            if self.seen.insert((source.day.clone(), index.instance.id.clone())) {
                self.merge(index);
            }
        }
    }

    fn merge(&mut self, index: Index) {
        self.others = self.others.saturating_add(index.others);
        let (instance, release) = self.names.numbers(&index.instance);
        for line in index.lines {
            self.reports = self.reports.saturating_add(line.reports);
            match self.incidents.get_mut(&line.fingerprint) {
                Some(merged) => merged.add(line, instance, release),
                None => {
                    let fingerprint = line.fingerprint.clone();
                    let mut merged = Merged::new(&line);
                    merged.add(line, instance, release);
                    self.incidents.insert(fingerprint, merged);
                }
            }
        }
    }

    /// Takes the days of which an index has gone since it was listed.
    pub(super) fn take_gone(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.gone)
    }

    pub(super) fn finish(self) -> Shared {
        let Self { names, reports, others, unreadable, left_out, incidents, .. } = self;
        let instances = names.all_instances.iter().map(|(name, ..)| name).collect::<HashSet<_>>().len();
        let mut all: Vec<_> =
            incidents.into_iter().map(|(fingerprint, merged)| merged.finish(fingerprint, &names)).collect();
        all.sort_by(|(one, ..), (other, ..)| (other.last, &one.fingerprint).cmp(&(one.last, &other.fingerprint)));
        Shared { all, instances, reports, others, unreadable, left_out }
    }
}

impl Names {
    /// Returns the numbers of an instance and of its release.
    fn numbers(&mut self, instance: &Instance) -> (usize, usize) {
        let arc = |text: &Option<String>| text.as_deref().map(Arc::<str>::from);
        let (name, version, build_id) =
            (Arc::<str>::from(&*instance.name), arc(&instance.version), arc(&instance.build_id));
        let number = *self.instances.entry((Arc::clone(&name), version.clone())).or_insert_with(|| {
            self.all_instances.push((name, arc(&instance.zone), version.clone()));
            self.all_instances.len() - 1
        });
        let release = *self.releases.entry((version.clone(), build_id.clone())).or_insert_with(|| {
            self.all_releases.push((version, build_id));
            self.all_releases.len() - 1
        });
        (number, release)
    }
}

impl Merged {
    fn new(line: &Line) -> Self {
        Self {
            sentence: String::new(),
            reports: 0,
            first: line.first,
            last: line.last,
            worst: Duration::ZERO,
            first_stored: None,
            worst_stored: None,
            instances: HashMap::new(),
            releases: HashMap::new(),
        }
    }

    fn add(&mut self, line: Line, instance: usize, release: usize) {
        self.reports = self.reports.saturating_add(line.reports);
        self.last = self.last.max(line.last);
        if line.worst >= self.worst {
            (self.worst, self.sentence) = (line.worst, line.sentence);
        }
        if line.first_stored.is_some() && (self.first_stored.is_none() || line.first < self.first) {
            self.first_stored = line.first_stored;
        }
        self.first = self.first.min(line.first);
        let worst = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.elapsed);
        if worst(&line.worst_stored) > worst(&self.worst_stored) {
            self.worst_stored = line.worst_stored;
        }
        let (reports, last) = self.instances.entry(instance).or_insert((0, line.last));
        (*reports, *last) = (reports.saturating_add(line.reports), line.last.max(*last));
        let (reports, first) = self.releases.entry(release).or_insert((0, line.first));
        (*reports, *first) = (reports.saturating_add(line.reports), line.first.min(*first));
    }

    fn finish(self, fingerprint: String, names: &Names) -> Found {
        let mut instances = Vec::with_capacity(self.instances.len());
        let mut by_name: HashMap<&Arc<str>, u64> = HashMap::new();
        for (number, (reports, last)) in self.instances {
            let (name, zone, version) = &names.all_instances[number];
            let sum = by_name.entry(name).or_default();
            *sum = sum.saturating_add(reports);
            instances.push(Affected {
                name: Arc::clone(name),
                zone: zone.clone(),
                version: version.clone(),
                reports,
                last,
            });
        }
        instances.sort_by(|one, other| {
            (other.reports, &one.name, &one.version).cmp(&(one.reports, &other.name, &other.version))
        });
        let mut by_name: Vec<_> = by_name.into_iter().map(|(name, reports)| (Arc::clone(name), reports)).collect();
        by_name.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        let releases = self.releases.into_iter().map(|(number, (reports, first))| {
            let (version, build_id) = names.all_releases[number].clone();
            Release { version, build_id, first, reports }
        });
        let mut releases: Vec<_> = releases.collect();
        releases.sort_by(|one, other| {
            (one.first, &one.version, &one.build_id).cmp(&(other.first, &other.version, &other.build_id))
        });
        let Self { sentence, reports, first, last, worst, .. } = self;
        let incident =
            SharedIncident { fingerprint, sentence, reports, first, last, worst, names: by_name, instances, releases };
        (Arc::new(incident), self.first_stored, self.worst_stored)
    }
}

/// An incident, and where its first and its worst report are.
type Found = (Arc<SharedIncident>, Option<Stored>, Option<Stored>);

/// The incidents of the last days.
pub(super) struct Shared {
    /// Those with the latest report first.
    all: Vec<Found>,
    instances: usize,
    reports: u64,
    others: u64,
    unreadable: usize,
    left_out: usize,
}

impl Shared {
    pub(super) fn view(&self, days: u32) -> FleetView {
        FleetView {
            incidents: self.all.iter().map(|(incident, ..)| Arc::clone(incident)).collect(),
            instances: self.instances,
            reports: self.reports,
            others: self.others,
            unreadable: self.unreadable,
            left_out: self.left_out,
            days,
        }
    }

    pub(super) fn find(&self, fingerprint: &str) -> Option<&Found> {
        self.all.iter().find(|(incident, ..)| incident.fingerprint == fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fleet::records::{compress, encode};
    use crate::report::testing::report;

    fn index(id: &str, name: &str, version: &str, reports: u64) -> Index {
        let mut line = Line::new(&report(), "5cf400b2380cbd97");
        line.reports = reports;
        let instance = Instance {
            id: id.to_owned(),
            name: name.to_owned(),
            version: Some(version.to_owned()),
            ..Instance::default()
        };
        Index { instance, lines: vec![line], ..Index::default() }
    }

    fn source(is_compacted: bool) -> Source {
        Source { day: "2025-01-01".to_owned(), path: Path::from("x"), bytes: 9, is_compacted }
    }

    /// Guards: an index that is in two objects counts once, as its process wrote it. A process that was started again is the same
    /// instance, and each of its versions has its reports.
    #[test]
    fn each_index_counts_once_and_each_name_too() {
        let mut merging = Merging::default();
        merging.add(&source(false), Ok(Some(encode(&index("a", "web1", "1.0", 5)))));
        let all = [index("a", "web1", "1.0", 3), index("b", "web1", "1.1", 2), index("c", "web2", "1.1", 1)];
        merging.add(&source(true), Ok(Some(compress(&encode(&all)).unwrap())));
        let view = merging.finish().view(7);
        assert_eq!((view.reports, view.instances, view.unreadable), (8, 2, 0));
        let [incident] = &view.incidents[..] else { panic!("one incident") };
        assert_eq!(incident.names, [("web1".into(), 7), ("web2".into(), 1)]);
        let instances = incident.instances.iter().map(|affected| affected.reports);
        let releases = incident.releases.iter().map(|release| (release.version.as_deref(), release.reports));
        assert_eq!(instances.collect::<Vec<_>>(), [5, 2, 1]);
        assert_eq!(releases.collect::<Vec<_>>(), [(Some("1.0"), 5), (Some("1.1"), 3)]);
    }

    /// Guards: what cannot be read is counted. What has gone is looked for among what was put together.
    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut merging = Merging::default();
        let garbage = [(false, Some(&b"{"[..])), (true, Some(&b"[]"[..])), (false, None), (true, None)];
        for (is_compacted, bytes) in garbage {
            merging.add(&source(is_compacted), Ok(bytes.map(Bytes::from_static)));
        }
        merging.add(&Source { bytes: MAX_OBJECT + 1, ..source(false) }, Ok(None));
        merging.add(&source(false), Err(Failure::new("down")));
        assert_eq!(merging.take_gone().into_iter().collect::<Vec<_>>(), ["2025-01-01"]);
        assert_eq!(merging.finish().view(7).unreadable, 4);
    }
}
