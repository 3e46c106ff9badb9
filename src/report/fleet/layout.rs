//! What the objects are called. The table in `mod.rs` is about the same.

use object_store::path::Path;

/// The names of everything under a prefix.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    prefix: Path,
}

/// An object of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Claim(u32),
    Told,
    /// The reports of one instance: `total-<instance>`.
    Count(String),
    /// `news-doubled-1`, `news-spread-2`, `news-ended`
    Update(String),
}

/// The update that closes an incident.
pub(super) const ENDED: &str = "ended";

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: Path::from(prefix) }
    }

    fn under(&self, parts: &[&str]) -> Path {
        parts.iter().fold(self.prefix.clone(), |path, part| path.join(*part))
    }

    /// `instances/<instance>.json`: who an instance is, and its clock.
    pub(super) fn instance(&self, instance: &str) -> Path {
        self.under(&["instances", &format!("{instance}.json")])
    }

    /// `probes/<instance>`: whether the store heeds conditions.
    pub(super) fn probe(&self, instance: &str) -> Path {
        self.under(&["probes", instance])
    }

    /// `incidents/<key>`
    pub(super) fn incident(&self, key: &str) -> Path {
        self.under(&["incidents", key])
    }

    /// `incidents/<key>/<number>/<part>`. Listings are in the order of names, and bounded: totals come last, because there is one
    /// for each process.
    pub(super) fn part(&self, key: &str, number: u64, part: &Part) -> Path {
        let name = match part {
            Part::Claim(claim) => format!("claim-{claim}"),
            Part::Told => "told".to_owned(),
            Part::Count(instance) => format!("total-{instance}"),
            Part::Update(what) => format!("news-{what}"),
        };
        self.under(&["incidents", key, &number.to_string(), &name])
    }

    /// Reads the number and the part of an object of an incident.
    pub(super) fn parse_part(path: &Path) -> Option<(u64, Part)> {
        let mut parts = path.as_ref().rsplit('/');
        let (name, number) = (parts.next()?, parts.next()?.parse().ok()?);
        let part = match name.split_once('-') {
            None if name == "told" => Part::Told,
            Some(("claim", claim)) => Part::Claim(claim.parse().ok()?),
            Some(("total", instance)) => Part::Count(instance.to_owned()),
            Some(("news", what)) => Part::Update(what.to_owned()),
            _ => return None,
        };
        Some((number, part))
    }

    /// `reports/<day>/<instance>-<first report>.jsonl.gz`
    pub(super) fn batch(&self, day: &str, name: &str) -> Path {
        self.under(&["reports", day, &format!("{name}.jsonl.gz")])
    }

    /// `index/<day>/<instance>.json`
    pub(super) fn index(&self, day: &str, name: &str) -> Path {
        self.under(&["index", day, &format!("{name}.json")])
    }

    /// `index/<day>/all.json.gz`: the same of all instances.
    pub(super) fn compacted(&self, day: &str) -> Path {
        self.under(&["index", day, "all.json.gz"])
    }

    /// `upkeep/<day>`: who removes what is old on that day.
    pub(super) fn upkeep(&self, day: &str) -> Path {
        self.under(&["upkeep", day])
    }

    pub(super) fn folder(&self, name: &str) -> Path {
        self.under(&[name])
    }

    pub(super) fn day(&self, folder: &str, day: &str) -> Path {
        self.under(&[folder, day])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_are_written() {
        let layout = Layout::new("a/photos");
        let parts = [Part::Claim(3), Part::Told, Part::Count("0f".to_owned()), Part::Update("doubled-2".to_owned())];
        for part in parts {
            let path = layout.part("5cf4", 12, &part);
            assert!(path.as_ref().starts_with("a/photos/incidents/5cf4/12/"), "{path}");
            assert_eq!(Layout::parse_part(&path), Some((12, part)));
        }
        for other in ["a/b/x/told", "a/b/1/claim-x", "a/b/1/notes", "told"] {
            assert_eq!(Layout::parse_part(&Path::from(other)), None, "{other}");
        }
    }
}
